"""Callers that leave: by deadline, by cancelling, by hanging up. Methods hear of it once, and nobody is harmed."""

from __future__ import annotations

import time
from math import inf
from queue import Empty
from typing import Any

import grpc
import pytest

from server.frontends.calls import Call, StatusCode, StreamMethod
from tests.engines.conftest import Connect, Serve
from tests.engines.hosting import PATIENCE_SECONDS, Host
from tests.engines.methods import ECHO, HELD, METHOD, STREAM, Held, HeldCall, echoes, end_of, failure_of
from tests.engines.relay import Relay
from tests.engines.requests import Requests


def start(channel: grpc.Channel, message: bytes = b"", timeout: float | None = PATIENCE_SECONDS) -> Any:
    """Begin a unary call that the test answers."""
    return channel.unary_unary(HELD).future(message, timeout=timeout)


def heard_after(call: HeldCall, channel: grpc.Channel) -> list[tuple[str, bytes]]:
    """What else the method has heard, once a later call on the connection has been answered."""
    assert channel.unary_unary(ECHO)(b"x", timeout=PATIENCE_SECONDS) == b"x"
    heard = []
    while True:
        try:
            heard.append(call.heard.get_nowait())
        except Empty:
            return heard


# --- deadlines ---


def test_the_method_knows_the_callers_deadline(serve: Serve, connect: Connect, held: Held) -> None:
    channel = connect(serve(held.methods))
    before = time.monotonic()
    pending = start(channel, timeout=15.0)
    call = held.next_call()
    assert before + 14.0 < call.call.deadline <= call.opened_at + 16.0  # grpcio rounds up
    call.reply(b"in time")
    assert pending.result() == b"in time"


def test_without_a_deadline_it_is_infinite(serve: Serve, connect: Connect, held: Held) -> None:
    pending = start(connect(serve(held.methods)), timeout=None)
    call = held.next_call()
    assert call.call.deadline == inf
    call.reply(b"")
    assert pending.result() == b""


def test_a_deadline_that_passes_cancels_the_call(serve: Serve, connect: Connect, held: Held) -> None:
    channel = connect(serve(held.methods))
    pending = start(channel, b"slow", timeout=0.2)
    call = held.next_call()
    assert pending.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert [call.next_heard(), call.next_heard()] == [("message", b"slow"), ("cancelled", b"")]
    call.reply(b"too late")
    assert heard_after(call, channel) == []


def test_the_method_can_say_that_the_deadline_has_passed(serve: Serve, connect: Connect, held: Held) -> None:
    pending = start(connect(serve(held.methods)))
    held.next_call().fail(StatusCode.DEADLINE_EXCEEDED, "it expired in the queue")
    assert failure_of(pending) == (grpc.StatusCode.DEADLINE_EXCEEDED, "it expired in the queue")


# --- cancelled calls ---


def test_a_cancelled_call_is_heard_of_once_and_others_are_answered(serve: Serve, connect: Connect, held: Held) -> None:
    channel = connect(serve(held.methods))
    pending = [start(channel, bytes([index])) for index in range(8)]
    calls = [held.next_call() for _ in pending]
    calls.sort(key=lambda call: call.heard.get_nowait()[1])
    pending[3].cancel()
    assert calls[3].next_heard() == ("cancelled", b"")
    for index, call in enumerate(calls):
        call.reply(bytes([index]))
    others = [index for index in range(8) if index != 3]
    assert [pending[index].result() for index in others] == [bytes([index]) for index in others]
    assert [heard_after(call, channel) for call in calls] == [[]] * 8


def test_a_cancelled_stream_is_heard_of_once_and_is_not_half_closed(
    serve: Serve, connect: Connect, held: Held, requests: Requests
) -> None:
    channel = connect(serve(held.methods))
    answers = channel.stream_stream(STREAM)(requests, timeout=PATIENCE_SECONDS)
    requests.put(b"first")
    call = held.next_call()
    assert call.next_heard() == ("message", b"first")
    answers.cancel()
    assert call.next_heard() == ("cancelled", b"")
    call.send(b"too late")
    call.finish()
    assert heard_after(call, channel) == []


