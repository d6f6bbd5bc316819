"""Three generators and the official client at the same low rate: do they see the same latency?

All send at equal distances, one request under way at a time, to a model whose window holds a lone request back for
20 ms. A latency includes what the client itself takes, 0.1 to 0.5 ms: where the server answers in 0.3 ms, clients would
be compared and not what they see. And the time of a window does not depend on what else the machine does.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from loadtest import perf_analyzer
from loadtest.bench.comparison import take_turns
from loadtest.bench.servers import NGHTTP2, Ours, Plan, checked_answer, model_file, start_ours
from loadtest.errors import LoadTestError
from loadtest.figures import Figures
from loadtest.open_loop import GrpcTraffic, constant, framed, play_apart, quantile
from loadtest.payload import Workload
from loadtest.perf_analyzer import PerfAnalyzer
from loadtest.target import INFER

MLPERF, LOCUST, ANALYZER, OFFICIAL = "mlperf", "Locust", "perf_analyzer", "grpcio"
_MODEL = "held_back"
_RATE = 20.0
_SECONDS = 6.0
_WINDOWS = 3
"""Of perf_analyzer; the length of each is a third of a run."""
_TIMEOUT_SECONDS = 120.0
_CONFIG = """platform: "onnxruntime_onnx"
max_batch_size: 8
dynamic_batching { max_queue_delay_microseconds: 20000 }
"""


def agreement(plan: Plan) -> dict[str, object]:
    """The p50 of each, and its ratio to that of `mlperf`."""
    repository = plan.out / "agreement_repository"
    version = repository / _MODEL / "1"
    version.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model_file(plan), version / "model.onnx")
    (repository / _MODEL / "config.pbtxt").write_text(_CONFIG)
    analyzer = perf_analyzer.install()
    with ExitStack() as stack:
        ours = start_ours(stack, replace(plan, model=_MODEL, model_repository=repository), NGHTTP2)
        workload = ours.target.workload(_MODEL, {})
        checked_answer(ours.target, workload)
        turns: dict[str, Callable[[], Figures]] = {
            MLPERF: partial(_mlperf, ours, workload),
            LOCUST: partial(_locust, ours, plan.out),
            ANALYZER: partial(_perf_analyzer, analyzer, ours, plan.out / "perf_analyzer.csv"),
            OFFICIAL: partial(_official, ours, workload),
        }
        comparison = take_turns(turns, plan.rounds, tuple((name, MLPERF) for name in (LOCUST, ANALYZER, OFFICIAL)))
    print(comparison.table())
    return {"offered_per_second": _RATE, "seconds": _SECONDS, **comparison.as_json()}


def _mlperf(ours: Ours, workload: Workload) -> Figures:
    traffic = GrpcTraffic(ours.server.address, INFER, framed(workload.bodies))
    outcome = play_apart(traffic, constant(_RATE, _SECONDS), seconds=_SECONDS, patience=_SECONDS)
    return _figures(outcome.latencies_ms)


def _official(ours: Ours, workload: Workload) -> Figures:
    """The official client on this thread, on an absolute schedule, too."""
    latencies_ms: list[float] = []
    began = time.perf_counter()
    for number, due in enumerate(constant(_RATE, _SECONDS)):
        time.sleep(max(0.0, began + due - time.perf_counter()))
        ours.target.infer(workload.bodies[number % len(workload.bodies)], timeout=_TIMEOUT_SECONDS)
        latencies_ms.append((time.perf_counter() - began - due) * 1e3)
    return _figures(latencies_ms)


def _locust(ours: Ours, out: Path) -> Figures:
    """One user who waits out the rest of each period."""
    file = Path(__file__).with_name("fixed_rate_locustfile.py")
    latencies = out / "locust_latencies.json"
    command = [sys.executable, "-m", "locust", "--locustfile", str(file), "--headless", "--only-summary"]
    command += ["--users", "1", "--run-time", f"{_SECONDS:.0f}s", "--loglevel", "WARNING"]
    command += ["--host", ours.server.address, "--model", ours.model]
    command += ["--requests-per-second", str(_RATE), "--latencies-file", str(latencies)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
    )
    if done.returncode != 0:
        raise LoadTestError(f"Locust ended with {done.returncode}:\n{done.stderr[-2000:]}")
    measured = json.loads(latencies.read_text())
    if not measured:
        raise LoadTestError(f"none of Locust's requests was answered:\n{done.stderr[-2000:]}")
    return _figures(measured)


def _perf_analyzer(program: PerfAnalyzer, ours: Ours, csv_file: Path) -> Figures:
    report = program.run(
        *("-m", ours.model, "-i", "grpc", "-u", ours.server.address),
        *("--request-rate-range", str(_RATE), "--request-distribution", "constant"),
        csv_file=csv_file,
        window_ms=round(_SECONDS / _WINDOWS * 1e3),
        seconds=_TIMEOUT_SECONDS,
    )
    return {"p50_ms": report.number("p50 latency") / 1e3, "p90_ms": report.number("p90 latency") / 1e3}


def _figures(latencies_ms: list[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> Figures:
    ascending = np.sort(np.asarray(latencies_ms))
    return {"p50_ms": quantile(ascending, 0.5), "p90_ms": quantile(ascending, 0.9), "requests": float(ascending.size)}
