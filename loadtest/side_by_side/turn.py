"""One turn: a fresh server, from its start to its end."""

from __future__ import annotations

import gc
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from loadtest.errors import LoadTestError, WrongAnswerError
from loadtest.h2load import H2load, Volley, frame
from loadtest.open_loop import GrpcTraffic, HttpTraffic, Traffic, framed, play, poisson
from loadtest.peers.base import Call, Peer, Serving, Tensor, free_ports
from loadtest.side_by_side.asking import ask, check_together, checked, first_answer
from loadtest.side_by_side.processes import ProcessTree, ServerProcesses, server_processes
from loadtest.side_by_side.records import Load, Record
from loadtest.side_by_side.subjects import Objective, Workload

_START_SECONDS = 60.0
_IDLE_SECONDS = 1.0
_CONNECTIONS = 4
_GOOD_SHARE = 0.99
_SEEDS = (1, 2)
"""A rate is kept where one of these schedules is: the machine itself may stand still for a moment."""
_MIB = 1 << 20
_PATIENCE_LIMITS = 3.0
# An answer in decimal digits may be a little shorter in one batch than in another.
_DECIMAL_SLACK = 0.9
_LOG_TAIL = 600
_ERROR = re.compile(r"[\w.]*(Error|Exception|Fail|NoSuchFile)[\w.]*: ")


@dataclass(frozen=True)
class Tools:
    """What every turn needs."""

    h2load: H2load
    out: Path
    """For logs, and the scratch of h2load."""
    speed: float
    """How many times shorter than a workload says its volleys are."""


@dataclass(frozen=True)
class ServerUnderTest:
    """A server that has answered, and what is sent to it."""

    address: str
    call: Call
    row: Tensor
    answer: Tensor
    answer_bytes: int
    """Length of an answer's body as it travels."""
    processes: ProcessTree | None
    """None where they are not on this machine, or not known."""


def take_turn(
    peer: Peer, python: Path, workload: Workload, rows: list[Tensor], answers: list[Tensor], number: int, tools: Tools
) -> Record:
    """Never raises what the server is to blame for: the record says why it ended early."""
    record = Record(peer.name, workload.subject.name, number)
    log = tools.out / f"{workload.subject.name}.{peer.name}.log"
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as scratch:
        serving = Serving(workload.subject, python, Path(scratch), free_ports(), rows[0], answers[0])
        try:
            began = time.monotonic()
            with server_processes(peer.launch(serving), log) as processes:
                target = _meet(peer, serving, processes, record, began)
                if peer.runs_model:
                    check_together(target.address, target.call, rows, answers)
                measure(target, workload, record, tools)
        except (LoadTestError, WrongAnswerError, OSError) as error:
            record = replace(record, failure=f"{error}{_tail(log)}")
    return record


def measure(target: ServerUnderTest, workload: Workload, record: Record, tools: Tools) -> None:
    """Puts all loads of `workload` on `target` and fills `record`."""
    peak = [0]
    for in_flight in workload.in_flight:
        with _watched_memory(target, peak):
            record.loads[str(in_flight)] = _volleys(target, in_flight, workload.seconds / tools.speed, tools)
        checked(target.call, ask(target.address, target.call, target.row), target.answer)
    if target.processes is not None:
        own_bytes = max(peak[0], target.processes.own_bytes())
        record.server_figures["peak_memory_mib"] = (own_bytes + target.processes.file_bytes()) / _MIB
    if workload.objective is not None:
        record.objective.update(_keep(target, workload.objective, record, tools))


def _meet(peer: Peer, serving: Serving, processes: ServerProcesses, record: Record, began: float) -> ServerUnderTest:
    """Waits for the first right answer, then looks at the idle server."""
    call = peer.call(serving.subject)
    address = f"127.0.0.1:{serving.ports['http' if call.http1 else 'grpc']}"
    alive = processes.process.poll
    body = first_answer(address, call, serving.row, seconds=_START_SECONDS, alive=lambda: alive() is None)
    record.server_figures["start_seconds"] = time.monotonic() - began
    checked(call, body, serving.answer)
    processes.refresh()
    cpu_before = processes.cpu_seconds()
    time.sleep(_IDLE_SECONDS)
    record.server_figures["idle_cores"] = (processes.cpu_seconds() - cpu_before) / _IDLE_SECONDS
    record.server_figures["idle_memory_mib"] = (processes.own_bytes() + processes.file_bytes()) / _MIB
    record.server_figures["processes"] = float(len(processes.processes()))
    return ServerUnderTest(address, call, serving.row, serving.answer, len(body), processes)


