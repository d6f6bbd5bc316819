"""A bare grpc.aio server that answers what ONNX Runtime computed beforehand: what grpcio costs by itself."""

from __future__ import annotations

import sys

from loadtest.peers.base import Launch, Peer, Serving
from loadtest.peers.calls import v2_grpc
from proto import grpc_service_pb2 as pb


def _launch(serving: Serving) -> Launch:
    subject = serving.subject
    response = pb.ModelInferResponse(model_name=subject.name, model_version="1")
    response.outputs.add(name=subject.output, datatype="FP32", shape=(1, subject.row_values))
    response.raw_output_contents.append(serving.answer.tobytes())
    answer = serving.scratch / "answer.pb"
    answer.write_bytes(response.SerializeToString())
    command = [sys.executable, "-m", "loadtest.floors.grpc_aio", "--answer", str(answer)]
    command += ["--ports-file", str(serving.scratch / "ports.json"), "--port", str(serving.ports["grpc"])]
    return Launch(tuple(command))


GRPC_FLOOR = Peer(
    name="grpc_aio",
    title="bare grpc.aio",
    protocol="gRPC",
    call=v2_grpc,
    launch=_launch,
    configuration="no model: the same bytes for every request",
    packages=("grpcio",),
    runs_model=False,
)
