"""The RPCs of `inference.GRPCInferenceService`: a table of names, and one short handler each.

Handlers turn messages into calls on the engine or looks into the registry, and errors into statuses. They know no
gRPC library: any engine that offers `frontends.calls` can carry them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from proto import grpc_service_pb2 as pb
from proto import model_config_pb2
from server import __version__
from server.engine import Engine
from server.errors import ConvoyError, InvalidRequest, ShuttingDown
from server.frontends.answers import Encode, encoded, not_encoded
from server.frontends.calls import (
    CALLER_GONE,
    INTERNAL_MESSAGE,
    LATER,
    Call,
    Later,
    Method,
    MethodTable,
    StatusCode,
    StreamMethod,
    UnaryMethod,
)
from server.frontends.codec import decode_infer_request, encode_infer_response
from server.frontends.decoding import Decode, Decoding, plainly
from server.frontends.statuses import AS_TRITON, Failures
from server.frontends.stream_infer import StreamInfer
from server.frontends.watch import Watch, context_of
from server.ledger import Account, Ledger
from server.memory_budget import MemoryBudget
from server.messages import InferenceResponse
from server.models.config import TensorConfig
from server.models.registry import Registry
from server.models.served import Served
from server.records import Record
from server.statistics import Duration, Latency, VersionStatistics
from server.tensors import LARGE_BYTES, Buffer

Q = TypeVar("Q", bound=Message)
R = TypeVar("R")

log = logging.getLogger(__name__)

SERVICE = "inference.GRPCInferenceService"
MODEL_INFER = "ModelInfer"

EXTENSIONS = (
    "classification",
    "sequence",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
)


class InferenceService:
    """Handlers of the inference protocol."""

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        *,
        server_id: str,
        strict_readiness: bool,
        watch: Watch,
        failures: Failures = AS_TRITON,
        more_extensions: Sequence[str] = (),
        decoding: Decoding = plainly,
        ledger: Ledger | None = None,
        memory: MemoryBudget | None = None,
    ) -> None:
        """`more_extensions`: those that not every server has; `decoding`: what messages of gRPC become requests by."""
        self._engine = engine
        self._failures = failures
        self._registry = registry
        self._server_id = server_id
        self._strict_readiness = strict_readiness
        self._watch = watch
        self._decoding = decoding
        self._memory = memory or MemoryBudget()
        self._stream_account = (ledger or Ledger()).grpc_stream
        self._extensions = (*EXTENSIONS, *more_extensions)

    def methods(self) -> dict[str, Method]:
        """The method table, by full path."""
        table: dict[str, Method] = {
            MODEL_INFER: UnaryMethod(self._model_infer()),
            "ModelStreamInfer": StreamMethod(
                partial(
                    StreamInfer,
                    self._engine,
                    self._failures,
                    self._watch,
                    self._decoding,
                    self._stream_account,
                    self._memory,
                )
            ),
            "ServerLive": answering(pb.ServerLiveRequest, self.server_live),
            "ServerReady": answering(pb.ServerReadyRequest, self.server_ready),
            "ModelReady": answering(pb.ModelReadyRequest, self.model_ready),
            "ServerMetadata": answering(pb.ServerMetadataRequest, self.server_metadata),
            "ModelMetadata": answering(pb.ModelMetadataRequest, self.model_metadata),
            "ModelConfig": answering(pb.ModelConfigRequest, self.model_config),
            "ModelStatistics": answering(pb.ModelStatisticsRequest, self.model_statistics),
        }
        return {f"/{SERVICE}/{name}": method for name, method in table.items()}

    @property
    def failures(self) -> Failures:
        """How calls fail here."""
        return self._failures

    def is_ready(self) -> bool:
        """Whether the server as a whole is ready, as `--strict-readiness` defines it."""
        return self._engine.serving and (self._registry.all_ready() or not self._strict_readiness)

    def _model_infer(self) -> Callable[[Call, Buffer], None]:
        if self._decoding is plainly:
            return partial(self.infer, decode_infer_request, encode_infer_response)
        return lambda call, message: self.infer(self._decoding(call), encode_infer_response, call, message)

    def infer(self, decode: Decode, encode: Encode, call: Call, message: Buffer) -> None:
        """One inference, whichever way the wire says it. The call is answered with what `encode` makes."""
        if self._watch.active:
            self._infer_watched(decode, encode, call, message)
            return
        try:
            request = decode(message, call.deadline)
        except ConvoyError as error:
            self._engine.refuse(error)
            self._failures.fail(call, error)
            return
        work = self._engine.infer(request, partial(self._answer, call, encode, None))
        if work is not None:
            call.on_cancel = work.cancel

    def _infer_watched(self, decode: Decode, encode: Encode, call: Call, message: Buffer) -> None:
        """As `infer`, with a record of the request where somebody wants one."""
        received_ns = time.monotonic_ns()
        try:
            request = decode(message, call.deadline)
        except ConvoyError as error:
            self._engine.refuse(error)
            self._failures.fail(call, error)
            self._watch.refused("ModelInfer", context_of(call), received_ns, error, call.protocol)
            return
        record = self._watch.begin("ModelInfer", context_of(call), request, received_ns, call.protocol)
        work = self._engine.infer(request, partial(self._answer, call, encode, record))
        if work is not None:
            call.on_cancel = work.cancel

    def _answer(
        self, call: Call, encode: Encode, record: Record | None, answer: InferenceResponse | ConvoyError
    ) -> None:
        """End a call with a model's answer, where it is large as soon as it is encoded."""
        if isinstance(answer, ConvoyError):
            self._failures.fail(call, answer)
            if record is not None:
                record.finish(answer)
            return
        size = 0
        for tensor in answer.outputs:
            size += tensor.data.nbytes
        if size >= LARGE_BYTES and not answer.places:
            self._encode_aside(call, encode, record, answer, size)
            return
        # What `_reply` does, without a call more for each request.
        try:
            message = encode(answer)
        except Exception as failure:  # noqa: BLE001 -- whatever it is, the caller must hear of it
            self._reply(call, record, not_encoded(failure, answer, record))
            return
        error = call.reply(message)
        if error is not None or record is not None:
            self._replied(call, record, error)

    def _encode_aside(
        self, call: Call, encode: Encode, record: Record | None, answer: InferenceResponse, size: int
    ) -> None:
        """As it takes as long as tens of thousands of small requests, and does without the interpreter's lock."""
        left = _Left()
        call.on_cancel = left.note
        size *= 2  # what the model has made, and the message that it becomes
        self._memory.used += size
        encoding = asyncio.get_running_loop().run_in_executor(None, encoded, encode, answer, record)
        encoding.add_done_callback(partial(self._encoded, call, record, size, left))

    def _encoded(
        self,
        call: Call,
        record: Record | None,
        size: int,
        left: _Left,
        encoding: asyncio.Future[Buffer | ConvoyError],
    ) -> None:
        self._memory.used -= size
        if left.noted:
            self._replied(call, record, CALLER_GONE)
            return
        call.on_cancel = None
        self._reply(call, record, encoding.result())

    def _reply(self, call: Call, record: Record | None, message: Buffer | ConvoyError) -> None:
        """End a call with an answer that a model has computed, or with what became of that."""
        if isinstance(message, ConvoyError):
            self._failures.fail(call, message)
            self._replied(call, record, message)
        else:
            self._replied(call, record, call.reply(message))

    def _replied(self, call: Call, record: Record | None, error: ConvoyError | Later | None) -> None:
        """A call has ended with a model's answer, or is about to; or with an error, though the model has answered."""
        if error is LATER:
            call.on_cancel = partial(self._engine.withhold, CALLER_GONE)
            error = None
        elif error is not None:
            self._engine.withhold(error)
        if record is not None:
            record.finish(error)

    def server_live(self, _: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    def server_ready(self, _: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        if self._engine.exiting:
            raise ShuttingDown("Server exiting")
        return pb.ServerReadyResponse(ready=self.is_ready())

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        self._registry.find(request.name, request.version)
        return pb.ModelReadyResponse(ready=not self._engine.exiting)

    def server_metadata(self, _: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name=self._server_id, version=__version__, extensions=self._extensions)

    def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        loaded = self._registry.find(request.name, request.version)
        config = loaded.config
        versions = [loaded.version] if request.version else sorted(self._registry.entry(config.name).loaded)
        return pb.ModelMetadataResponse(
            name=config.name,
            versions=[str(version) for version in versions],
            platform=config.platform,
            inputs=[_tensor_metadata(tensor, config.max_batch_size > 0) for tensor in config.inputs],
            outputs=[_tensor_metadata(tensor, config.max_batch_size > 0) for tensor in config.outputs],
        )

    def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        loaded = self._registry.find(request.name, request.version)
        return pb.ModelConfigResponse(config=model_config_pb2.ModelConfig.FromString(loaded.config.serialized))

    def model_statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        if not request.name:
            chosen = self._registry.loaded()
        elif request.version:
            chosen = [self._registry.find(request.name, request.version)]
        else:
            self._registry.find(request.name, "")
            entry = self._registry.entry(request.name)
            chosen = [entry.loaded[version] for version in sorted(entry.loaded)]
        return pb.ModelStatisticsResponse(model_stats=[_model_statistics(loaded) for loaded in chosen])


class _Left:
    """Whether a caller has gone meanwhile."""

    noted = False

    def note(self) -> None:
        self.noted = True


def accounted(methods: MethodTable, account: Account) -> MethodTable:
    """The methods, unary inference on the ledger: whatever stands in front of it by now is accounted for, too."""
    path = f"/{SERVICE}/{MODEL_INFER}"
    method = methods[path]
    assert isinstance(method, UnaryMethod), "it has one answer"
    return {**methods, path: replace(method, account=account)}


def answering(request_type: type[Q], handler: Callable[[Q], Message]) -> UnaryMethod:
    """A method whose answer is ready at once."""

    def handle(call: Call, message: Buffer) -> None:
        try:
            call.reply(_serialized(handler(_request(request_type, message))))
        except ConvoyError as error:
            AS_TRITON.fail(call, error)

    return UnaryMethod(handle)


def awaiting(parse: Callable[[Buffer], R], handler: Callable[[R], Coroutine[Any, Any, Message]]) -> UnaryMethod:
    """A method whose answer takes a while. What it has begun goes on when its caller leaves."""
    in_progress: set[asyncio.Task[None]] = set()

    async def answer(call: Call, request: R) -> None:
        try:
            call.reply(_serialized(await handler(request)))
        except ConvoyError as error:
            AS_TRITON.fail(call, error)
        except Exception:
            log.exception("answering a %s raised", type(request).__name__)
            call.fail(StatusCode.INTERNAL, INTERNAL_MESSAGE)

    def handle(call: Call, message: Buffer) -> None:
        try:
            request = parse(message)
        except ConvoyError as error:
            AS_TRITON.fail(call, error)
            return
        task = asyncio.get_running_loop().create_task(answer(call, request))
        in_progress.add(task)
        task.add_done_callback(in_progress.discard)

    return UnaryMethod(handle)


def parsing(request_type: type[Q]) -> Callable[[Buffer], Q]:
    """What reads messages of a type. Raises `InvalidRequest`."""
    return partial(_request, request_type)


def _request(request_type: type[Q], message: Buffer) -> Q:
    try:
        return request_type.FromString(bytes(message))
    except DecodeError as error:
        raise InvalidRequest(f"the message is not a {request_type.DESCRIPTOR.name}: {error}") from None


def _serialized(answer: Message) -> bytes:
    return answer.SerializeToString(deterministic=True)


def _tensor_metadata(tensor: TensorConfig, batched: bool) -> pb.ModelMetadataResponse.TensorMetadata:
    shape = (-1, *tensor.dims) if batched else tensor.dims
    return pb.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype.name, shape=shape)


def _duration(duration: Duration | Latency) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=duration.ns)


def _model_statistics(loaded: Served) -> pb.ModelStatistics:
    statistics: VersionStatistics = loaded.statistics
    return pb.ModelStatistics(
        name=loaded.config.name,
        version=str(loaded.version),
        last_inference=statistics.last_inference_ms,
        inference_count=statistics.inference_count,
        execution_count=statistics.execution_count,
        inference_stats=pb.InferStatistics(
            success=_duration(statistics.success),
            fail=_duration(statistics.fail),
            queue=_duration(statistics.queue),
            compute_input=_duration(statistics.compute_input),
            compute_infer=_duration(statistics.compute_infer),
            compute_output=_duration(statistics.compute_output),
            cache_hit=_duration(statistics.cache_hit),
            cache_miss=_duration(statistics.cache_miss),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=rows,
                compute_input=_duration(batch.compute_input),
                compute_infer=_duration(batch.compute_infer),
                compute_output=_duration(batch.compute_output),
            )
            for rows, batch in sorted(statistics.batches.items())
        ],
    )
