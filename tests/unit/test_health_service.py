"""grpc.health.v1: one look, and a watch."""

from __future__ import annotations

import pytest

from proto.grpc_health.v1 import health_pb2
from server.frontends.calls import Receiver, StatusCode, StreamMethod, UnaryMethod
from server.frontends.health_service import HealthService
from server.models.lifecycle import State
from server.models.registry import Registry
from tests.fakes import FakeCall
from tests.unit import loaded
from tests.unit.loaded import Bench

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """A health service whose server is as ready as a test says."""

    def __init__(self) -> None:
        self.ready = True
        self.exiting = False
        self.registry = Registry()
        self.methods = HealthService(
            lambda: self.ready, lambda: self.exiting, self.registry, ("inference.Service",)
        ).methods()

    def check(self, request: bytes) -> FakeCall:
        call = FakeCall()
        method = self.methods["/grpc.health.v1.Health/Check"]
        assert isinstance(method, UnaryMethod)
        method.handle(call, request)
        return call

    def watch(self, service: str | None) -> tuple[FakeCall, Receiver]:
        """A Watch call that has asked for this service, or for none yet."""
        call = FakeCall()
        method = self.methods["/grpc.health.v1.Health/Watch"]
        assert isinstance(method, StreamMethod)
        receiver = method.open(call)
        if service is not None:
            receiver.message(asking(service))
        return call, receiver

    def become(self, *, ready: bool) -> None:
        self.ready = ready
        self.registry.changed()


def asking(service: str) -> bytes:
    return health_pb2.HealthCheckRequest(service=service).SerializeToString()


def told(call: FakeCall) -> list[int]:
    return [health_pb2.HealthCheckResponse.FromString(message).status for message in call.sent]


@pytest.mark.parametrize("service", ["", "inference.Service"])
def test_the_server_is_serving_when_it_is_ready(service: str) -> None:
    health = Health()
    call = health.check(asking(service))
    assert (told(call), call.status) == ([SERVING], StatusCode.OK)
    health.ready = False
    assert told(health.check(asking(service))) == [NOT_SERVING]


def test_an_empty_message_asks_for_the_server() -> None:
    assert told(Health().check(b"")) == [SERVING]


def test_an_unknown_service_is_not_found() -> None:
    call = Health().check(asking("x"))
    assert (call.sent, call.status) == ([], StatusCode.NOT_FOUND)
    assert call.message == "no service or model 'x' is known here"


def test_garbage_is_refused() -> None:
    call = Health().check(b"\xff")
    assert (call.sent, call.status) == ([], StatusCode.INVALID_ARGUMENT)


def test_a_watch_tells_the_state_at_once() -> None:
    call, _ = Health().watch("")
    assert (told(call), call.status) == ([SERVING], None)


def test_a_watch_tells_every_change_and_nothing_else() -> None:
    health = Health()
    call, _ = health.watch("")
    health.registry.changed()
    health.become(ready=False)
    health.registry.changed()
    health.become(ready=True)
    assert told(call) == [SERVING, NOT_SERVING, SERVING]


def test_an_unknown_service_can_be_watched_until_it_is_known() -> None:
    health = Health()
    call, _ = health.watch("m")
    assert (told(call), call.status) == ([SERVICE_UNKNOWN], None)
    health.registry.set_problem("m", "broken")
    assert told(call) == [SERVICE_UNKNOWN, NOT_SERVING]


def test_a_caller_that_leaves_is_told_no_more() -> None:
    health = Health()
    call, _ = health.watch("")
    assert call.on_cancel
    call.on_cancel()
    health.become(ready=False)
    assert told(call) == [SERVING]
    call.on_cancel()  # harmless


def test_a_watch_outlives_the_end_of_the_callers_messages() -> None:
    health = Health()
    call, receiver = health.watch("")
    receiver.half_closed()
    health.become(ready=False)
    assert (told(call), call.status) == ([SERVING, NOT_SERVING], None)


def test_a_watch_that_asked_for_nothing_is_refused() -> None:
    call, receiver = Health().watch(None)
    receiver.half_closed()
    assert (call.sent, call.status) == ([], StatusCode.INVALID_ARGUMENT)


def test_a_watch_with_garbage_is_refused() -> None:
    call, receiver = Health().watch(None)
    receiver.message(b"\xff")
    assert (call.sent, call.status) == ([], StatusCode.INVALID_ARGUMENT)


def test_a_second_question_of_a_watch_is_ignored() -> None:
    health = Health()
    call, receiver = health.watch("")
    receiver.message(asking("x"))
    health.become(ready=False)
    assert told(call) == [SERVING, NOT_SERVING]


def test_a_drain_tells_the_last_state_and_ends_the_watch() -> None:
    health = Health()
    call, receiver = health.watch("")
    health.ready = False
    receiver.drain()
    assert (told(call), call.status) == ([SERVING, NOT_SERVING], StatusCode.OK)
    health.become(ready=True)
    assert told(call) == [SERVING, NOT_SERVING]


def test_watches_are_independent() -> None:
    health = Health()
    first, receiver = health.watch("")
    second, _ = health.watch("")
    receiver.drain()
    health.become(ready=False)
    assert (told(first), told(second)) == ([SERVING], [SERVING, NOT_SERVING])


def test_a_drain_tells_nothing_to_a_watch_that_has_not_asked() -> None:
    call, receiver = Health().watch(None)
    receiver.drain()
    assert call.sent == []


def test_a_model_is_serving_while_a_version_of_it_is_ready() -> None:
    async def main() -> None:
        health, bench = Health(), Bench()
        health.registry.set_state("m", 3, State.LOADING)
        call, _ = health.watch("m")
        health.registry.set_ready("m", bench.version)
        assert told(health.check(asking("m"))) == [SERVING]
        health.registry.set_state("m", 3, State.DRAINING)
        assert told(call) == [NOT_SERVING, SERVING, NOT_SERVING]
        await bench.finish()

    loaded.run(main)


def test_no_model_is_serving_once_the_server_exits() -> None:
    async def main() -> None:
        health, bench = Health(), Bench()
        health.registry.set_state("m", 3, State.LOADING)
        health.registry.set_ready("m", bench.version)
        call, _ = health.watch("m")
        health.exiting = True
        health.registry.changed()
        assert told(health.check(asking("m"))) == [NOT_SERVING]
        assert told(call) == [SERVING, NOT_SERVING]
        await bench.finish()

    loaded.run(main)
