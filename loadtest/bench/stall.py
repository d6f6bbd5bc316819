"""A server that stands still for 5 ms every second, asked in an open loop and in a closed one.

The server is a stub that serves a request in 1.5 ms, one after another, and gets 530 a second at equal distances: 80 %
of what it can do. What comes while it stands still waits, and what comes while that is worked off waits too: 2.5 % of
the requests, which is seen in the 99th percentile. The closed loop sends nothing meanwhile, so that one request a
second is slow, of 600. At less than half of the capacity a stall of 0.5 % of the time would be beyond the 99th
percentile of the open loop, too.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from loadtest.bench.comparison import take_turns
from loadtest.bench.servers import Plan
from loadtest.figures import Figures
from loadtest.open_loop import GrpcTraffic, Outcome, constant, framed, play_apart, play_queries_apart, quantile
from loadtest.processes import Running, running
from loadtest.target import INFER

STALL_SECONDS, EVERY_SECONDS = 0.005, 1.0
_SERVICE_US = 1_500
_RATE = 530.0
_SECONDS = 8.0
_PATIENCE = 10.0
_MESSAGE = bytes(3_000)


def stall(plan: Plan) -> dict[str, object]:
    """Both loops, with and without the stalls."""
    command = [sys.executable, "-m", "loadtest.floors.http2_sink", "--service-us", str(_SERVICE_US)]
    with running(command, plan.out, "stub") as stub:
        turns = {
            f"{loop}, {how}": partial(_measure, stub, loop, stalls=how == "stalls")
            for loop in ("open loop", "closed loop")
            for how in ("steady", "stalls")
        }
        pairs = tuple((f"{loop}, stalls", f"{loop}, steady") for loop in ("open loop", "closed loop"))
        comparison = take_turns(turns, plan.rounds, pairs)
    print(comparison.table())
    return {"service_us": _SERVICE_US, "offered_per_second": _RATE, **comparison.as_json()}


@contextmanager
def standing_still(process: subprocess.Popen[bytes], seconds: float, every: float) -> Iterator[None]:
    """Meanwhile the process is stopped for `seconds`, once in `every`, the first time at the end of one."""
    over = threading.Event()

    def stop_and_go() -> None:
        while not over.wait(every - seconds):
            process.send_signal(signal.SIGSTOP)
            over.wait(seconds)
            process.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=stop_and_go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _measure(stub: Running, loop: str, *, stalls: bool) -> Figures:
    traffic = GrpcTraffic(stub.address, INFER, framed([_MESSAGE]), connections=1)
    with standing_still(stub.process, STALL_SECONDS, EVERY_SECONDS) if stalls else nullcontext():
        outcome = _play(traffic, loop)
    latencies_ms = outcome.latencies_ms
    return {
        "p99_ms": quantile(latencies_ms, 0.99),
        "p50_ms": quantile(latencies_ms, 0.5),
        "p99.9_ms": quantile(latencies_ms, 0.999),
        "answered_per_second": outcome.achieved,
        "late_p99_ms": quantile(outcome.late_ms, 0.99),
    }


def _play(traffic: GrpcTraffic, loop: str) -> Outcome:
    if loop == "closed loop":
        return play_queries_apart(traffic, seconds=_SECONDS, patience=_PATIENCE)
    return play_apart(traffic, constant(_RATE, _SECONDS), seconds=_SECONDS, patience=_PATIENCE)
