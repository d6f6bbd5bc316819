"""Every call is counted once when it begins and once when it ends, by the status that its caller gets. Both engines."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from server.frontends.calls import StatusCode
from server.metrics.snapshots import CallSnapshot
from tests.engines.conftest import Connect, Serve
from tests.engines.hosting import PATIENCE_SECONDS, Host, Server
from tests.engines.methods import ECHO, ECHO_STREAM, HELD, METHOD, STREAM, Held, echoes, end_of, failure_of, unary
from tests.engines.requests import Requests
from tests.real.waiting import wait_until


def counted(host: Host, server: Server, path: str) -> CallSnapshot:
    service, method = path.removeprefix("/").split("/")
    calls: list[CallSnapshot] = host.do(server.engine.calls.snapshot)
    [call] = [call for call in calls if (call.service, call.method) == (service, method)]
    return call


def ends(host: Host, server: Server, path: str, calls: int) -> dict[str, int]:
    """How calls of this method ended, once so many have."""
    wait_until(lambda: sum(counted(host, server, path).handled.values()) == calls, PATIENCE_SECONDS)
    call = counted(host, server, path)
    assert call.started == calls
    return {code: count for code, count in call.handled.items() if count}


def start(channel: grpc.Channel, path: str, message: bytes = b"", timeout: float = PATIENCE_SECONDS) -> Any:
    return channel.unary_unary(path).future(message, timeout=timeout)


def test_answers_are_ok(host: Host, serve: Serve, connect: Connect) -> None:
    server = serve(echoes())
    channel = connect(server)
    for _ in range(3):
        assert start(channel, ECHO, b"x").result() == b"x"
    for _ in range(2):
        assert list(channel.stream_stream(ECHO_STREAM)(iter([b"a", b"b"]), timeout=PATIENCE_SECONDS)) == [b"a", b"b"]
    assert ends(host, server, ECHO, 3) == {"OK": 3}
    assert ends(host, server, ECHO_STREAM, 2) == {"OK": 2}
    assert (counted(host, server, ECHO).type, counted(host, server, ECHO_STREAM).type) == ("unary", "bidi_stream")


@pytest.mark.parametrize("code", [StatusCode.INVALID_ARGUMENT, StatusCode.UNAVAILABLE, StatusCode.UNAUTHENTICATED])
def test_an_error_counts_by_its_status(host: Host, serve: Serve, connect: Connect, code: StatusCode) -> None:
    server = serve(unary(lambda call: call.fail(code, "why")))
    assert failure_of(start(connect(server), METHOD))[1] == "why"
    assert ends(host, server, METHOD, 1) == {code.name: 1}


def test_a_method_that_raises_is_internal(host: Host, serve: Serve, connect: Connect) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    server = serve(unary(broken))
    assert failure_of(start(connect(server), METHOD))[0] is grpc.StatusCode.INTERNAL
    assert ends(host, server, METHOD, 1) == {"INTERNAL": 1}


def test_a_stream_that_fails_counts_once_whatever_it_has_sent(
    host: Host, serve: Serve, connect: Connect, held: Held, requests: Requests
) -> None:
    server = serve(held.methods)
    answers = connect(server).stream_stream(STREAM)(requests, timeout=PATIENCE_SECONDS)
    call = held.next_call()
    call.send(b"before")
    call.fail(StatusCode.ABORTED, "after")
    assert end_of(answers) == (grpc.StatusCode.ABORTED, "after")
    assert ends(host, server, STREAM, 1) == {"ABORTED": 1}


def test_a_caller_who_leaves_is_cancelled(host: Host, serve: Serve, connect: Connect, held: Held) -> None:
    server = serve(held.methods)
    call = start(connect(server), HELD)
    waiting = held.next_call()
    call.cancel()
    assert waiting.next_heard() == ("message", b"")
    assert waiting.next_heard() == ("cancelled", b"")
    assert ends(host, server, HELD, 1) == {"CANCELLED": 1}
    waiting.reply(b"too late")
    assert counted(host, server, HELD).handled["OK"] == 0


def test_a_stream_whose_caller_leaves_is_cancelled(
    host: Host, serve: Serve, connect: Connect, held: Held, requests: Requests
) -> None:
    server = serve(held.methods)
    answers = connect(server).stream_stream(STREAM)(requests, timeout=PATIENCE_SECONDS)
    waiting = held.next_call()
    answers.cancel()
    assert waiting.next_heard() == ("cancelled", b"")
    assert ends(host, server, STREAM, 1) == {"CANCELLED": 1}


def test_what_does_not_exist_counts_as_unknown_and_its_name_is_not_kept(
    host: Host, serve: Serve, connect: Connect
) -> None:
    server = serve(echoes())
    channel = connect(server)
    for path in ("/test.Calls/Nothing", "/no.Such/Method"):
        assert failure_of(start(channel, path))[0] is grpc.StatusCode.UNIMPLEMENTED
    assert ends(host, server, "/unknown/unknown", 2) == {"UNIMPLEMENTED": 2}
    names = {(call.service, call.method) for call in host.do(server.engine.calls.snapshot)}
    assert names == {("test.Calls", "Echo"), ("test.Calls", "EchoStream"), ("unknown", "unknown")}


def test_a_message_that_is_too_large_is_counted_where_the_engine_sees_it(
    host: Host, serve: Serve, connect: Connect, engine: str
) -> None:
    server = serve(echoes(), max_message_bytes=1000)
    assert failure_of(start(connect(server), ECHO, bytes(2000)))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    if engine == "nghttp2":
        assert ends(host, server, ECHO, 1) == {"RESOURCE_EXHAUSTED": 1}
    else:  # grpcio refuses it by itself and tells nobody
        assert counted(host, server, ECHO).started == 0


def test_connections_and_bytes_are_counted_where_the_engine_knows_them(
    host: Host, serve: Serve, connect: Connect, engine: str
) -> None:
    server = serve(echoes())
    before = host.do(server.engine.transport)
    if engine == "grpcio":
        assert before is None
        return
    assert (before.connections, before.opened, before.received_bytes, before.sent_bytes) == (0, 0, 0, 0)
    channels = [connect(server) for _ in range(3)]
    for channel in channels:
        assert start(channel, ECHO, bytes(50_000)).result() == bytes(50_000)
    open_now = host.do(server.engine.transport)
    assert (open_now.connections, open_now.opened) == (3, 3)
    assert open_now.received_bytes > 150_000 < open_now.sent_bytes
    channels[0].close()
    wait_until(lambda: host.do(server.engine.transport).connections == 2, PATIENCE_SECONDS)
    after = host.do(server.engine.transport)
    assert after.opened == 3
    assert after.received_bytes >= open_now.received_bytes
