"""The lines of the log: which are written, how they look, and that nobody can forge one."""

from __future__ import annotations

import io
import json
import logging

import pytest

from server.flag_values import LogFormat
from server.logs import Logs, LogState


class Log:
    """A log of its own, and what is in it."""

    def __init__(self, state: LogState) -> None:
        self.stream = io.StringIO()
        self.root = logging.getLogger("of a test")
        self.root.propagate = False
        self.logs = Logs(logging.StreamHandler(self.stream), state, root=self.root)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


def levels(log: Log) -> list[str]:
    """Which of all levels are written."""
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        if log.root.isEnabledFor(level):
            log.root.log(level, logging.getLevelName(level))
    return [line.rsplit(" ", 1)[1] for line in log.lines]


@pytest.mark.parametrize(
    ("state", "written"),
    [
        (LogState(), ["INFO", "WARNING", "ERROR", "CRITICAL"]),
        (LogState(verbose=1), ["INFO", "WARNING", "ERROR", "CRITICAL"]),
        (LogState(verbose=2), ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]),
        (LogState(info=False), ["WARNING", "ERROR", "CRITICAL"]),
        (LogState(warning=False), ["INFO", "ERROR", "CRITICAL"]),
        (LogState(error=False), ["INFO", "WARNING"]),
        (LogState(info=False, warning=False), ["ERROR", "CRITICAL"]),
        (LogState(info=False, warning=False, error=False), []),
        (LogState(info=False, warning=False, error=False, verbose=2), ["DEBUG"]),
    ],
)
def test_every_level_has_its_switch(state: LogState, written: list[str]) -> None:
    assert levels(Log(state)) == written


@pytest.mark.parametrize("form", LogFormat)
def test_urls_of_libraries_are_logged_without_secrets(form: LogFormat) -> None:
    log = Log(LogState(format=form))
    try:
        raise OSError("no way to https://x/y?sig=sesame")
    except OSError:
        log.root.exception("%s failed", "https://key:sesame@host/y")
    assert "no way to https://x/y?…" in log.stream.getvalue().replace("\\u2026", "…")
    assert "sesame" not in log.stream.getvalue()


@pytest.mark.parametrize(("verbose", "written"), [(0, []), (1, ["ours"]), (2, ["ours", "a library's"])])
def test_details_of_libraries_are_told_only_on_the_second_level(verbose: int, written: list[str]) -> None:
    log = Log(LogState(verbose=verbose))
    for name, message in (("server.of.a.test", "ours"), ("urllib3.connectionpool", "a library's")):
        record = logging.LogRecord(name, logging.DEBUG, __file__, 1, message, None, None)
        if log.root.isEnabledFor(record.levelno):
            log.root.handle(record)
    assert [line.rsplit(": ", 1)[1] for line in log.lines] == written


def test_a_change_counts_from_the_next_line_on() -> None:
    log = Log(LogState(info=False))
    log.root.info("before")
    log.logs.change(info=True, format=LogFormat.JSON)
    log.root.info("after")
    assert [json.loads(line)["message"] for line in log.lines] == ["after"]


def test_a_line_for_people_ends_with_what_it_is_about() -> None:
    log = Log(LogState())
    fields = {"request_id": "7", "model": "m", "version": "", "trace_id": "ab", "unknown": "x"}
    log.root.warning("something", extra=fields)
    (line,) = log.lines
    assert line.endswith(" W of a test: something model=m request_id=7 trace_id=ab")


def test_a_caller_cannot_forge_a_line() -> None:
    log = Log(LogState())
    log.root.info("a request", extra={"request_id": "1\n2026-01-01 E forged: x", "model": 'a "b" c'})
    (line,) = log.lines
    assert line.endswith(r' model="a \"b\" c" request_id="1\n2026-01-01 E forged: x"')


def test_a_json_line_has_the_same_as_members() -> None:
    log = Log(LogState(format=LogFormat.JSON))
    log.root.info("a %s", "request", extra={"request_id": "1\n2", "rows": 3})
    (line,) = log.lines
    fields = json.loads(line)
    assert {name: fields[name] for name in ("level", "name", "message", "request_id", "rows")} == {
        "level": "INFO",
        "name": "of a test",
        "message": "a request",
        "request_id": "1\n2",
        "rows": 3,
    }


def test_iso_times_are_utc_and_have_microseconds() -> None:
    log = Log(LogState(format=LogFormat.ISO8601))
    record = logging.LogRecord("server", logging.INFO, __file__, 1, "hello", None, None)
    record.created = 1_700_000_000.25
    log.root.handle(record)
    assert log.lines == ["2023-11-14T22:13:20.250000Z I server: hello"]