def test_a_stream_that_is_cancelled_while_it_is_answered_is_heard_of(
    serve: Serve, connect: Connect, held: Held, requests: Requests
) -> None:
    channel = connect(serve(held.methods))
    answers = channel.stream_stream(STREAM)(requests, timeout=PATIENCE_SECONDS)
    call = held.next_call()
    call.send(b"answer")
    assert next(answers) == b"answer"
    answers.cancel()
    assert call.next_heard() == ("cancelled", b"")


def test_an_answered_call_is_not_cancelled(serve: Serve, connect: Connect, held: Held) -> None:
    channel = connect(serve(held.methods))
    pending = start(channel, b"quick")
    call = held.next_call()
    call.reply(b"answer")
    assert pending.result() == b"answer"
    channel.close()
    assert call.heard.get_nowait() == ("message", b"quick")
    assert call.heard.empty()


def test_a_finished_stream_is_not_cancelled(serve: Serve, connect: Connect, held: Held) -> None:
    channel = connect(serve(held.methods))
    answers = channel.stream_stream(STREAM)(iter([b"one"]), timeout=PATIENCE_SECONDS)
    call = held.next_call()
    assert [call.next_heard(), call.next_heard()] == [("message", b"one"), ("half-closed", b"")]
    call.finish()
    assert end_of(answers) == (grpc.StatusCode.OK, "")
    assert heard_after(call, channel) == []


def test_a_method_that_raises_when_it_is_cancelled_harms_nobody(
    serve: Serve, connect: Connect, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("it cannot let go")

    channel = connect(serve(held.methods))
    pending, other = start(channel, b"a"), start(channel, b"b")
    calls = {call.next_heard()[1]: call for call in (held.next_call(), held.next_call())}
    calls[b"a"].call.on_cancel = broken
    pending.cancel()
    assert channel.unary_unary(ECHO)(b"x", timeout=PATIENCE_SECONDS) == b"x"
    calls[b"b"].reply(b"answer")
    assert other.result() == b"answer"


# --- lost connections ---


def test_when_a_client_hangs_up_all_its_calls_are_cancelled_once(
    serve: Serve, connect: Connect, held: Held, host: Host, requests: Requests
) -> None:
    server = serve(held.methods)
    relay = Relay(host, server.port)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(relay.target, options=options) as channel:
        gone = [start(channel, b"gone") for _ in range(4)]
        answers = channel.stream_stream(STREAM)(requests, timeout=PATIENCE_SECONDS)
        calls = [held.next_call() for _ in range(5)]
        other_channel = connect(server)
        other = start(other_channel, b"other")
        other_call = held.next_call()
        relay.hang_up()
        for call in calls:
            while (heard := call.next_heard()) != ("cancelled", b""):
                assert heard == ("message", b"gone")
        assert {call.code() for call in gone} == {grpc.StatusCode.UNAVAILABLE}
        assert end_of(answers)[0] == grpc.StatusCode.UNAVAILABLE
    other_call.reply(b"still here")
    assert other.result() == b"still here"
    assert [heard_after(call, other_channel) for call in calls] == [[]] * 5
    relay.close()


def test_a_caller_that_sends_on_after_an_error_ends_with_it(
    serve: Serve, connect: Connect, requests: Requests, engine: str
) -> None:
    """The server does not wait for the half-close of a call that it has ended."""

    class Refuses:
        def __init__(self, call: Call) -> None:
            self._call = call

        def message(self, data: bytes) -> None:
            self._call.fail(StatusCode.FAILED_PRECONDITION, "no more")

        def half_closed(self) -> None: ...

        def drain(self) -> None: ...

    server = serve({METHOD: StreamMethod(Refuses)} | echoes(), max_message_bytes=1 << 20)
    channel = connect(server)
    requests.put(b"first")
    answers = channel.stream_stream(METHOD)(requests, timeout=PATIENCE_SECONDS)
    assert end_of(answers) == (grpc.StatusCode.FAILED_PRECONDITION, "no more")
    for _ in range(8):
        requests.put(bytes(1 << 20))
    assert channel.unary_unary(ECHO)(b"x", timeout=PATIENCE_SECONDS) == b"x"
    if engine == "nghttp2":
        (peer,) = server.engine.sockets
        assert peer.connection._http2.open_streams == 0
