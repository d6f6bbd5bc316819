"""ResNet-18, 224×224, 8 in flight: how much of what ONNX Runtime can do on these cores a server passes on.

The other side is ONNX Runtime in one process with the best of its batch sizes and threads, its batches ready in memory.
A request is 602 KB, and the load generator, the sockets and the batching have the same cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from loadtest.bench.comparison import take_turns
from loadtest.bench.networks import write_resnet18
from loadtest.bench.servers import NGHTTP2, Ours, Plan, Shot, prepare, start_ours
from loadtest.errors import LoadTestError
from loadtest.figures import Figures

DIRECT = "ONNX Runtime"
SETUPS = {"one instance": (1, 2), "two instances": (2, 1)}
"""Instances, and threads for each: both use two cores."""
_SIDE = 224
_IN_FLIGHT = 8
_SECONDS = 300.0


def resnet18(plan: Plan) -> dict[str, object]:
    """Our server with each setup, and ONNX Runtime by itself with the setup that proves best at the start."""
    load = plan.load(requests=120, connections=4, streams=2)
    repository = plan.out / "resnet18_repository"
    models = {name: name.replace(" ", "_") for name in SETUPS}
    _write_repository(repository, models)
    with ExitStack() as stack:
        server = start_ours(stack, replace(plan, model_repository=repository), NGHTTP2, name="resnet18")
        shots: dict[str, Shot] = {}
        for name, model in models.items():
            out = plan.out / model
            out.mkdir(exist_ok=True)
            shots[name] = prepare(replace(plan, out=out), replace(server, model=model), load)
            shots[name].warm_up(server.server)
        shot = shots[next(iter(shots))]
        request = plan.out / "request.pb"
        request.write_bytes(shot.workload.bodies[0])
        direct = _Direct(repository / next(iter(models.values())) / "1" / "model.onnx", request, load.requests)
        turns: dict[str, Callable[[], Figures]] = {
            DIRECT: direct.run,
            **{name: partial(_fire, shots[name], replace(server, model=model)) for name, model in models.items()},
        }
        comparison = take_turns(turns, plan.rounds, tuple((name, DIRECT) for name in SETUPS))
    print(f"{DIRECT}: {direct.setup} (sessions, threads, batch)")
    print(comparison.table())
    return {"load": asdict(load), "onnxruntime_setup": direct.setup, **comparison.as_json()}


def _fire(shot: Shot, ours: Ours) -> Figures:
    figures = shot.fire_counted(ours)
    return {"rows_per_second": figures["requests_per_second"], **figures}


class _Direct:
    """ONNX Runtime by itself."""

    def __init__(self, model: Path, request: Path, rows: int) -> None:
        self._command = [sys.executable, "-m", "loadtest.floors.onnxruntime_throughput", "--model", str(model)]
        self._command += ["--request", str(request), "--rows", str(rows)]
        self.setup: str = self._measure([])["setup"]

    def run(self) -> Figures:
        measured = self._measure(["--setup", self.setup])
        return {
            "rows_per_second": float(measured["rows_per_second"]),
            "cpu_us_per_request": float(measured["cpu_us_per_row"]),
            "cores_used": float(measured["cpu_us_per_row"]) * float(measured["rows_per_second"]) / 1e6,
        }

    def _measure(self, more: list[str]) -> dict[str, Any]:
        done = subprocess.run(
            [*self._command, *more],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise LoadTestError(f"ONNX Runtime alone ended with {done.returncode}:\n{done.stderr[-2000:]}")
        measured: dict[str, Any] = json.loads(done.stdout)
        return measured


def _write_repository(folder: Path, models: dict[str, str]) -> None:
    """The same network under the name of each setup."""
    first, *others = (folder / model / "1" / "model.onnx" for model in models.values())
    write_resnet18(first, _SIDE)
    for other in others:
        other.parent.mkdir(parents=True, exist_ok=True)
        other.unlink(missing_ok=True)
        os.link(first, other)
    for name, (instances, threads) in SETUPS.items():
        (folder / models[name] / "config.pbtxt").write_text(_config(instances, threads))


def _config(instances: int, threads: int) -> str:
    return f"""platform: "onnxruntime_onnx"
max_batch_size: {_IN_FLIGHT}
dynamic_batching {{ }}
instance_group [ {{ count: {instances} kind: KIND_CPU }} ]
parameters {{ key: "intra_op_thread_count" value {{ string_value: "{threads}" }} }}
"""
