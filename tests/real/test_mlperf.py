"""`python -m loadtest mlperf` as its users run it: on a real server, on one that stands still, and over HTTP."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loadtest.__main__ import main
from loadtest.bench.stall import standing_still
from loadtest.mlperf.report import Bounds
from loadtest.mlperf.scenarios import Settings, single_stream
from loadtest.mlperf.subject import Subject
from loadtest.open_loop import GrpcTraffic, constant, framed, play, play_queries, quantile
from loadtest.processes import running
from loadtest.target import INFER
from tests.grpc_peer import grpc_peer, message
from tests.http_v2_server import serving

if TYPE_CHECKING:
    from tests.real.conftest import RunningServer


class Mlperf:
    """The command line, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: Path) -> None:
        self._monkeypatch, self._capsys, self._out = monkeypatch, capsys, out

    def __call__(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """The exit code, and the last line."""
        self._monkeypatch.setattr(sys, "argv", ["loadtest", "mlperf", *arguments, "--out", str(self._out), "--json"])
        self._monkeypatch.setattr("signal.signal", lambda *_: None)
        code = main()
        return code, json.loads(self._capsys.readouterr().out.splitlines()[-1])


@pytest.fixture
def mlperf(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Mlperf:
    return Mlperf(monkeypatch, capsys, tmp_path)


def test_a_run_at_a_rate_reports_what_was_asked_for(mlperf: Mlperf, shared_server: RunningServer) -> None:
    flags = ("--rate", "500", "--seconds", "1.2", "--p99-ms", "20000")
    code, report = mlperf("server", "--url", shared_server.grpc_address, *flags)

    assert (code, report["valid"], report["reason"]) == (0, True, "")
    assert report["rate"] == 500 and report["failed"] == 0
    assert 0 < report["achieved"] <= 1.2 * 500
    assert 0 < report["p50_ms"] <= report["p99_ms"] < 20_000


def test_too_few_queries_are_invalid_and_exit_code_1(mlperf: Mlperf, shared_server: RunningServer) -> None:
    flags = ("--rate", "50", "--seconds", "0.5", "--p99-ms", "5000")
    code, report = mlperf("server", "--url", shared_server.grpc_address, *flags)

    assert (code, report["valid"]) == (1, False)
    assert "of which 459 are needed" in report["reason"]


def test_queries_of_eight_and_offline_on_a_real_server(mlperf: Mlperf, shared_server: RunningServer) -> None:
    for scenario, flags in (
        ("multi-stream", ("--seconds", "0.5")),
        ("offline", ("--samples", "300", "--seconds", "60")),
    ):
        _, report = mlperf(scenario, "--url", shared_server.grpc_address, *flags)

        assert report["scenario"] == scenario and report["failed"] == 0
        assert report["valid"] or report["reason"].startswith("too few queries")
        assert report["achieved"] > 0 and report["p99_ms"] > 0


def test_a_search_ends_with_a_confirmed_rate(mlperf: Mlperf, shared_server: RunningServer) -> None:
    flags = ("--seconds", "0.3", "--tries", "1", "--p99-ms", "20000", "--max-late-ms", "20000", "--samples", "3000")
    code, report = mlperf("server", "--url", shared_server.grpc_address, *flags)

    assert (code, report["valid"]) == (0, True), report["reason"]
    assert report["rate"] > 0


class Forgetful(Subject):
    """A server that counts nothing of what it answers."""

    def successes(self) -> int:
        return 0


def test_answers_that_the_server_has_not_counted_are_no_answers() -> None:
    with grpc_peer(message) as address:
        subject = Forgetful(GrpcTraffic(address, INFER, framed([b"abc"])), 10, None, "lenet5")
        report = single_stream(subject, Settings(seconds=0.1, bounds=Bounds(15.0, 1.0)))

    assert not report.valid
    assert report.reason == f"{report.queries} answers, but the server counted 0 successes"


STALL_SECONDS = 0.2


def test_a_server_that_stands_still_shows_it_in_the_open_loop_and_hides_it_in_the_closed_one(tmp_path: Path) -> None:
    """A fifth of a second of every second: a fifth of the requests of an open loop, and one in flight of a closed one.

    A machine that stands still for others' sake does the same to both as the server does.
    """
    command = [sys.executable, "-m", "loadtest.floors.http2_sink"]
    with running(command, tmp_path, "stub") as stub:
        traffic = GrpcTraffic(stub.address, INFER, framed([b"abc"]))
        with standing_still(stub.process, STALL_SECONDS, every=1.0):
            opened = play(traffic, constant(200, 1.2), seconds=1.2, patience=30)
        with standing_still(stub.process, STALL_SECONDS, every=1.0):
            closed = play_queries(traffic, seconds=1.2, patience=30)

    assert opened.answered.all() and closed.answered.all()
    assert closed.latencies_ms[-1] >= 0.9 * STALL_SECONDS * 1e3
    assert quantile(opened.latencies_ms, 0.99) > 0.7 * STALL_SECONDS * 1e3
    slow_opened, slow_closed = (int((seen.latencies_ms > 0.5 * STALL_SECONDS * 1e3).sum()) for seen in (opened, closed))
    assert slow_opened > 5 * slow_closed > 0


def test_a_stream_over_http_sends_binary_tensors(mlperf: Mlperf) -> None:
    with serving("echo") as server:
        flags = ("--protocol", "http", "--model", "echo", "--seconds", "0.5", "--connections", "2")
        _, report = mlperf("single-stream", "--url", server.address, *flags)

    assert report["failed"] == 0 and report["queries"] > 1
    assert sum(server.seen.values()) == 1 + report["queries"]  # one is checked before


def test_a_model_that_http_does_not_know_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with serving("echo") as server:
        flags = ["--protocol", "http", "--url", server.address, "--model", "other", "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["loadtest", "mlperf", "single-stream", *flags])
        monkeypatch.setattr("signal.signal", lambda *_: None)

        assert main() == 2
    assert "nothing at /v2/models/other" in capsys.readouterr().err
