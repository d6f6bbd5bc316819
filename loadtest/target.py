"""A server as seen on the wire: the few calls a load test makes. Works with gevent (`locustfile`) and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from loadtest.errors import LoadTestError
from loadtest.figures import Counts
from loadtest.payload import Description, Shape, Workload
from loadtest.samples import workload_for
from proto import grpc_service_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"
INFER = SERVICE + "ModelInfer"
STREAM_INFER = SERVICE + "ModelStreamInfer"
_CALL_SECONDS = 30.0

Answer = TypeVar("Answer", bound=Message)


class Target:
    """One connection to the server at `address` ("host:port", plain text). A refusal is a LoadTestError."""

    def __init__(self, address: str) -> None:
        # Without a pool of its own, grpcio lets all channels to an address share one connection.
        self._channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._address = address
        self.infer: Callable[..., bytes] = self._channel.unary_unary(INFER)
        """(serialised request, timeout=seconds) → serialised answer; raises grpc.RpcError."""
        self.stream_infer: Callable[[Iterator[bytes]], Any] = self._channel.stream_stream(STREAM_INFER)
        """Serialised requests → a call: an iterator of serialised ModelStreamInferResponses that can be cancelled."""

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def is_ready(self, model: str) -> bool:
        """Whether `model` answers; False too where there is no server yet."""
        call: Any = self._channel.unary_unary(SERVICE + "ModelReady")
        request = pb.ModelReadyRequest(name=model).SerializeToString()
        try:
            answer: bytes = call(request, timeout=_CALL_SECONDS)
        except grpc.RpcError:
            return False
        return pb.ModelReadyResponse.FromString(answer).ready

    def counts(self, model: str) -> Counts:
        """What the server has counted for `model` so far."""
        request = pb.ModelStatisticsRequest(name=model)
        answer = self._call("ModelStatistics", request, pb.ModelStatisticsResponse)
        return Counts(
            sum(version.inference_count for version in answer.model_stats),
            sum(version.execution_count for version in answer.model_stats),
            sum(version.inference_stats.success.count for version in answer.model_stats),
            sum(version.inference_stats.fail.count for version in answer.model_stats),
        )

    def workload(
        self, model: str, shapes: dict[str, Shape], *, samples: Path | None = None, count: int = 16, seed: int = 0
    ) -> Workload:
        """What is sent to `model`, made from what the server says of it; see `workload_for`."""
        metadata = self._call("ModelMetadata", pb.ModelMetadataRequest(name=model), pb.ModelMetadataResponse)
        config = self._call("ModelConfig", pb.ModelConfigRequest(name=model), pb.ModelConfigResponse).config
        description = Description(metadata, config.max_batch_size > 0, "image.resize" in config.parameters)
        return workload_for(description, shapes=shapes, samples=samples, count=count, seed=seed)

    def _call(self, method: str, request: Message, answer: type[Answer]) -> Answer:
        call: Any = self._channel.unary_unary(SERVICE + method)
        try:
            return answer.FromString(call(request.SerializeToString(), timeout=_CALL_SECONDS))
        except grpc.RpcError as error:
            raise LoadTestError(f"{self._address} {method}: {error.code().name}: {error.details()}") from error
