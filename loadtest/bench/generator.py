"""What the generator itself can offer: at a stub that does nothing, so that whatever falls short is the generator's."""

from __future__ import annotations

import sys
from functools import partial

from loadtest.bench.comparison import take_turns
from loadtest.bench.servers import Plan
from loadtest.figures import Figures
from loadtest.open_loop import GrpcTraffic, framed, play_apart, poisson, quantile
from loadtest.processes import Running, running
from loadtest.target import INFER

RATES = (200, 2_000, 5_000, 15_000, 25_000)
_SECONDS = 3.0
_PATIENCE = 5.0
_MESSAGE = bytes(3_200)
"""As large as a request for LeNet-5."""


def generator(plan: Plan) -> dict[str, object]:
    """Poisson arrivals from one process at ever higher rates."""
    with running([sys.executable, "-m", "loadtest.floors.http2_sink"], plan.out, "stub") as stub:
        turns = {f"{rate:,}/s": partial(_measure, stub, rate) for rate in RATES}
        comparison = take_turns(turns, plan.rounds, ())
    print(comparison.table())
    return {"message_bytes": len(_MESSAGE), **comparison.as_json()}


def _measure(stub: Running, rate: int) -> Figures:
    cpu_before = stub.cpu_seconds()
    traffic = GrpcTraffic(stub.address, INFER, framed([_MESSAGE]))
    outcome = play_apart(traffic, poisson(rate, _SECONDS, seed=1), seconds=_SECONDS, patience=_PATIENCE)
    return {
        "answered_per_second": outcome.achieved,
        "generator_cpu_us_per_request": outcome.cpu_seconds / outcome.scheduled * 1e6,
        "generator_cores": max(outcome.cpu_shares),
        "late_p50_ms": quantile(outcome.late_ms, 0.5),
        "late_p99_ms": quantile(outcome.late_ms, 0.99),
        "p50_ms": quantile(outcome.latencies_ms, 0.5),
        "p99_ms": quantile(outcome.latencies_ms, 0.99),
        "stub_cpu_us_per_request": (stub.cpu_seconds() - cpu_before) / outcome.scheduled * 1e6,
    }
