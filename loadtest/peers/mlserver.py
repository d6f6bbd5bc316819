"""MLServer with a custom runtime, over the gRPC of the v2 protocol."""

from __future__ import annotations

import json

from loadtest.peers.base import Launch, Peer, Serving, requirements
from loadtest.peers.calls import v2_grpc


def _launch(serving: Serving) -> Launch:
    subject, ports = serving.subject, serving.ports
    folder = serving.scratch / subject.name
    folder.mkdir()
    settings = {
        "host": "127.0.0.1",
        "http_port": ports["http"],
        "grpc_port": ports["grpc"],
        "metrics_port": ports["metrics"],
        "metrics_dir": str(serving.scratch),
        "parallel_workers": 0,
        "debug": False,
        "grpc_max_message_length": 64 << 20,
    }
    model = {
        "name": subject.name,
        "implementation": "mlserver_runtime.OnnxRuntime",
        "max_batch_size": subject.max_batch,
        "max_batch_time": subject.window_us / 1e6,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    command = (str(serving.python.with_name("mlserver")), "start", str(folder))
    return Launch(command, serving.environment())


MLSERVER = Peer(
    name="mlserver",
    title="MLServer",
    protocol="gRPC",
    call=v2_grpc,
    launch=_launch,
    configuration="custom runtime; `max_batch_size`, `max_batch_time` 1 ms; `parallel_workers` 0: batches run in "
    "the server's process, which was faster here than the one worker that is the default",
    packages=("mlserver", "grpcio", "uvloop", "onnxruntime"),
    requirements=requirements("mlserver"),
)
