"""The server without sockets and ONNX Runtime: real frontends, engine and admission, before models that echo."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
from google.protobuf.message import Message

from proto import grpc_service_pb2 as pb
from proto import model_config_pb2
from server import tensors
from server.control import ControlPlane
from server.engine import Engine
from server.errors import ConvoyError
from server.frontends import codec
from server.frontends.calls import Call, Method, UnaryMethod
from server.frontends.inference_service import SERVICE, InferenceService, parsing
from server.frontends.load_codec import decode_load
from server.frontends.repository_service import RepositoryService
from server.frontends.rest import infer_codec
from server.frontends.rest.bodies import CODINGS, Bodies, _inflated
from server.frontends.rest.exchange import Content, Exchange, Route
from server.frontends.rest.generate import GenerateRoutes
from server.frontends.rest.health import health_routes
from server.frontends.rest.http1 import HttpError
from server.frontends.rest.infer import InferRoutes
from server.frontends.rest.json_tensors import NonFinite
from server.frontends.rest.rpc_routes import rpc_routes
from server.frontends.settings_service import SettingsService
from server.frontends.shared_memory_service import SharedMemoryService
from server.frontends.statuses import AS_TRITON
from server.logs import Logs, LogState
from server.messages import InferenceRequest, InferenceResponse, OutputTensor
from server.models import admission, overrides
from server.models.config import ModelConfig, TensorConfig
from server.models.lifecycle import State
from server.models.overrides import Override
from server.models.registry import Registry
from server.models.served import Served
from server.models.work import Reply
from server.shared_memory.regions import MAX_REGIONS, Regions
from server.shared_memory.tensors import SharedMemory
from server.statistics import VersionStatistics
from server.tensors import BYTES, Array, Buffer
from tests import fakes, pictures
from tests.fuzz.folder import FOLDER

MAX_INPUT_BYTES = 1 << 16
REGION, REGION_BYTES = "r", 100
"""Shared memory that is registered, on a fake device."""


@dataclass
class Taken:
    """A request that a model has admitted."""

    request: InferenceRequest
    plan: admission.Plan
    inputs: list[Any]


@dataclass
class EchoModel:
    """A version whose outputs are its inputs. Has what frontends and engine use of `Served`."""

    config: ModelConfig
    version: int = 1
    taken: list[Taken] = field(default_factory=list)
    statistics: VersionStatistics = field(default_factory=VersionStatistics)

    def submit(self, request: InferenceRequest, reply: Reply) -> None:
        try:
            plan = admission.make_plan(self.config, request.specs, request.outputs, request.label())
            inputs = admission.inputs_in_order(self.config, plan, request)
            admission.wire_bytes(plan, request)
            if plan.pictures_at >= 0:
                admission.pictures(self.config, plan, inputs[plan.pictures_at], request.label())
        except ConvoyError as error:
            reply(error)
            return
        self.taken.append(Taken(request, plan, inputs))
        given = {f"{layout.name}_out": (layout, data) for layout, data in zip(plan.layout.inputs, inputs, strict=True)}
        outputs = []
        for name in plan.names:
            layout, data = given[name]
            array = as_array(layout.datatype, b"" if plan.pictures_at >= 0 else data)
            outputs.append(OutputTensor(name, layout.datatype, array.shape, array))
        reply(InferenceResponse(self.config.name, "1", request.request_id, outputs))


def as_array(datatype: tensors.DataType, data: Any) -> Array:
    """The contents of an admitted input, flat."""
    if isinstance(data, np.ndarray):
        return data.reshape(-1)
    contents = data if isinstance(data, (bytes, memoryview)) else data.read()
    return np.frombuffer(b"" if datatype is BYTES else contents, datatype.dtype if datatype is not BYTES else np.uint8)


def _model(name: str, max_batch_size: int, *inputs: TensorConfig, **more: Any) -> ModelConfig:
    outputs = [TensorConfig(f"{each.name}_out", each.datatype, each.dims) for each in inputs]
    return fakes.model_config(inputs, outputs, name=name, max_batch_size=max_batch_size, **more)


CONFIGS = (
    _model("floats", 8, TensorConfig("x", tensors.FP32, (-1,))),
    _model("texts", 8, TensorConfig("x", tensors.BYTES, (2,))),
    _model("ints", 0, TensorConfig("a", tensors.INT64, (-1, 2)), TensorConfig("b", tensors.UINT8, (3,), (3, 1))),
    _model("mixed", 4, *(TensorConfig(name.lower(), tensors.DATATYPES[name], (1,)) for name in codec.TYPED_FIELDS)),
    _model("halves", 4, TensorConfig("a", tensors.FP16, (2,)), TensorConfig("b", tensors.BF16, (-1,))),
    _model(
        "pictures",
        4,
        TensorConfig("x", tensors.FP32, (3, 28, 28)),
        preprocessing=pictures.preprocessing(max_pixels=10_000),
    ),
)


class InlineBodies(Bodies):
    """Undoes codings at once: there is no event loop."""

    def receive(self, exchange: Exchange, body: Buffer, handle: Callable[[Exchange, Buffer], None]) -> None:
        coding = exchange.head.header(b"content-encoding").strip().lower()
        if coding not in CODINGS:
            super().receive(exchange, body, handle)
            return
        try:
            handle(exchange, _inflated(body, coding, self._max_input_bytes))
        except HttpError as error:
            exchange.respond_error(error.status, str(error))

    def send(self, exchange: Exchange, content: Content) -> Content | None:
        return super().send(exchange, content) if len(content.body) < 1024 else content


class FuzzedServer:
    """All of it. What one input leaves behind is gone with `forget`."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.models = {config.name: EchoModel(config) for config in CONFIGS}
        for name, model in self.models.items():
            serialized = model_config_pb2.ModelConfig(name=name).SerializeToString()
            object.__setattr__(model.config, "serialized", serialized)
            self.registry.set_state(name, 1, State.LOADING)
            self.registry.set_ready(name, cast("Served", model))
        self.driver = fakes.FakeDriver()
        self.regions = Regions(self.driver, MAX_REGIONS, FOLDER.shared_memory)
        self.engine = Engine(self.registry, SharedMemory(self.regions, MAX_INPUT_BYTES))
        self.engine.begin_service()
        watch = fakes.watch()
        self.service = InferenceService(
            self.engine, self.registry, server_id="fuzzed", strict_readiness=True, watch=watch
        )
        logs = Logs(logging.NullHandler(), LogState(), root=logging.getLogger("of a fuzzer"))
        settings = SettingsService(self.registry, watch, logs, lambda state: False)
        self.methods: dict[str, Method] = {
            **self.service.methods(),
            **settings.methods(),
            **SharedMemoryService(self.regions).methods(),
            **_repository_methods(self.registry),
        }
        self.forget()

    def routes(self) -> list[Route]:
        bodies = InlineBodies(MAX_INPUT_BYTES)
        parts: Any = (self.service, self.registry, bodies, NonFinite.REFUSE)
        return [
            *health_routes(self.service),
            *InferRoutes(*parts).routes(),
            *GenerateRoutes(*parts).routes(),
            *rpc_routes(self.methods, bodies),
        ]

    def taken(self) -> list[Taken]:
        """What the models have admitted, by model."""
        return [taken for model in self.models.values() for taken in model.taken]

    def forget(self) -> None:
        codec._templates.clear()
        codec._all_shared.clear()
        codec._remembered_head.cache_clear()
        infer_codec._jsons.clear()
        for model in self.models.values():
            model.taken.clear()
        self.regions.close()
        self.regions.register_cuda(REGION, self.driver.HANDLE, 0, REGION_BYTES)


