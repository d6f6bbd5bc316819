"""NVIDIA PyTriton: Triton's server binary from a wheel, and Python that runs the batches that it forms."""

from __future__ import annotations

import sysconfig

from loadtest.peers.base import Launch, Peer, Serving, program, requirements
from loadtest.peers.calls import v2_grpc


def _launch(serving: Serving) -> Launch:
    # Triton's stub is linked to libpython, which must be the one of the interpreter whose library it imports.
    return program(serving, "pytriton_server.py", LD_LIBRARY_PATH=str(sysconfig.get_config_var("LIBDIR")))


PYTRITON = Peer(
    name="pytriton",
    title="NVIDIA PyTriton",
    protocol="gRPC",
    call=v2_grpc,
    launch=_launch,
    configuration="`@batch`, `ModelConfig(max_batch_size)`, `DynamicBatcher()` as it comes: no delay",
    packages=("nvidia-pytriton", "tritonclient", "numpy", "onnxruntime"),
    requirements=requirements("pytriton"),
)
