"""gRPC server reflection, so that grpcurl, ghz and their like need no .proto file.

The answers come from `grpcio-reflection`; this only carries them over whichever engine runs. Versions v1 and v1alpha
differ in their package name alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2

from server.frontends.calls import Call, Method, StatusCode, StreamMethod
from server.tensors import Buffer

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def reflection_methods(service_names: Iterable[str]) -> dict[str, Method]:
    """The method table of a reflection service that describes these services and itself."""
    servicer = reflection.ReflectionServicer([*service_names, SERVICES[1]])
    method = StreamMethod(lambda call: _Reflection(call, servicer))
    return {f"/{service}/ServerReflectionInfo": method for service in SERVICES}


class _Reflection:
    """One reflection stream: an answer for every question."""

    def __init__(self, call: Call, servicer: reflection.ReflectionServicer) -> None:
        self._call = call
        self._servicer = servicer

    def message(self, data: Buffer) -> None:
        try:
            request = reflection_pb2.ServerReflectionRequest.FromString(bytes(data))
        except DecodeError as error:
            self._call.fail(StatusCode.INVALID_ARGUMENT, f"the message is not a ServerReflectionRequest: {error}")
            return
        for response in self._servicer.ServerReflectionInfo(iter([request]), None):
            self._call.send(response.SerializeToString())

    def half_closed(self) -> None:
        self._call.finish()

    def drain(self) -> None:
        self._call.finish()
