"""Reloads beside serving: LeNet-5 is asked at a fixed rate while the same model is loaded anew a hundred times.

Each reload is a request to load the model once its file's time has changed: it is opened and measured beside itself,
takes over, and the old session answers what it was asked. Every request must be answered, and counted as a success,
whichever session it met. A fresh server per round; as many volleys follow `alone` as went on `while reloading`.
"""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from loadtest.bench.comparison import Comparison
from loadtest.bench.loading import latencies, volley
from loadtest.bench.servers import Ours, Plan, prepare
from loadtest.errors import LoadTestError
from loadtest.figures import Figures
from loadtest.processes import our_server, running
from loadtest.target import Target

RELOADING = "while reloading"
ALONE = "alone"
RELOADS = 100

_SECONDS_BETWEEN = 0.05
"""From the end of a reload to the next."""


def reloading(plan: Plan) -> dict[str, object]:
    """Latencies of LeNet-5 at 1,000 requests/s through a hundred reloads, and thereafter. No request may fail."""
    rounds: dict[str, list[Figures]] = {RELOADING: [], ALONE: []}
    for number in range(1, plan.rounds + 1):
        with TemporaryDirectory(dir=plan.out) as folder:
            figures = _round(plan, Path(folder))
        for name, seen in figures.items():
            rounds[name].append(seen)
            print(f"bench: round {number} of {plan.rounds}, {name}: p99 {seen['p99_ms']:.2f} ms", flush=True)
    comparison = Comparison(rounds, ((RELOADING, ALONE),))
    print(comparison.table())
    return {"reloads": RELOADS, **comparison.as_json()}


def _round(plan: Plan, repository: Path) -> dict[str, Figures]:
    model = shutil.copytree(plan.model_repository / plan.model, repository / plan.model)
    load = plan.load(requests=500, connections=4, streams=1_000)
    command = [*our_server(repository), "--model-control-mode=explicit", f"--load-model={plan.model}"]
    with ExitStack() as stack:
        server = stack.enter_context(running(command, plan.out, "reloading"))
        target = stack.enter_context(Target(server.address))
        shot = prepare(plan, Ours(server, target, plan.model), load)
        volley(shot, server)
        before = target.counts(plan.model)
        reloader = stack.enter_context(ThreadPoolExecutor(1))
        reloads = reloader.submit(_reload_again_and_again, target, plan.model, max(model.glob("*/model.onnx")))
        during = [volley(shot, server)]
        while not reloads.done():
            during.append(volley(shot, server))
        seconds = reloads.result()
        after = [volley(shot, server) for _ in during]
        counted = target.counts(plan.model).since(before)
    sent = load.requests * (len(during) + len(after))
    if (counted.successes, counted.failures) != (sent, 0):
        raise LoadTestError(f"{sent} requests sent through {RELOADS} reloads, but counted were {asdict(counted)}")
    print(f"bench: {sent} requests, none failed; {RELOADS} reloads of {1e3 * median(seconds):.1f} ms each (median)")
    return {
        RELOADING: latencies([sample for each in during for sample in each]) | {"reload_ms": 1e3 * median(seconds)},
        ALONE: latencies([sample for each in after for sample in each]),
    }


def _reload_again_and_again(target: Target, model: str, file: Path) -> list[float]:
    """The seconds that each reload took."""
    seconds = []
    for _ in range(RELOADS):
        time.sleep(_SECONDS_BETWEEN)
        os.utime(file)
        start = time.perf_counter()
        target.load(model, None)
        seconds.append(time.perf_counter() - start)
    return seconds
