"""The inference protocol's handlers, from message to answer, without a gRPC library."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from math import inf
from typing import Any, TypeVar

import numpy as np
import pytest
from google.protobuf.message import Message

from proto import grpc_service_pb2 as pb
from proto import model_config_pb2
from server import __version__, tensors
from server.control import ControlPlane, ControlSettings
from server.engine import Engine
from server.frontends.calls import LATER, Later, StatusCode, UnaryMethod
from server.frontends.inference_service import SERVICE, InferenceService
from server.frontends.repository_service import RepositoryService
from server.frontends.settings_service import SettingsService
from server.frontends.shared_memory_service import SharedMemoryService
from server.frontends.watch import Watch
from server.logs import Logs, LogState
from server.models.config import TensorConfig
from server.models.lifecycle import State
from server.models.registry import Registry
from server.tensors import Buffer
from tests import fakes
from tests.fakes import FakeCall, model_config
from tests.unit import loaded
from tests.unit.loaded import Bench, batching_config, turn

A = TypeVar("A", bound=Message)

CONFIG = replace(
    batching_config(), serialized=model_config_pb2.ModelConfig(name="m", max_batch_size=8).SerializeToString()
)


class Server:
    """A service with model 'm' version 3 READY, and a model 'broken'."""

    def __init__(self, *, strict: bool = True, watch: Watch | None = None) -> None:
        self.bench = Bench(CONFIG)
        self.registry = Registry()
        self.engine = Engine(self.registry)
        self.registry.set_state("m", 3, State.LOADING)
        self.registry.set_ready("m", self.bench.version)
        self.engine.begin_service()
        self.watch = watch or fakes.watch()
        self.service = InferenceService(
            self.engine, self.registry, server_id="convoy", strict_readiness=strict, watch=self.watch
        )
        self.logs = Logs(logging.NullHandler(), LogState(), root=logging.getLogger("of a test"))
        changes = SettingsService(self.registry, self.watch, self.logs, lambda state: state.verbose > 0)
        control = ControlPlane(
            ControlSettings((), None, 4, autocomplete=True), self.registry, fakes.PuppetBackend(), fakes.PuppetClock()
        )
        repository = RepositoryService(control, self.registry)
        self.methods = self.service.methods() | changes.methods() | repository.methods()
        self.methods |= SharedMemoryService(None).methods()

    def start(self, name: str, request: Message | bytes, **call: Any) -> FakeCall:
        fake = FakeCall(**call)
        self.start_with(fake, name, request)
        return fake

    def start_with(self, call: FakeCall, name: str, request: Message | bytes) -> None:
        method = self.methods[f"/{SERVICE}/{name}"]
        assert isinstance(method, UnaryMethod)
        method.handle(call, request if isinstance(request, bytes) else request.SerializeToString())

    def ask(self, name: str, request: Message, answer: type[A]) -> A:
        call = self.start(name, request)
        assert call.status is StatusCode.OK, call.message
        [message] = call.sent
        return answer.FromString(message)

    def refused(self, name: str, request: Message | bytes) -> tuple[StatusCode | None, str]:
        call = self.start(name, request)
        assert call.sent == []
        return call.status, call.message


def run(test: Callable[[Server], Coroutine[Any, Any, None]], **server: Any) -> None:
    async def main() -> None:
        running = Server(**server)
        await test(running)
        await running.bench.finish()

    loaded.run(main)


def infer_request(*values: float, **more: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", **more)
    request.inputs.add(name="x", datatype="FP32", shape=[1, len(values)])
    request.raw_input_contents.append(np.array(values, dtype=np.float32).tobytes())
    return request


async def ended(call: FakeCall) -> FakeCall:
    while call.status is None:
        await turn()
    return call


def test_every_rpc_of_the_protocol_is_in_the_table() -> None:
    async def test(server: Server) -> None:
        service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        assert set(server.methods) == {f"/{service.full_name}/{method.name}" for method in service.methods}
        assert len(server.methods) == 20

    run(test)


OFFERED = ["ModelInfer", "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig",
           "ModelStatistics", "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting",
           "LogSettings"]  # fmt: skip


@pytest.mark.parametrize("name", OFFERED)
def test_garbage_is_refused_by_every_method(name: str) -> None:
    async def test(server: Server) -> None:
        status, message = server.refused(name, b"\xff\xff\xff")
        assert status is StatusCode.INVALID_ARGUMENT
        assert message.startswith(f"the message is not a {name}Request: ")

    run(test)


UNKNOWN = {
    "ModelReady": pb.ModelReadyRequest(name="x"),
    "ModelMetadata": pb.ModelMetadataRequest(name="x"),
    "ModelConfig": pb.ModelConfigRequest(name="x"),
    "ModelStatistics": pb.ModelStatisticsRequest(name="x"),
    "ModelInfer": pb.ModelInferRequest(model_name="x"),
}


@pytest.mark.parametrize(("name", "request_"), UNKNOWN.items(), ids=UNKNOWN)
def test_an_unknown_model_is_not_found(name: str, request_: Message) -> None:
    async def test(server: Server) -> None:
        assert server.refused(name, request_) == (
            StatusCode.NOT_FOUND,
            "Request for unknown model: 'x' is not found",
        )

    run(test)


def test_a_server_that_answers_is_live() -> None:
    async def test(server: Server) -> None:
        assert server.ask("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse).live

    run(test)


@pytest.mark.parametrize(("strict", "ready"), [(True, False), (False, True)])
def test_strict_readiness_needs_every_model(strict: bool, ready: bool) -> None:
    async def test(server: Server) -> None:
        assert server.ask("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse).ready
        server.registry.set_problem("broken", "its configuration")
        assert server.ask("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse).ready is ready

    run(test, strict=strict)


def test_a_server_that_is_still_loading_is_not_ready() -> None:
    service = InferenceService(
        Engine(Registry()), Registry(), server_id="convoy", strict_readiness=False, watch=fakes.watch()
    )
    assert not service.is_ready()


def test_an_exiting_server_says_so() -> None:
    async def test(server: Server) -> None:
        server.engine.begin_exit()
        assert server.refused("ServerReady", pb.ServerReadyRequest()) == (StatusCode.UNAVAILABLE, "Server exiting")
        assert not server.service.is_ready()
        assert not server.ask("ModelReady", pb.ModelReadyRequest(name="m"), pb.ModelReadyResponse).ready

    run(test)


def test_a_model_that_serves_is_ready() -> None:
    async def test(server: Server) -> None:
        for version in ("", "3"):
            asked = pb.ModelReadyRequest(name="m", version=version)
            assert server.ask("ModelReady", asked, pb.ModelReadyResponse).ready

    run(test)


def test_a_version_that_does_not_serve_yet_is_unavailable() -> None:
    async def test(server: Server) -> None:
        server.registry.set_state("m", 4, State.LOADING)
        assert server.refused("ModelReady", pb.ModelReadyRequest(name="m", version="4")) == (
            StatusCode.UNAVAILABLE,
            "Request for unknown model: 'm' version 4 is not at ready state",
        )

    run(test)


def test_the_server_tells_its_name_version_and_extensions() -> None:
    async def test(server: Server) -> None:
        answer = server.ask("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)
        assert (answer.name, answer.version) == ("convoy", __version__)
        assert {"classification", "sequence", "binary_tensor_data", "parameters", "statistics"} <= set(
            answer.extensions
        )
        assert "cuda_shared_memory" not in answer.extensions

    run(test)


def test_a_models_metadata_has_the_batch_dimension() -> None:
    async def test(server: Server) -> None:
        answer = server.ask("ModelMetadata", pb.ModelMetadataRequest(name="m"), pb.ModelMetadataResponse)
        tensor = pb.ModelMetadataResponse.TensorMetadata
        assert answer == pb.ModelMetadataResponse(
            name="m",
            versions=["3"],
            platform="onnxruntime_onnx",
            inputs=[tensor(name="x", datatype="FP32", shape=[-1, -1])],
            outputs=[tensor(name=name, datatype="FP32", shape=[-1, -1]) for name in ("y", "z")],
        )

    run(test)


def test_metadata_of_a_model_that_does_not_batch_has_its_dims_as_they_are() -> None:
    async def test(server: Server) -> None:
        tensor = TensorConfig("x", tensors.BYTES, (2, -1))
        other = Bench(model_config([tensor], [tensor], max_batch_size=0))
        server.registry.set_state("n", 3, State.LOADING)
        server.registry.set_ready("n", other.version)
        answer = server.ask("ModelMetadata", pb.ModelMetadataRequest(name="n"), pb.ModelMetadataResponse)
        assert [list(answer.inputs[0].shape), answer.inputs[0].datatype] == [[2, -1], "BYTES"]
        await other.finish()

    run(test)


def test_metadata_lists_every_version_that_serves_unless_one_is_asked_for() -> None:
    async def test(server: Server) -> None:
        newer = Bench(CONFIG)
        newer.version.version = 12
        server.registry.set_state("m", 12, State.LOADING)
        server.registry.set_ready("m", newer.version)
        everything = server.ask("ModelMetadata", pb.ModelMetadataRequest(name="m"), pb.ModelMetadataResponse)
        one = server.ask("ModelMetadata", pb.ModelMetadataRequest(name="m", version="3"), pb.ModelMetadataResponse)
        assert (list(everything.versions), list(one.versions)) == (["3", "12"], ["3"])
        await newer.finish()

    run(test)


def test_a_models_configuration_is_the_completed_one() -> None:
    async def test(server: Server) -> None:
        answer = server.ask("ModelConfig", pb.ModelConfigRequest(name="m"), pb.ModelConfigResponse)
        assert (answer.config.name, answer.config.max_batch_size) == ("m", 8)

    run(test)


def test_an_inference_is_answered_when_its_batch_has_run() -> None:
    async def test(server: Server) -> None:
        call = server.start("ModelInfer", infer_request(1.0, 2.0, id="r"))
        await turn()
        assert call.status is None
        server.bench.gate.open()
        done = await ended(call)
        assert done.status is StatusCode.OK
        answer = pb.ModelInferResponse.FromString(done.sent[0])
        assert (answer.model_name, answer.model_version, answer.id) == ("m", "3", "r")
        assert [output.name for output in answer.outputs] == ["y", "z"]
        assert np.frombuffer(answer.raw_output_contents[0], dtype=np.float32).tolist() == [2.0, 4.0]

    run(test)


def test_an_inference_that_does_not_fit_is_refused() -> None:
    async def test(server: Server) -> None:
        request = infer_request(1.0, id="r")
        request.inputs[0].datatype = "INT8"
        assert server.refused("ModelInfer", request) == (
            StatusCode.INVALID_ARGUMENT,
            "[request id: r] inference input 'x' data-type is 'INT8', but model 'm' expects 'FP32'",
        )

    run(test)


def test_a_caller_that_leaves_cancels_its_inference() -> None:
    async def test(server: Server) -> None:
        await server.bench.keep_busy()
        call = server.start("ModelInfer", infer_request(1.0))
        assert server.bench.version.pending == 1
        assert call.on_cancel
        call.on_cancel()
        assert server.bench.version.pending == 0
        assert call.status is None

    run(test)


class Compressing(FakeCall):
    """Its answer takes a while."""

    def reply(self, message: Buffer) -> Later:
        return LATER


def test_an_answer_whose_caller_leaves_while_it_is_compressed_was_not_given() -> None:
    async def test(server: Server) -> None:
        call = Compressing()
        server.start_with(call, "ModelInfer", infer_request(1.0, 2.0))
        server.bench.gate.open()
        while not server.bench.version.statistics.success.count:
            await turn()
        assert server.engine.undelivered == 0
        assert call.on_cancel is not None
        call.on_cancel()
        assert server.engine.undelivered == 1

    run(test)


def test_a_callers_deadline_counts() -> None:
    async def test(server: Server) -> None:
        await server.bench.keep_busy()
        call = server.start("ModelInfer", infer_request(1.0), deadline=server.bench.clock.now() + 5)
        forever = server.start("ModelInfer", infer_request(1.0), deadline=inf)
        await turn()
        server.bench.clock.advance(5)
        assert (call.status, call.message) == (StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        assert forever.status is None

    run(test)


def test_statistics_tell_what_was_run() -> None:
    async def test(server: Server) -> None:
        before_ms = time.time_ns() // 1_000_000
        server.bench.gate.open()
        await ended(server.start("ModelInfer", infer_request(1.0)))
        server.refused("ModelInfer", pb.ModelInferRequest(model_name="m"))
        answer = server.ask("ModelStatistics", pb.ModelStatisticsRequest(name="m"), pb.ModelStatisticsResponse)
        [stats] = answer.model_stats
        assert (stats.name, stats.version, stats.inference_count, stats.execution_count) == ("m", "3", 1, 1)
        assert before_ms <= stats.last_inference <= time.time_ns() // 1_000_000
        kinds = stats.inference_stats
        counts = [kinds.success.count, kinds.fail.count, kinds.queue.count, kinds.compute_input.count]
        assert [*counts, kinds.compute_infer.count, kinds.compute_output.count] == [1, 1, 1, 1, 1, 1]
        [batch] = stats.batch_stats
        assert (batch.batch_size, batch.compute_infer.count) == (1, 1)
        assert batch.compute_infer.ns == kinds.compute_infer.ns > 0

    run(test)


@pytest.mark.parametrize(
    "asked",
    [{}, {"name": "m"}, {"name": "m", "version": "3"}],
    ids=["of all models", "of one", "of one version"],
)
def test_statistics_can_be_asked_for(asked: dict[str, str]) -> None:
    async def test(server: Server) -> None:
        answer = server.ask("ModelStatistics", pb.ModelStatisticsRequest(**asked), pb.ModelStatisticsResponse)
        assert [(stats.name, stats.version) for stats in answer.model_stats] == [("m", "3")]

    run(test)
