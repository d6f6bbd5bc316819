"""The model repository extension on the wire: parameters, states, and answers that take a while."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from proto import grpc_service_pb2 as pb
from server.frontends.calls import StatusCode, UnaryMethod
from server.frontends.inference_service import SERVICE, awaiting, parsing
from server.frontends.repository_service import RepositoryService
from server.models.lifecycle import State
from server.models.outlook import not_polled
from tests.fakes import FakeCall
from tests.unit.controlling import DOUBLING, TREBLING, Bench, answer, until
from tests.unit.loaded import run, turn

Parameter = pb.ModelRepositoryParameter


class Server:
    """The service over a control plane in explicit mode, whose repository has model 'm' with version 1."""

    def __init__(self, root: Path) -> None:
        self.bench = Bench(root, load_models=(), on_request=True)
        self.bench.gate.open(1_000)
        self.bench.add("m", 1)
        self.registry = self.bench.registry
        self._methods = RepositoryService(self.bench.plane, self.registry).methods()

    async def call(self, name: str, **fields: Any) -> FakeCall:
        call = FakeCall()
        request = getattr(pb, f"Repository{name}Request")(**fields)
        method = self._methods[f"/{SERVICE}/Repository{name}"]
        assert isinstance(method, UnaryMethod)
        method.handle(call, request.SerializeToString())
        await ended(call)
        return call

    async def load(self, name: str = "m", parameters: Mapping[str, Parameter] | None = None) -> FakeCall:
        return await self.call("ModelLoad", model_name=name, parameters=parameters or {})

    async def index(self, *, ready: bool = False) -> list[tuple[str, str, str, str]]:
        call = await self.call("Index", ready=ready)
        (message,) = call.sent
        lines = pb.RepositoryIndexResponse.FromString(message).models
        return [(line.name, line.version, line.state, line.reason) for line in lines]


async def ended(call: FakeCall) -> None:
    while call.status is None:
        await turn()


def serving(root: Path, test: Callable[[Server], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        server = Server(root)
        await server.bench.plane.load_all()
        await test(server)
        await server.bench.plane.unload_all()

    run(main)


def test_the_index_follows_a_model_from_its_folder_to_its_end(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        assert await server.index() == [("m", "", "", "")]
        assert (await server.load()).status is StatusCode.OK
        assert await server.index() == [("m", "1", "READY", "")]
        server.bench.add("later", 3)
        assert await server.index() == [("later", "", "", ""), ("m", "1", "READY", "")]
        assert await server.index(ready=True) == [("m", "1", "READY", "")]
        assert (await server.call("ModelUnload", model_name="m")).status is StatusCode.OK
        assert await server.index() == [("later", "", "", ""), ("m", "1", "UNAVAILABLE", "unloaded")]
        assert await server.index(ready=True) == []
        assert not server.registry.has("later"), "to be listed is not to be known"

    serving(tmp_path, test)


def test_the_index_has_the_state_and_the_reason_of_every_version(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        registry = server.registry
        await server.load()
        registry.set_problem("broken", "no version")
        for version in (2, 3):
            registry.set_state("m", version, State.LOADING)
        registry.set_state("m", 3, State.UNAVAILABLE, "cut off")
        registry.set_state("m", 1, State.DRAINING)
        assert await server.index() == [
            ("broken", "", "UNAVAILABLE", "no version"),
            ("m", "1", "UNLOADING", ""),
            ("m", "2", "LOADING", ""),
            ("m", "3", "UNAVAILABLE", "cut off"),
        ]
        registry.set_state("m", 1, State.UNAVAILABLE)

    serving(tmp_path, test)


def test_a_repository_that_cannot_be_listed_leaves_what_is_known(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        await server.load()
        away = shutil.move(tmp_path, tmp_path.with_name("away"))
        assert await server.index() == [("m", "1", "READY", "")]
        shutil.move(away, tmp_path)

    serving(tmp_path, test)


@pytest.mark.parametrize("name", ["Index", "ModelLoad", "ModelUnload"])
def test_one_repository_cannot_be_named(tmp_path: Path, name: str) -> None:
    async def test(server: Server) -> None:
        call = await server.call(name, repository_name="r")
        assert (call.status, call.message) == (
            StatusCode.UNIMPLEMENTED,
            "'repository_name' specification is not supported",
        )

    serving(tmp_path, test)


def test_a_configuration_and_files_come_along(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        parameters = {
            "config": Parameter(string_param='{"max_batch_size": 3}'),
            "file:5/model.onnx": Parameter(bytes_param=TREBLING.encode()),
        }
        assert (await server.load(parameters=parameters)).status is StatusCode.OK
        assert server.registry.find("m", "5").config.max_batch_size == 3
        assert await answer(server.bench) == [[3.0, 6.0]]

    serving(tmp_path, test)


TEXT, CONTENT, YES = Parameter(string_param="{}"), Parameter(bytes_param=DOUBLING.encode()), Parameter(bool_param=True)
WRONG_LOADS = {
    "a number for the configuration": (
        {"config": Parameter(int64_param=1)},
        "invalid value type for load parameter 'config', expected string_param.",
    ),
    "nothing for the configuration": (
        {"config": Parameter()},
        "invalid value type for load parameter 'config', expected string_param.",
    ),
    "text for a file": (
        {"config": TEXT, "file:1/model.onnx": TEXT},
        "invalid value type for load parameter 'file:1/model.onnx', expected bytes_param.",
    ),
    "another parameter": ({"configuration": TEXT}, "unrecognized load parameter 'configuration'."),
    "a file without a configuration": (
        {"file:1/model.onnx": CONTENT},
        not_polled("m", "Load parameter 'config' must be specified for model file override"),
    ),
    "a file elsewhere": (
        {"config": TEXT, "file:../m/1/model.onnx": CONTENT},
        "Invalid file parameter 'file:../m/1/model.onnx': it must stay within model directory.",
    ),
}


@pytest.mark.parametrize(("parameters", "message"), WRONG_LOADS.values(), ids=WRONG_LOADS)
def test_wrong_parameters_of_a_load_are_refused_by_name(
    tmp_path: Path, parameters: Mapping[str, Parameter], message: str
) -> None:
    async def test(server: Server) -> None:
        call = await server.load(parameters=parameters)
        assert (call.status, call.message) == (StatusCode.INVALID_ARGUMENT, message)
        assert server.bench.states() == {"m": {}}

    serving(tmp_path, test)


WRONG_UNLOADS = {
    "a number": (
        {"unload_dependents": Parameter(int64_param=1)},
        "invalid value type for 'unload_dependents' parameter, expected bool_param.",
    ),
    "another parameter": ({"unload_dependants": YES}, "unrecognized unload parameter 'unload_dependants'."),
}


@pytest.mark.parametrize(("parameters", "message"), WRONG_UNLOADS.values(), ids=WRONG_UNLOADS)
def test_wrong_parameters_of_an_unload_are_refused_by_name(
    tmp_path: Path, parameters: Mapping[str, Parameter], message: str
) -> None:
    async def test(server: Server) -> None:
        await server.load()
        call = await server.call("ModelUnload", model_name="m", parameters=parameters)
        assert (call.status, call.message) == (StatusCode.INVALID_ARGUMENT, message)
        assert server.bench.states() == {"m": {1: "READY"}}

    serving(tmp_path, test)


def test_a_model_may_go_with_its_parts_of_which_there_are_none(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        await server.load()
        call = await server.call("ModelUnload", model_name="m", parameters={"unload_dependents": YES})
        assert call.status is StatusCode.OK
        assert server.bench.states() == {"m": {1: "UNAVAILABLE"}}

    serving(tmp_path, test)


STATUSES = [
    ("ghost", StatusCode.NOT_FOUND),
    ("a/b", StatusCode.INVALID_ARGUMENT),
    ("broken", StatusCode.INVALID_ARGUMENT),
]


@pytest.mark.parametrize(("name", "status"), STATUSES)
def test_a_load_that_fails_has_a_status(tmp_path: Path, name: str, status: StatusCode) -> None:
    async def test(server: Server) -> None:
        server.bench.add("broken", 1, text="no model at all")
        assert (await server.load(name)).status is status

    serving(tmp_path, test)


def test_a_load_that_is_not_allowed_says_so_as_triton_does(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server(tmp_path)
        polling = Bench(tmp_path, poll=True)
        server._methods = RepositoryService(polling.plane, polling.registry).methods()
        call = await server.load()
        assert (call.status, call.message) == (
            StatusCode.UNAVAILABLE,
            "explicit model load / unload is not allowed if polling is enabled",
        )

    run(main)


def method(handler: Callable[[pb.ServerLiveRequest], Coroutine[Any, Any, Message]]) -> UnaryMethod:
    return awaiting(parsing(pb.ServerLiveRequest), handler)


def test_an_answer_that_takes_a_while_is_given_although_the_caller_set_no_store_by_it(tmp_path: Path) -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def handler(_: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
            await go_on.wait()
            return pb.ServerLiveResponse(live=True)

        call = FakeCall()
        method(handler).handle(call, b"")
        await turn()
        assert (call.status, call.on_cancel) == (None, None), "nothing is stopped when the caller leaves"
        go_on.set()
        await ended(call)
        assert call.sent == [pb.ServerLiveResponse(live=True).SerializeToString()]

    run(main)


def test_a_bug_in_an_answer_that_takes_a_while_ends_the_call(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)

    async def main() -> None:
        async def handler(_: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
            raise ZeroDivisionError

        call = FakeCall()
        method(handler).handle(call, b"")
        await ended(call)
        assert call.status is StatusCode.INTERNAL

    run(main)
    assert "answering a ServerLiveRequest raised" in caplog.text


def test_a_model_that_is_loaded_on_request_is_seen_loading(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        load = asyncio.create_task(server.load())
        await until(server.bench, lambda: server.bench.states() == {"m": {1: "LOADING"}})
        assert await server.index() in ([("m", "1", "LOADING", "")], [("m", "1", "READY", "")])
        await load

    serving(tmp_path, test)
