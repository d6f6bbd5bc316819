"""`python -m loadtest bench`: servers side by side on this machine, the same load on each.

All servers run all the time and take turns: round after round, one volley each, so that a machine that grows slower
harms all alike. What counts is the median of the rounds, and above all the ratios: absolute figures are this machine's.
Before that, one request to each server is checked in full; after that, what our server counted must be what was sent.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from loadtest.errors import LoadTestError
from loadtest.h2load import H2load, frame
from loadtest.payload import Workload
from loadtest.processes import Running, our_server, running
from loadtest.target import Target

OURS = "convoy"
FLOOR = "bare grpc.aio"


@dataclass(frozen=True)
class Bench:
    """What `bench` is asked to do."""

    model: str
    requests: int
    """In each round, per server."""
    rounds: int
    connections: int
    streams: int
    """In flight per connection."""
    model_repository: Path
    out: Path


@dataclass(frozen=True)
class Figures:
    """One round of one server, or the medians of its rounds."""

    requests_per_second: float
    cpu_us_per_request: float
    p50_ms: float
    p99_ms: float


def bench(test: Bench) -> None:
    """Carries out `test`, prints a table, and leaves bench.json in `test.out`."""
    h2load = H2load.find()
    test.out.mkdir(parents=True, exist_ok=True)
    body, answer = test.out / "request.grpc", test.out / "answer.pb"
    with ExitStack() as stack:
        ours = stack.enter_context(running(our_server(test.model_repository), test.out, "convoy"))
        client = stack.enter_context(Target(ours.address))
        workload = client.workload(test.model, {}, count=1)
        body.write_bytes(frame(workload.bodies[0]))
        answer.write_bytes(_checked_answer(ours.address, workload))
        command = [sys.executable, "-m", "loadtest.floors.grpc_aio", "--answer", str(answer)]
        floor = stack.enter_context(running(command, test.out, "grpc_aio"))
        _checked_answer(floor.address, workload)
        servers = {OURS: ours, FLOOR: floor}
        for name, server in servers.items():
            print(f"bench: warming up {name}")
            _volley(test, h2load, server, body, test.requests // 10 + 1)
        before = client.counts(test.model)
        rounds: dict[str, list[Figures]] = {name: [] for name in servers}
        for number in range(1, test.rounds + 1):
            for name, server in servers.items():
                rounds[name].append(_volley(test, h2load, server, body, test.requests))
                print(f"bench: round {number} of {test.rounds}, {name}: {rounds[name][-1].requests_per_second:,.0f}/s")
        counted = client.counts(test.model).since(before)
    sent = test.requests * test.rounds
    if (counted.successes, counted.failures) != (sent, 0):
        raise LoadTestError(f"{sent} requests sent, but {OURS} counted {counted}")
    medians = {name: _medians(figures) for name, figures in rounds.items()}
    print(_table(rounds, medians))
    print(f"{OURS}: {sent:,} sent, as many succeeded, average batch {counted.average_batch:.2f}")
    report = {
        "machine": _machine(),
        "workload": {"in_flight": test.connections * test.streams, "average_batch": counted.average_batch}
        | {key: value for key, value in asdict(test).items() if key not in ("model_repository", "out")},
        "rounds": {name: [asdict(one) for one in figures] for name, figures in rounds.items()},
        "medians": {name: asdict(figures) for name, figures in medians.items()},
        "ratios": {f"{OURS} / {FLOOR}": _ratios(medians[OURS], medians[FLOOR])},
    }
    (test.out / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {test.out / 'bench.json'}")


def _checked_answer(address: str, workload: Workload) -> bytes:
    with Target(address) as target:
        answer = target.infer(workload.bodies[0], timeout=30.0)
    workload.check(answer)
    return answer


def _volley(test: Bench, h2load: H2load, server: Running, body: Path, requests: int) -> Figures:
    cpu_before = server.cpu_seconds()
    seen = h2load.fire(
        server.address,
        body,
        requests=requests,
        connections=test.connections,
        streams=test.streams,
        log=test.out / "h2load.log",
    )
    cpu = server.cpu_seconds() - cpu_before
    return Figures(seen.requests_per_second, cpu / requests * 1e6, seen.p50_ms, seen.p99_ms)


def _medians(rounds: list[Figures]) -> Figures:
    columns = zip(*(asdict(figures).values() for figures in rounds), strict=True)
    return Figures(*(median(column) for column in columns))


def _ratios(ours: Figures, other: Figures) -> dict[str, float]:
    theirs = asdict(other)
    return {key: value / theirs[key] for key, value in asdict(ours).items() if theirs[key]}


def _table(rounds: dict[str, list[Figures]], medians: dict[str, Figures]) -> str:
    """Medians, with the spread of requests/s, and ratios to the floor."""
    lines = [f"{'':16}{'requests/s':>12}{'(spread)':>18}{'CPU µs/request':>16}{'p50 ms':>10}{'p99 ms':>10}"]
    for name, figures in medians.items():
        rates = [one.requests_per_second for one in rounds[name]]
        spread = f"{min(rates):,.0f}–{max(rates):,.0f}"
        lines.append(
            f"{name:16}{figures.requests_per_second:>12,.0f}{spread:>18}{figures.cpu_us_per_request:>16.1f}"
            f"{figures.p50_ms:>10.2f}{figures.p99_ms:>10.2f}"
        )
    ratios = _ratios(medians[OURS], medians[FLOOR])
    lines.append(
        f"{'ratio':16}{ratios['requests_per_second']:>12.2f}{'':18}{ratios.get('cpu_us_per_request', 0.0):>16.2f}"
        f"{ratios['p50_ms']:>10.2f}{ratios['p99_ms']:>10.2f}"
    )
    return "\n".join(lines)


def _machine() -> dict[str, object]:
    return {
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("grpcio", "numpy", "onnxruntime", "protobuf", "uvloop")},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
