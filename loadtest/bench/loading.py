"""Loading beside serving: LeNet-5 is asked at a fixed rate while the same server opens models of 500 MB.

A model answers as soon as it is READY, whatever else is being loaded. So a fresh server of each round is asked from the
start, half a second's requests at a time: what was sent before the last model was READY counts as `while loading`, as
many volleys after that as `alone`.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from loadtest.bench.comparison import Comparison
from loadtest.bench.servers import Load, Ours, Plan, Shot, prepare
from loadtest.errors import LoadTestError
from loadtest.figures import Figures, percentile
from loadtest.h2load import Sample, read_log
from loadtest.processes import Running, Starting, our_server, starting
from loadtest.target import Target

LOADING = "while loading"
ALONE = "alone"

_REQUESTS_PER_SECOND = 1_000
_FEWEST_VOLLEYS = 2
"""In each of the two parts, after a first one that warms up: fewer say nothing of a 99th percentile."""
_START_SECONDS = 60.0
_LARGE_MODELS = 2
LAYERS = 14
_CHANNELS = 1024
"""A layer of 3×3 kernels between so many channels is 37.7 MB."""


def loading(plan: Plan) -> dict[str, object]:
    """A fresh server per round. Latencies of LeNet-5 while two models of 500 MB are opened, and thereafter."""
    load = plan.load(requests=_REQUESTS_PER_SECOND // 2, connections=4, streams=1_000)
    rounds: dict[str, list[Figures]] = {LOADING: [], ALONE: []}
    with TemporaryDirectory(dir=plan.out) as folder:
        large = Path(folder)
        write_repository(large)
        for number in range(1, plan.rounds + 1):
            figures = _round(plan, load, large)
            for name, seen in figures.items():
                rounds[name].append(seen)
                print(f"bench: round {number} of {plan.rounds}, {name}: p99 {seen['p99_ms']:.2f} ms", flush=True)
    comparison = Comparison(rounds, ((LOADING, ALONE),))
    print(comparison.table())
    return {"load": asdict(load), "requests_per_second": _REQUESTS_PER_SECOND, **comparison.as_json()}


def write_repository(folder: Path) -> None:
    """Models of 500 MB, convolutions with batch normalisation to fuse: they share their weights' bytes on disk."""
    try:
        import numpy as np
        import onnx
    except ImportError as error:
        raise LoadTestError("the package onnx is missing, which writes the models: make install-dev") from error

    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x0"
    for i in range(LAYERS):
        kernels = random.random((_CHANNELS, _CHANNELS, 3, 3), dtype=np.float32) * np.float32(1e-4)
        weights.append(onnx.numpy_helper.from_array(kernels, f"kernels{i}"))
        ones = [f"{what}{i}" for what in ("scale", "shift", "mean", "variance")]
        weights += [onnx.numpy_helper.from_array(np.ones(_CHANNELS, np.float32), name) for name in ones]
        nodes += [
            helper.make_node("Conv", [last, f"kernels{i}"], [f"convolved{i}"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", [f"convolved{i}", *ones], [f"normal{i}"]),
            helper.make_node("Relu", [f"normal{i}"], [f"x{i + 1}"]),
        ]
        last = f"x{i + 1}"
    shape: list[str | int | None] = ["batch", _CHANNELS, 4, 4]
    ends = [helper.make_tensor_value_info(name, real, shape) for name in ("x0", last)]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    # Names decide the order of loading: after every other model.
    first, *others = (folder / f"zz_large_{i}" / "1" for i in range(_LARGE_MODELS))
    first.mkdir(parents=True)
    onnx.save(model, first / "model.onnx", save_as_external_data=True, location="weights")
    for other in others:
        other.mkdir(parents=True)
        for name in ("model.onnx", "weights"):
            os.link(first / name, other / name)


def _round(plan: Plan, load: Load, large: Path) -> dict[str, Figures]:
    port = _free_port()
    command = [*our_server(plan.model_repository), f"--model-repository={large}", f"--grpc-port={port}"]
    with ExitStack() as stack:
        start = stack.enter_context(starting(command, plan.out, "loading"))
        server = Running(start.process, {"grpc": port})
        target = stack.enter_context(Target(server.address))
        _wait_for(plan.model, target, start)
        shot = prepare(plan, Ours(server, target, plan.model), load)
        first, *volleys = _volleys_until(start.ports_file, shot, server)
        start.wait_until_ready()
        ready = start.ports_file.stat().st_mtime
        if len(volleys) < _FEWEST_VOLLEYS:
            raise LoadTestError(f"only {len(volleys)} volleys fit into the loading; fewer --requests make more of them")
        during = [sample for volley in volleys for sample in volley if sample.sent < ready]
        after = [sample for _ in volleys for sample in volley(shot, server)]
        loading = {"seconds_of_loading": ready - first[0].sent, "peak_rss_mib": server.peak_rss_bytes() / 2**20}
        return {LOADING: {**latencies(during), **loading}, ALONE: latencies(after)}


def _volleys_until(appears: Path, shot: Shot, server: Running) -> list[list[Sample]]:
    """Fires until the file is there."""
    volleys = [volley(shot, server)]
    while not appears.exists():
        volleys.append(volley(shot, server))
    return volleys


def volley(shot: Shot, server: Running) -> list[Sample]:
    """What h2load logs of one volley, at the fixed rate."""
    shot.h2load.fire(
        server.address,
        shot.body,
        requests=shot.load.requests,
        connections=shot.load.connections,
        streams=shot.load.streams,
        log=shot.log,
        requests_per_second=_REQUESTS_PER_SECOND,
    )
    return read_log(shot.log)


def latencies(samples: Sequence[Sample]) -> dict[str, float]:
    """Figures of these samples, in milliseconds."""
    counted = Counter(sample.latency_ms for sample in samples)
    shares = {"p50_ms": 0.5, "p99_ms": 0.99, "p99.9_ms": 0.999, "longest_ms": 1.0}
    return {name: percentile(counted, share) for name, share in shares.items()}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_for(model: str, target: Target, start: Starting) -> None:
    """Until the server answers for `model`."""
    give_up = time.monotonic() + _START_SECONDS
    while not target.is_ready(model):
        if start.process.poll() is not None or time.monotonic() > give_up:
            raise LoadTestError(f"'{model}' was not ready after {_START_SECONDS:.0f} s; see {start.log}")
        time.sleep(0.02)