class NoControl:
    """A control plane that looks at what a load brings along, and does nothing with it. Has what the RPCs use of it."""

    async def index(self) -> Mapping[str, str]:
        return {}

    async def load(self, name: str, override: Override | None = None) -> None:
        overrides.check_model_name(name)
        if override is not None:
            overrides.configuration(name, override)
            overrides.check_files(override.files)

    async def unload(self, name: str, *, with_dependents: bool) -> None:
        overrides.check_model_name(name)


def _repository_methods(registry: Registry) -> dict[str, Method]:
    """Their handlers wait for nothing here, so that they can be called without an event loop."""
    service = RepositoryService(cast("ControlPlane", NoControl()), registry)
    handlers = {
        "RepositoryIndex": (parsing(pb.RepositoryIndexRequest), service.repository_index),
        "RepositoryModelLoad": (decode_load, service.repository_model_load),
        "RepositoryModelUnload": (parsing(pb.RepositoryModelUnloadRequest), service.repository_model_unload),
    }
    return {
        f"/{SERVICE}/{name}": UnaryMethod(partial(_answer, parse, handler))
        for name, (parse, handler) in handlers.items()
    }


def _answer(parse: Callable[[Buffer], Any], handler: Callable[[Any], Any], call: Call, message: Buffer) -> None:
    try:
        call.reply(_at_once(handler, parse(message)).SerializeToString())
    except ConvoyError as error:
        AS_TRITON.fail(call, error)


def _at_once(handler: Callable[[Any], Coroutine[Any, Any, Message]], request: Any) -> Message:
    """The result of a coroutine that never waits."""
    try:
        handler(request).send(None)
    except StopIteration as done:
        return cast("Message", done.value)
    raise AssertionError("it waits for something")
