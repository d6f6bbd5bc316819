"""Large requests, tiny answers: 1×3×224×224 float32, a picture's 602,112 bytes, to a model that hardly looks at them.

The share of a bare socket's bytes/s that a server reaches says what its protocol costs; h2load's own CPU, in the
figures too, says whether the server or the load generator was the limit.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from loadtest.bench.comparison import take_turns
from loadtest.bench.servers import GRPCIO, NGHTTP2, Load, Ours, Plan, Shot, prepare, start_ours
from loadtest.errors import LoadTestError
from loadtest.figures import Figures
from loadtest.processes import Running, running

SINK = "bare socket"
LARGE_FRAMES = "nghttp2, large frames"
MODEL = "picture_corner"
INPUT = "picture"
_PICTURE = (3, 224, 224)
_MAX_BATCH = 8
_SOURCE_SECONDS = 300.0
_MIB = 1 << 20
_CONFIG = f"""platform: "onnxruntime_onnx"
max_batch_size: {_MAX_BATCH}
dynamic_batching {{ }}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
"""


def large(plan: Plan) -> dict[str, object]:
    """Both engines, and the bare socket with as many connections and messages in flight."""
    load = plan.load(requests=2_000, connections=4, streams=2)
    plan = replace(plan, model=MODEL, model_repository=plan.out / "large_repository")
    write_repository(plan.model_repository)
    with ExitStack() as stack:
        nghttp2, grpcio = start_ours(stack, plan, NGHTTP2), start_ours(stack, plan, GRPCIO)
        shot = prepare(plan, nghttp2, load)
        message_bytes = shot.body.stat().st_size
        command = [sys.executable, "-m", "loadtest.floors.socket_sink", "--message-bytes", str(message_bytes)]
        sink = stack.enter_context(running(command, plan.out, "socket_sink"))
        for ours in (nghttp2, grpcio):
            shot.warm_up(ours.server)
        turns = {
            NGHTTP2: partial(_fire, shot, nghttp2, message_bytes),
            GRPCIO: partial(_fire, shot, grpcio, message_bytes),
            LARGE_FRAMES: partial(_feed_counted, nghttp2, shot.body, load, message_bytes),
            SINK: partial(_feed_sink, sink, shot.body, load, message_bytes),
        }
        comparison = take_turns(turns, plan.rounds, ((NGHTTP2, GRPCIO), (LARGE_FRAMES, SINK)))
    print(comparison.table())
    return {"load": asdict(load), "message_bytes": message_bytes, **comparison.as_json()}


def write_repository(folder: Path, more_config: str = "") -> None:
    """A repository of one model: a picture in, the first ten values of its first line out."""
    try:
        import onnx
    except ImportError as error:
        raise LoadTestError("the package onnx is missing, which writes the model: make install-dev") from error

    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    bounds = {"starts": [0, 0, 0], "ends": [1, 1, 10], "axes": [1, 2, 3]}
    graph = helper.make_graph(
        [
            helper.make_node("Slice", [INPUT, *bounds], ["corner"]),
            helper.make_node("Flatten", ["corner"], ["values"], axis=1),
        ],
        MODEL,
        [helper.make_tensor_value_info(INPUT, real, ["batch", *_PICTURE])],
        [helper.make_tensor_value_info("values", real, ["batch", 10])],
        [helper.make_tensor(name, onnx.TensorProto.INT64, [3], values) for name, values in bounds.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    version = folder / MODEL / "1"
    version.mkdir(parents=True, exist_ok=True)
    onnx.save(model, version / "model.onnx")
    (folder / MODEL / "config.pbtxt").write_text(_CONFIG + more_config)


def _fire(shot: Shot, ours: Ours, message_bytes: int) -> Figures:
    figures = shot.fire_counted(ours)
    return {"mib_per_second": figures["requests_per_second"] * message_bytes / _MIB, **figures}


def _feed_counted(ours: Ours, message: Path, load: Load, message_bytes: int) -> Figures:
    """One volley of requests in frames as large as the server allows. It must have counted them exactly."""
    before = ours.target.counts(ours.model)
    figures = _feed(ours.server, ours.server.ports["grpc"], "http2_source", message, load, message_bytes)
    counted = ours.target.counts(ours.model).since(before)
    if (counted.successes, counted.failures) != (load.requests, 0):
        raise LoadTestError(f"{load.requests} requests sent, but {ours.server.address} counted {counted}")
    return {**figures, "average_batch": counted.average_batch}


def _feed_sink(sink: Running, message: Path, load: Load, message_bytes: int) -> Figures:
    """One volley at the bare socket."""
    return _feed(sink, sink.ports["socket"], "socket_source", message, load, message_bytes)


def _feed(server: Running, port: int, source: str, message: Path, load: Load, message_bytes: int) -> Figures:
    """One volley. The source measures itself, so that the start of Python does not count."""
    command = [sys.executable, "-m", f"loadtest.floors.{source}", "--port", str(port)]
    command += ["--message", str(message), "--messages", str(load.requests)]
    command += ["--connections", str(load.connections), "--in-flight", str(load.streams)]
    cpu_before = server.cpu_seconds()
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SOURCE_SECONDS, check=False
    )
    if done.returncode != 0:
        raise LoadTestError(f"{source} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    cpu_seconds = server.cpu_seconds() - cpu_before
    measured = json.loads(done.stdout)
    return {
        "mib_per_second": load.requests * message_bytes / measured["seconds"] / _MIB,
        "requests_per_second": load.requests / measured["seconds"],
        "cpu_us_per_request": cpu_seconds / load.requests * 1e6,
        "cores_used": cpu_seconds / measured["seconds"],
        "client_cpu_us_per_request": measured["cpu_seconds"] / load.requests * 1e6,
    }
