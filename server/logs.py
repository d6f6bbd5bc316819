"""The log: one line an event, for people or as JSON. Tensor contents are never logged.

A line about a request says which one by fields (`FIELDS`, handed over as `extra`): members of the JSON object, and
`name=value` at the end of a line for people.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from server.files import given_by
from server.flag_values import LogFormat
from server.settings import Settings
from server.urls import redacted

FIELDS = (
    "model", "version", "request_id", "trace_id", "rows", "batch_rows", "queue_us", "total_us", "headers", "error",
    "principal", "peer", "protocol", "region", "parameters", "certificate",
)  # fmt: skip
"""What a line may carry beside its message, in the order in which people read it."""

AUDIT_LOGGER = "server.audit"
"""The logger of what changes the server: with `audit_to`, a log of its own."""

OURS = __name__.partition(".")[0]
"""Where the loggers of the server begin. All others are libraries'."""

_PLAIN = re.compile(r"[\w.:/@+-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class LogState:
    """What is logged, and how. May change while the server runs."""

    info: bool = True
    warning: bool = True
    error: bool = True
    verbose: int = 0
    """0: information; 1: debugging detail too; 2: that of libraries as well."""
    format: LogFormat = LogFormat.DEFAULT


class Logs:
    """This process's log."""

    def __init__(
        self, handler: logging.Handler, state: LogState, file: str = "", root: logging.Logger | None = None
    ) -> None:
        """`root` is the logger whose only handler this becomes, the root of all unless said otherwise."""
        self.file = file
        """Where it goes; "" for stderr."""
        self.state = state
        self._handler = handler
        handler.addFilter(self._let_through)
        self._root = root or logging.getLogger()
        self._root.handlers = [handler]
        self._apply()

    def change(self, **fields: Any) -> None:
        """Change fields of the state, from the next line on."""
        self.state = replace(self.state, **fields)
        self._apply()

    def _apply(self) -> None:
        state = self.state
        self._handler.setFormatter(_FORMATTERS[state.format]())
        self._root.setLevel(_least_level(state))
        # It tells of every export that fails, again and again: `tracing` does so once.
        logging.getLogger("opentelemetry").setLevel(logging.DEBUG if state.verbose > 1 else logging.CRITICAL)

    def _let_through(self, record: logging.LogRecord) -> bool:
        wanted = self._wanted(record)
        if wanted and record.name.partition(".")[0] != OURS:
            _redact(record)
        return wanted

    def _wanted(self, record: logging.LogRecord) -> bool:
        state, level = self.state, record.levelno
        if level >= logging.ERROR:
            return state.error
        if level >= logging.WARNING:
            return state.warning
        if level >= logging.INFO:
            return state.info
        return state.verbose > 1 or (state.verbose > 0 and record.name.partition(".")[0] == OURS)


def configure(settings: Settings) -> Logs:
    """Send this process's log where the flags say. Raises `OSError` where a file cannot be opened."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if settings.log_file:
        with given_by("--log-file", settings.log_file):
            handler = logging.FileHandler(settings.log_file)
    if settings.audit_log:
        with given_by("--audit-log", settings.audit_log):
            audit_to(settings.audit_log)
    state = LogState(
        settings.log_info, settings.log_warning, settings.log_error, settings.log_verbose, settings.log_format
    )
    return Logs(handler, state, str(settings.log_file or ""))


def _redact(record: logging.LogRecord) -> None:
    """Libraries log the URLs that they ask, with all that is in them."""
    record.msg, record.args = redacted(record.getMessage()), ()
    if record.exc_info:
        record.exc_text = redacted(_LineFormatter().formatException(record.exc_info))
        record.exc_info = None


def audit_to(path: Path) -> None:
    """Append the audit log to a file, as JSON, whatever else is logged. Whoever moves the file away gets a new one.

    Raises `OSError` where it cannot be opened.
    """
    handler = WatchedFileHandler(path)
    handler.setFormatter(_JsonFormatter())
    logger = logging.getLogger(AUDIT_LOGGER)
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _least_level(state: LogState) -> int:
    """Below this nothing is logged, and need not be put together."""
    if state.verbose > 0:
        return logging.DEBUG
    if state.info:
        return logging.INFO
    return logging.WARNING if state.warning else logging.ERROR


class _LineFormatter(logging.Formatter):
    """A line for people, with the fields behind the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname).1s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- as the base class has it
        line = super().formatMessage(record)
        fields = record.__dict__
        said = [f"{name}={_quoted(fields[name])}" for name in FIELDS if name in fields and fields[name] != ""]
        return " ".join((line, *said)) if said else line


class _IsoFormatter(_LineFormatter):
    """The same, its time as ISO 8601 has it, in UTC."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class _JsonFormatter(JsonFormatter):
    def __init__(self) -> None:
        fields = ("asctime", "levelname", "name", "message")
        super().__init__(fields, rename_fields={"asctime": "time", "levelname": "level"})


_FORMATTERS: dict[LogFormat, type[logging.Formatter]] = {
    LogFormat.DEFAULT: _LineFormatter,
    LogFormat.ISO8601: _IsoFormatter,
    LogFormat.JSON: _JsonFormatter,
}


def _quoted(value: object) -> str:
    """A value that stays on its line, whatever a caller has put into it."""
    if isinstance(value, dict):
        return json.dumps(value)
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