def _volleys(target: ServerUnderTest, in_flight: int, seconds: float, tools: Tools) -> Load:
    """Finds out how fast the server is, warms it up, and measures."""
    rate = _volley(target, in_flight, max(2 * in_flight, 10), seconds, tools)[0].requests_per_second
    rate = _volley(target, in_flight, _count(rate, in_flight, seconds / 4), seconds, tools)[0].requests_per_second
    count = _count(rate, in_flight, seconds)
    volley, cpu_seconds = _volley(target, in_flight, count, seconds, tools)
    figures = {
        "requests_per_second": volley.requests_per_second,
        "p50_ms": volley.p50_ms,
        "p99_ms": volley.p99_ms,
        "client_cpu_us_per_request": volley.client_cpu_seconds / count * 1e6,
        "requests": float(count),
    }
    if cpu_seconds is not None:
        figures["cpu_us_per_request"] = cpu_seconds / count * 1e6
        figures["cores_used"] = cpu_seconds * volley.requests_per_second / count
    return figures


def _count(rate: float, in_flight: int, seconds: float) -> int:
    return max(4 * in_flight, 20, round(rate * seconds))


def _volley(
    target: ServerUnderTest, in_flight: int, requests: int, seconds: float, tools: Tools
) -> tuple[Volley, float | None]:
    """What h2load saw, and the CPU seconds of the server. LoadTestError unless everything was answered."""
    call = target.call
    body = tools.out / "request.body"
    message = call.body(target.row)
    body.write_bytes(message if call.http1 else frame(message))
    log, patience = tools.out / "h2load.log", 60.0 + 10 * seconds
    cpu_before = target.processes.cpu_seconds() if target.processes else 0.0
    if call.http1:
        url = f"http://{target.address}{call.path}"
        headers = dict(call.headers)
        volley = tools.h2load.fire_http(
            url, body, headers, requests=requests, connections=in_flight, log=log, timeout_seconds=patience
        )
    else:
        connections = min(_CONNECTIONS, in_flight)
        streams = in_flight // connections
        volley = tools.h2load.fire(
            target.address,
            body,
            requests=requests,
            connections=connections,
            streams=streams,
            log=log,
            timeout_seconds=patience,
        )
    cpu_seconds = target.processes.cpu_seconds() - cpu_before if target.processes else None
    expected = requests * (target.answer_bytes if call.http1 else len(frame(b"")) + target.answer_bytes)
    least = expected if call.fixed_size else _DECIMAL_SLACK * expected
    if volley.body_bytes < least:
        raise LoadTestError(f"{requests} answers had {volley.body_bytes} bytes, expected {expected}: some are refusals")
    return volley, cpu_seconds


def _keep(target: ServerUnderTest, objective: Objective, record: Record, tools: Tools) -> Load:
    """The highest of the objective's rates that the server keeps it at, by bisection below its closed-loop rate."""
    fastest = max(load["requests_per_second"] for load in record.loads.values())
    rates = [rate for rate in objective.rates if rate <= fastest]
    seconds = objective.seconds / tools.speed
    kept: Load = {"kept_per_second": 0.0, "limit_ms": objective.limit_ms}
    low, high = 0, len(rates)
    while low < high:
        middle = (low + high) // 2
        for seed in _SEEDS:
            p99_ms, good = _arrivals(target, rates[middle], seconds, objective.limit_ms, seed)
            if good >= _GOOD_SHARE:
                break
        if good >= _GOOD_SHARE:
            kept = {**kept, "kept_per_second": rates[middle], "p99_ms": p99_ms}
            low = middle + 1
        else:
            high = middle
    return kept


def _arrivals(target: ServerUnderTest, rate: float, seconds: float, limit_ms: float, seed: int) -> tuple[float, float]:
    """p99 from the scheduled moment, and the share answered within the limit."""
    patience = _PATIENCE_LIMITS * limit_ms / 1e3
    gc.disable()
    try:
        outcome = play(_traffic(target), poisson(rate, seconds, seed=seed), seconds=seconds, patience=patience)
    finally:
        gc.enable()
    waits_ms = sorted(outcome.waits_ms.tolist())
    good = sum(wait <= limit_ms for wait in waits_ms) / len(waits_ms)
    return waits_ms[int(0.99 * (len(waits_ms) - 1))], good


def _traffic(target: ServerUnderTest) -> Traffic:
    call, message = target.call, target.call.body(target.row)
    if call.http1:
        return HttpTraffic(target.address, call.path, (message,), call.headers)
    return GrpcTraffic(target.address, call.path, framed([message]))


@contextmanager
def _watched_memory(target: ServerUnderTest, peak: list[int]) -> Iterator[None]:
    """Notes the most memory that is no file's, every second while the block runs."""
    processes = target.processes
    if processes is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1.0):
            peak[0] = max(peak[0], processes.own_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _tail(log: Path) -> str:
    """What the server said last, or the last error that it named, for the report."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    return f" | {(errors or lines)[-1][:_LOG_TAIL]}" if lines else ""
