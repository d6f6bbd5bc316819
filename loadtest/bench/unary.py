"""Small requests, a row each: 64 in flight (`small`: work per core), and one (`single`: latency)."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial

from loadtest.bench.comparison import Comparison, take_turns
from loadtest.bench.servers import (
    FLOOR,
    GRPCIO,
    NGHTTP2,
    Ours,
    Plan,
    Shot,
    model_file,
    prepare,
    start_floor,
    start_ours,
)
from loadtest.errors import LoadTestError
from loadtest.figures import Figures

_PAIRS = ((NGHTTP2, GRPCIO), (NGHTTP2, FLOOR))
_ALONE_ROWS = 20_000
_ALONE_SECONDS = 120.0


def small(plan: Plan) -> dict[str, object]:
    """Many in flight. Each volley at ours is followed by ONNX Runtime alone at the average batch that it had."""
    load = plan.load(requests=20_000, connections=4, streams=16)
    with ExitStack() as stack:
        nghttp2, grpcio = start_ours(stack, plan, NGHTTP2), start_ours(stack, plan, GRPCIO)
        shot = prepare(plan, nghttp2, load)
        floor = start_floor(stack, plan, shot)
        for server in (nghttp2.server, grpcio.server, floor):
            shot.warm_up(server)
        turns = {
            NGHTTP2: partial(_beside_the_model, shot, nghttp2, plan),
            GRPCIO: partial(_beside_the_model, shot, grpcio, plan),
            FLOOR: partial(shot.fire, floor),
        }
        comparison = take_turns(turns, plan.rounds, _PAIRS)
    return _section(shot, comparison)


def single(plan: Plan) -> dict[str, object]:
    """One in flight."""
    load = plan.load(requests=3_000, connections=1, streams=1)
    with ExitStack() as stack:
        nghttp2, grpcio = start_ours(stack, plan, NGHTTP2), start_ours(stack, plan, GRPCIO)
        shot = prepare(plan, nghttp2, load)
        floor = start_floor(stack, plan, shot)
        for server in (nghttp2.server, grpcio.server, floor):
            shot.warm_up(server)
        turns = {
            NGHTTP2: partial(shot.fire_counted, nghttp2),
            GRPCIO: partial(shot.fire_counted, grpcio),
            FLOOR: partial(shot.fire, floor),
        }
        comparison = take_turns(turns, plan.rounds, _PAIRS)
    return _section(shot, comparison)


def _section(shot: Shot, comparison: Comparison) -> dict[str, object]:
    print(comparison.table())
    return {"load": asdict(shot.load), **comparison.as_json()}


def _beside_the_model(shot: Shot, ours: Ours, plan: Plan) -> Figures:
    """A volley, and what is left of its CPU when that of ONNX Runtime alone is taken away: the plumbing."""
    figures = shot.fire_counted(ours)
    alone_us = _alone_us_per_row(plan, shot, batch=max(1, round(figures["average_batch"])))
    plumbing_us = figures["cpu_us_per_request"] / shot.workload.rows - alone_us
    return {**figures, "onnxruntime_cpu_us_per_row": alone_us, "plumbing_us_per_row": plumbing_us}


def _alone_us_per_row(plan: Plan, shot: Shot, batch: int) -> float:
    """CPU of ONNX Runtime alone, in a process of its own with one thread."""
    request = plan.out / "request.pb"
    request.write_bytes(shot.workload.bodies[0])
    command = [sys.executable, "-m", "loadtest.floors.onnxruntime_alone", "--model", str(model_file(plan))]
    command += ["--request", str(request), "--batch", str(batch), "--rows", str(_ALONE_ROWS)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ALONE_SECONDS, check=False
    )
    if done.returncode != 0:
        raise LoadTestError(f"ONNX Runtime alone ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout)["cpu_us_per_row"])
