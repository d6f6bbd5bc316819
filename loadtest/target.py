"""A server as seen on the wire: the few calls a load test makes. Works with gevent (`locustfile`) and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from loadtest.errors import LoadTestError
from loadtest.figures import Counts
from loadtest.payload import Shape, Workload, make_workload
from proto import grpc_service_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"
INFER = SERVICE + "ModelInfer"
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

    def load_model(self, model: str) -> None:
        """Load `model`, or load it anew where its files have changed."""
        self._call(
            "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=model), pb.RepositoryModelLoadResponse
        )

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

    def workload(self, model: str, shapes: dict[str, Shape], count: int = 16, seed: int = 0) -> Workload:
        """`count` requests for `model`, made from what the server says of it; see `make_workload`."""
        metadata = self._call("ModelMetadata", pb.ModelMetadataRequest(name=model), pb.ModelMetadataResponse)
        config = self._call("ModelConfig", pb.ModelConfigRequest(name=model), pb.ModelConfigResponse).config
        return make_workload(metadata, batching=config.max_batch_size > 0, shapes=shapes, count=count, seed=seed)

    def _call(self, method: str, request: Message, answer: type[Answer]) -> Answer:
        call: Any = self._channel.unary_unary(SERVICE + method)
        try:
            return answer.FromString(call(request.SerializeToString(), timeout=_CALL_SECONDS))
        except grpc.RpcError as error:
            raise LoadTestError(f"{self._address} {method}: {error.code().name}: {error.details()}") from error
