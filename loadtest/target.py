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
from proto.model_config_pb2 import ModelConfig

SERVICE = "/inference.GRPCInferenceService/"
INFER = SERVICE + "ModelInfer"
STREAM_INFER = SERVICE + "ModelStreamInfer"
_CALL_SECONDS = 30.0
_LOAD_SECONDS = 300.0

Answer = TypeVar("Answer", bound=Message)


class Target:
    """One connection to the server at `address` ("host:port", plain text). A refusal is a LoadTestError."""

    def __init__(self, address: str) -> None:
        # Without a pool of its own, grpcio lets all channels to an address share one connection.
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
        self._channel = grpc.insecure_channel(address, options=options)
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

    def require_ready(self, model: str) -> None:
        """A LoadTestError with the server's reason unless `model` answers."""
        if self.is_ready(model):
            return
        index = self._call("RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse)
        reasons = [version.reason for version in index.models if version.name == model and version.reason]
        raise LoadTestError(reasons[0] if reasons else f"{self._address} does not serve '{model}'")

    def config(self, model: str) -> ModelConfig:
        """The configuration that `model` is served with, complete."""
        return self._call("ModelConfig", pb.ModelConfigRequest(name=model), pb.ModelConfigResponse).config

    def load(self, model: str, config: str | None) -> None:
        """Loads `model` again, with the configuration `config` (JSON of a ModelConfig); None: with its own file's."""
        request = pb.RepositoryModelLoadRequest(model_name=model)
        if config is not None:
            request.parameters["config"].string_param = config
        self._call("RepositoryModelLoad", request, pb.RepositoryModelLoadResponse, seconds=_LOAD_SECONDS)

    def answer(self, body: bytes) -> bytes:
        """To one serialised request."""
        try:
            return self.infer(body, timeout=_CALL_SECONDS)
        except grpc.RpcError as error:
            raise self._refused("ModelInfer", error) from error

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
        config = self.config(model)
        description = Description(
            metadata,
            batching=config.max_batch_size > 0,
            takes_pictures="image.resize" in config.parameters,
            takes_sequences=config.HasField("sequence_batching"),
        )
        return workload_for(description, shapes=shapes, samples=samples, count=count, seed=seed)

    def register(self, region: str, key: str, byte_size: int) -> None:
        """Register a whole POSIX shared memory object."""
        request = pb.SystemSharedMemoryRegisterRequest(name=region, key=key, byte_size=byte_size)
        self._call("SystemSharedMemoryRegister", request, pb.SystemSharedMemoryRegisterResponse)

    def _call(self, method: str, request: Message, answer: type[Answer], *, seconds: float = _CALL_SECONDS) -> Answer:
        call: Any = self._channel.unary_unary(SERVICE + method)
        try:
            return answer.FromString(call(request.SerializeToString(), timeout=seconds))
        except grpc.RpcError as error:
            raise self._refused(method, error) from error

    def _refused(self, method: str, error: grpc.RpcError) -> LoadTestError:
        return LoadTestError(f"{self._address} {method}: {error.code().name}: {error.details()}")
