"""What one call can be: its status, metadata, size, compression and failure. The official sync client, both engines."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import grpc
import pytest

from server.frontends.calls import LATER, Call, MethodTable, StatusCode, StreamMethod, UnaryMethod
from server.tensors import Buffer
from tests.engines.conftest import Connect, Serve
from tests.engines.hosting import PATIENCE_SECONDS, Host
from tests.engines.methods import (
    ECHO,
    ECHO_STREAM,
    HELD,
    METHOD,
    STREAM,
    Held,
    echoes,
    end_of,
    failure_of,
    streaming,
    unary,
)
from tests.engines.requests import Requests
from tests.hostile import frames
from tests.hostile.peer import connected

GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}
ERRORS = [code for code in StatusCode if code is not StatusCode.OK]
MESSAGES = [
    "",
    "plain words",
    "%",
    "100% of %41 and %zz",
    "ünïcödé ☃ and 😈",
    "\r\n\ttabs and lines\x00\x7f",
    " spaces at both ends ",
    "long " * 400,
]
INITIAL = {"opening": "first, second", "opening-bin": b"\x00\xff,\x01"}
TRAILING = {"closing": "last = 1; x", "closing-bin": bytes(range(256))}
MIB = 1 << 20
LARGE = 64 * MIB
NOISE = random.Random(1).randbytes(MIB)
INTERNAL_MESSAGE = "the server failed while it handled this call; its log has the details"


def start(channel: grpc.Channel, message: bytes = b"", path: str = METHOD, **options: Any) -> Any:
    """Begin a unary call."""
    return channel.unary_unary(path).future(message, timeout=PATIENCE_SECONDS, **options)


def stream(channel: grpc.Channel, *messages: bytes, path: str = METHOD, **options: Any) -> Any:
    """A stream of these messages."""
    return channel.stream_stream(path)(iter(messages), timeout=PATIENCE_SECONDS, **options)


# --- statuses ---


@pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
def test_every_status_of_a_unary_call_arrives(serve: Serve, connect: Connect, code: StatusCode) -> None:
    channel = connect(serve(unary(lambda call: call.fail(code, f"this is {code.name}"))))
    assert failure_of(start(channel)) == (GRPC_CODES[code], f"this is {code.name}")


@pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
def test_every_status_of_a_stream_arrives_after_its_messages(serve: Serve, connect: Connect, code: StatusCode) -> None:
    def answer(call: Call) -> None:
        call.send(b"before")
        call.fail(code, f"this is {code.name}")

    answers = stream(connect(serve(streaming(answer))), b"")
    assert next(answers) == b"before"
    assert end_of(answers) == (GRPC_CODES[code], f"this is {code.name}")


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_a_message_arrives_as_it_was_written(serve: Serve, connect: Connect, message: str) -> None:
    channel = connect(serve(unary(lambda call: call.fail(StatusCode.ABORTED, message))))
    assert failure_of(start(channel)) == (grpc.StatusCode.ABORTED, message)


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_a_message_after_an_answer_arrives_as_it_was_written(serve: Serve, connect: Connect, message: str) -> None:
    def answer(call: Call) -> None:
        call.send(b"before")
        call.fail(StatusCode.ABORTED, message)

    assert end_of(stream(connect(serve(streaming(answer))), b"")) == (grpc.StatusCode.ABORTED, message)


def test_a_stream_can_fail_before_it_answers(serve: Serve, connect: Connect) -> None:
    answers = stream(connect(serve(streaming(lambda call: call.fail(StatusCode.NOT_FOUND, "not here")))), b"")
    assert end_of(answers) == (grpc.StatusCode.NOT_FOUND, "not here")


def reply(call: Call) -> None:
    call.reply(b"first")


def reply_compressed(call: Call) -> None:
    call.compress_messages(True)
    call.reply(NOISE)


def reply_with_metadata(call: Call) -> None:
    call.set_trailing_metadata(TRAILING)
    call.reply(b"first")


def fail(call: Call) -> None:
    call.fail(StatusCode.ABORTED, "first")


@pytest.mark.parametrize("first", [reply, reply_compressed, reply_with_metadata, fail])
def test_an_answer_too_many_is_noticed_at_the_call_and_makes_up_for_none_that_is_lost(
    serve: Serve, connect: Connect, held: Held, first: Callable[[Call], None]
) -> None:
    def answer_twice(call: Call) -> None:
        first(call)
        call.reply(b"second")
        call.fail(StatusCode.DATA_LOSS, "third")

    server = serve(held.methods | unary(answer_twice))
    channel = connect(server)
    lost = start(channel, path=HELD)
    held_call = held.next_call()
    twice = start(channel)
    assert twice.code() is (grpc.StatusCode.ABORTED if first is fail else grpc.StatusCode.OK)
    if first is not fail:
        assert twice.result() in (b"first", NOISE)
    account = server.account
    assert (account.answered_twice, account.in_progress) == (2, 1)
    account.answered_twice = 0  # it was meant
    held_call.reply(b"")
    assert lost.result() == b""


def test_an_answer_to_who_has_gone_ends_nothing(serve: Serve, connect: Connect, held: Held) -> None:
    server = serve(held.methods)
    call = start(connect(server), path=HELD)
    held_call = held.next_call()
    call.cancel()
    while held_call.next_heard()[0] != "cancelled":
        pass
    for _ in range(2):
        held_call.reply(b"too late")
    shown = server.account.snapshot()
    assert (shown.answered, shown.abandoned, shown.in_progress) == (0, 1, 0)


# --- metadata ---


def test_the_method_sees_the_callers_metadata(serve: Serve, connect: Connect, held: Held) -> None:
    sent = (("one", "a value"), ("two-bin", b"\x00\x01\xff"), ("many", "x"), ("many", "y"), ("many-bin", b"x"))
    call = start(connect(serve(held.methods)), path=HELD, metadata=(*sent, ("many-bin", b"y")))
    held_call = held.next_call()
    seen = dict(held_call.host.do(lambda: held_call.call.metadata))
    held_call.reply(b"")
    assert call.result() == b""
    assert seen.pop("user-agent").startswith("grpc-python/")
    assert seen == {"one": "a value", "two-bin": b"\x00\x01\xff", "many": "x,y", "many-bin": b"x,y"}
    assert [held_call.call.has_metadata(key) for key in ("one", "many", "three")] == [True, True, False]


def test_white_space_around_a_value_is_no_part_of_it(serve: Serve, connect: Connect, held: Held) -> None:
    sent = (("one", " a value  "), ("many", " x"), ("many", "y "), ("authorization", " Bearer token"))
    call = start(connect(serve(held.methods)), path=HELD, metadata=sent)
    held_call = held.next_call()
    seen = dict(held_call.host.do(lambda: held_call.call.metadata))
    authorization = held_call.host.do(lambda: held_call.call.authorization)
    held_call.reply(b"")
    assert call.result() == b""
    assert (seen["one"], seen["many"], authorization) == ("a value", "x,y", "Bearer token")


def with_metadata(call: Call) -> None:
    call.send_initial_metadata(INITIAL)
    call.set_trailing_metadata(TRAILING)


def test_an_answer_can_have_metadata_before_and_after_it(serve: Serve, connect: Connect) -> None:
    def answer(call: Call) -> None:
        with_metadata(call)
        call.reply(b"answer")

    call = start(connect(serve(unary(answer))))
    assert call.result() == b"answer"
    assert_metadata(call, INITIAL, TRAILING)


def test_an_error_can_have_metadata_before_and_after_it(serve: Serve, connect: Connect) -> None:
    def answer(call: Call) -> None:
        with_metadata(call)
        call.fail(StatusCode.ABORTED, "why")

    call = start(connect(serve(unary(answer))))
    assert failure_of(call) == (grpc.StatusCode.ABORTED, "why")
    assert_metadata(call, INITIAL, TRAILING)


def test_an_error_alone_can_have_trailing_metadata(serve: Serve, connect: Connect) -> None:
    def answer(call: Call) -> None:
        call.set_trailing_metadata(TRAILING)
        call.fail(StatusCode.ABORTED, "why")

    call = start(connect(serve(unary(answer))))
    assert failure_of(call) == (grpc.StatusCode.ABORTED, "why")
    assert_metadata(call, {}, TRAILING)


@pytest.mark.parametrize("code", [StatusCode.OK, StatusCode.ABORTED], ids=lambda code: code.name)
def test_a_stream_can_have_metadata_before_and_after_it(serve: Serve, connect: Connect, code: StatusCode) -> None:
    def answer(call: Call) -> None:
        with_metadata(call)
        call.send(b"answer")
        call.finish() if code is StatusCode.OK else call.fail(code, "why")

    answers = stream(connect(serve(streaming(answer))), b"")
    assert next(answers) == b"answer"
    assert end_of(answers)[0] == GRPC_CODES[code]
    assert_metadata(answers, INITIAL, TRAILING)


def test_initial_metadata_arrives_while_the_call_is_open(
    serve: Serve, connect: Connect, held: Held, requests: Requests
) -> None:
    answers = connect(serve(held.methods)).stream_stream(STREAM)(requests, timeout=PATIENCE_SECONDS)
    held_call = held.next_call()
    held_call.host.do(held_call.call.send_initial_metadata, INITIAL)
    assert INITIAL.items() <= dict(answers.initial_metadata()).items()
    held_call.finish()
    assert end_of(answers) == (grpc.StatusCode.OK, "")


def assert_metadata(call: Any, initial: dict[str, str | bytes], trailing: dict[str, str | bytes]) -> None:
    assert dict(call.initial_metadata()).items() >= initial.items()
    assert dict(call.trailing_metadata()) == trailing


# --- compression and size ---


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["gzip", "deflate"])
def test_a_compressed_request_is_understood(serve: Serve, connect: Connect, compression: grpc.Compression) -> None:
    message = b"squeeze me " * 10_000
    call = start(connect(serve(echoes())), message, ECHO, compression=compression)
    assert call.result() == message


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["gzip", "deflate"])
def test_a_compressed_stream_is_understood(serve: Serve, connect: Connect, compression: grpc.Compression) -> None:
    messages = [b"squeeze me " * count for count in (1, 10_000, 0, 300)]
    answers = stream(connect(serve(echoes())), *messages, path=ECHO_STREAM, compression=compression)
    assert list(answers) == messages


def compressing(answers: Mapping[str, bytes]) -> MethodTable:
    """Methods that each have one answer, which they want compressed."""

    def method(answer: bytes) -> UnaryMethod:
        def handle(call: Call, _: Buffer) -> None:
            call.compress_messages(True)
            call.reply(answer)

        return UnaryMethod(handle)

    return {path: method(answer) for path, answer in answers.items()}


ANSWERS = {
    "/test.Calls/Empty": b"",
    "/test.Calls/Small": b"squeeze me " * 200,
    "/test.Calls/Large": b"squeeze me " * 100_000,
    "/test.Calls/Noise": NOISE,
}


@pytest.mark.parametrize("path", ANSWERS)
def test_an_answer_that_a_method_wants_compressed_arrives_whole(serve: Serve, connect: Connect, path: str) -> None:
    channel = connect(serve(compressing(ANSWERS)))
    calls = [start(channel, b"", path) for _ in range(8)]
    assert [call.result() for call in calls] == [ANSWERS[path]] * 8


def test_a_caller_may_leave_while_its_answer_is_compressed_and_the_method_hears_of_it(serve: Serve, host: Host) -> None:
    not_given: list[Call] = []

    def handle(call: Call) -> None:
        call.compress_messages(True)
        if call.reply(NOISE) is LATER:
            call.on_cancel = partial(not_given.append, call)

    server = serve(compressing(ANSWERS) | unary(handle))
    with connected(server.port) as peer:
        peer.send(frames.hello() + frames.window_update(0, 1 << 30))
        for stream_id in range(1, 41, 2):
            peer.send(frames.call(stream_id, METHOD, b"", (b"grpc-accept-encoding", b"gzip")))
            peer.send(frames.rst_stream(stream_id))
        peer.send(frames.call(41, "/test.Calls/Small", b"", (b"grpc-accept-encoding", b"gzip")))
        assert peer.status(41) == 0
    abandoned, heard = host.do(lambda: (server.account.abandoned, len(not_given)))
    assert abandoned == heard


def test_an_empty_message_is_a_message(serve: Serve, connect: Connect) -> None:
    assert list(stream(connect(serve(echoes())), b"", b"", path=ECHO_STREAM)) == [b"", b""]


def test_a_message_of_64_mib_goes_both_ways(serve: Serve, connect: Connect) -> None:
    message = bytes(range(256)) * (LARGE // 256)
    channel = connect(serve(echoes(), max_message_bytes=LARGE))
    assert start(channel, message, ECHO).result() == message


def test_a_streamed_message_of_64_mib_goes_both_ways(serve: Serve, connect: Connect) -> None:
    message = bytes(range(256)) * (LARGE // 256)
    channel = connect(serve(echoes(), max_message_bytes=LARGE))
    assert list(stream(channel, message, b"and another", path=ECHO_STREAM)) == [message, b"and another"]


def test_a_request_that_is_too_large_is_refused_and_harms_nobody(serve: Serve, connect: Connect) -> None:
    channel = connect(serve(echoes(), max_message_bytes=MIB))
    code, details = failure_of(start(channel, bytes(MIB + 1), ECHO))
    assert (code, "larger than max" in details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
    assert start(channel, bytes(MIB), ECHO).result() == bytes(MIB)


def test_a_request_that_inflates_too_far_is_refused(serve: Serve, connect: Connect) -> None:
    channel = connect(serve(echoes(), max_message_bytes=MIB))
    code, details = failure_of(start(channel, bytes(MIB + 1), ECHO, compression=grpc.Compression.Gzip))
    assert (code, "larger than max" in details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)


def test_a_streamed_request_that_is_too_large_is_refused(serve: Serve, connect: Connect) -> None:
    channel = connect(serve(echoes(), max_message_bytes=MIB))
    code, details = end_of(stream(channel, b"first", bytes(MIB + 1), path=ECHO_STREAM))
    assert (code, "larger than max" in details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)


def test_a_stream_may_send_more_in_all_than_one_message_may(serve: Serve, connect: Connect) -> None:
    messages = [bytes([index]) * 1000 for index in range(200)]
    channel = connect(serve(echoes(), max_message_bytes=1000))
    assert list(stream(channel, *messages, path=ECHO_STREAM)) == messages


# --- methods that break ---


def broken(_: Call) -> None:
    raise RuntimeError("a secret of the server")


@pytest.mark.parametrize("where", ["message", "open", "half_closed"])
def test_a_stream_whose_method_raises_fails_and_the_server_goes_on(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    class Breaks:
        def __init__(self, call: Call) -> None:
            self.met("open")

        def met(self, place: str) -> None:
            if place == where:
                raise RuntimeError("a secret of the server")

        def message(self, data: bytes) -> None:
            self.met("message")

        def half_closed(self) -> None:
            self.met("half_closed")

        def drain(self) -> None: ...

    channel = connect(serve({METHOD: StreamMethod(Breaks)} | echoes()))
    assert end_of(stream(channel, b"")) == (grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE)
    assert start(channel, b"still here", ECHO).result() == b"still here"
    assert "a secret of the server" in caplog.text


def test_a_unary_method_that_raises_fails_its_call_and_the_server_goes_on(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    channel = connect(serve(unary(broken)))
    assert failure_of(start(channel)) == (grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE)
    assert start(channel, b"still here", ECHO).result() == b"still here"
    assert "a secret of the server" in caplog.text


def test_a_method_that_raises_after_its_answer_has_answered(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled = []

    def answer_and_break(call: Call) -> None:
        call.on_cancel = lambda: cancelled.append(call)
        call.reply(b"answer")
        broken(call)

    assert start(connect(serve(unary(answer_and_break)))).result() == b"answer"
    assert cancelled == []


def test_a_stream_can_end_as_it_opens(serve: Serve, connect: Connect) -> None:
    class Closed:
        def __init__(self, call: Call) -> None:
            call.fail(StatusCode.PERMISSION_DENIED, "closed today")

        def message(self, data: bytes) -> None:
            raise AssertionError("its call has ended")

        half_closed = drain = message  # type: ignore[assignment]

    channel = connect(serve({METHOD: StreamMethod(Closed)} | echoes()))
    for _ in range(3):
        assert end_of(stream(channel, b"knock")) == (grpc.StatusCode.PERMISSION_DENIED, "closed today")


@pytest.mark.parametrize("count", [0, 2])
def test_a_unary_call_takes_exactly_one_message(serve: Serve, connect: Connect, engine: str, count: int) -> None:
    if engine == "grpcio":
        pytest.skip("grpc.aio takes the first of several messages, and leaves a caller who sends none unanswered")
    heard: list[Call] = []
    channel = connect(serve({METHOD: UnaryMethod(lambda call, message: heard.append(call))}))
    call = channel.stream_unary(METHOD).future(iter([b"message"] * count), timeout=PATIENCE_SECONDS)
    assert call.code() == grpc.StatusCode.UNIMPLEMENTED
    assert heard == []


def test_bad_metadata_of_an_answer_fails_the_call(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    channel = connect(serve(unary(lambda call: call.send_initial_metadata({"Not A Name": "x"}))))
    assert failure_of(start(channel))[0] == grpc.StatusCode.INTERNAL
