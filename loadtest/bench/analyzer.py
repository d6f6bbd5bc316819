"""The small workload driven by perf_analyzer, Triton's own load generator, whose client costs more than h2load's.

It measures time windows: asked for a number of requests, it divides them by whole seconds.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loadtest import perf_analyzer
from loadtest.bench.comparison import take_turns
from loadtest.bench.servers import GRPCIO, NGHTTP2, Ours, Plan, checked_answer, start_ours
from loadtest.errors import LoadTestError
from loadtest.figures import Figures
from loadtest.perf_analyzer import PerfAnalyzer

_RUN_SECONDS = 180.0
_WINDOW_MS = 1000


@dataclass(frozen=True)
class Drive:
    """What one run of perf_analyzer is asked for."""

    mode: str
    in_flight: int


def perf_analyzer_workload(plan: Plan) -> dict[str, object]:
    """Both engines, many requests in flight from asynchronous clients, and one from a synchronous one."""
    program = perf_analyzer.install()
    drives = (Drive("async", 64), Drive("sync", 1))
    with ExitStack() as stack:
        servers = {name: start_ours(stack, plan, name) for name in (NGHTTP2, GRPCIO)}
        for ours in servers.values():
            checked_answer(ours.target, ours.target.workload(plan.model, {}, count=1))
        turns = {
            _name(name, drive): partial(_run, program, ours, drive, plan.out / "perf_analyzer.csv")
            for drive in drives
            for name, ours in servers.items()
        }
        pairs = tuple((_name(NGHTTP2, drive), _name(GRPCIO, drive)) for drive in drives)
        comparison = take_turns(turns, plan.rounds, pairs)
    print(comparison.table())
    return {"window_ms": _WINDOW_MS, **comparison.as_json()}


def _name(server: str, drive: Drive) -> str:
    return f"{server} ×{drive.in_flight}"


def _run(program: PerfAnalyzer, ours: Ours, drive: Drive, csv_file: Path) -> Figures:
    before, cpu_before = ours.target.counts(ours.model), ours.server.cpu_seconds()
    report = program.run(
        *("-m", ours.model, "-i", "grpc", "-u", ours.server.address, f"--{drive.mode}"),
        *("--concurrency-range", str(drive.in_flight)),
        csv_file=csv_file,
        window_ms=_WINDOW_MS,
        seconds=_RUN_SECONDS,
    )
    cpu_seconds = ours.server.cpu_seconds() - cpu_before
    counted = ours.target.counts(ours.model).since(before)
    measured = re.search(r"Request count: (\d+)", report.output)
    if measured is None or counted.failures or counted.successes < int(measured[1]):
        raise LoadTestError(f"{ours.server.address} counted {counted}, but perf_analyzer saw:\n{report.output}")
    return {
        "requests_per_second": report.number("Inferences/Second"),
        "cpu_us_per_request": cpu_seconds / counted.successes * 1e6,
        "p50_ms": report.number("p50 latency") / 1e3,
        "p99_ms": report.number("p99 latency") / 1e3,
        "average_batch": counted.average_batch,
    }
