"""Streams: half-close, both directions at once, and callers that do not read."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc

from server.frontends.calls import Call, StreamMethod
from tests.engines.conftest import Connect, Serve
from tests.engines.hosting import PATIENCE_SECONDS
from tests.engines.methods import ECHO, ECHO_STREAM, METHOD, STREAM, Held, echoes, end_of
from tests.engines.requests import Requests

KIB, MIB = 1 << 10, 1 << 20
GENEROUS_BYTES = 32 * MIB
"""More than any engine may hold for one stream that is not read."""


def test_the_method_hears_a_half_close_and_can_still_answer(serve: Serve, connect: Connect, held: Held) -> None:
    answers = connect(serve(held.methods)).stream_stream(STREAM)(iter([b"a", b"b"]), timeout=PATIENCE_SECONDS)
    call = held.next_call()
    heard = [call.next_heard() for _ in range(3)]
    assert heard == [("message", b"a"), ("message", b"b"), ("half-closed", b"")]
    call.send(b"late")
    call.send(b"answers")
    call.finish()
    assert list(answers) == [b"late", b"answers"]


def test_a_half_close_without_a_message_is_heard(serve: Serve, connect: Connect, held: Held) -> None:
    answers = connect(serve(held.methods)).stream_stream(STREAM)(iter(()), timeout=PATIENCE_SECONDS)
    call = held.next_call()
    assert call.next_heard() == ("half-closed", b"")
    call.finish()
    assert end_of(answers) == (grpc.StatusCode.OK, "")


def test_answers_can_come_before_the_caller_has_sent_anything(
    serve: Serve, connect: Connect, held: Held, requests: Requests
) -> None:
    answers = connect(serve(held.methods)).stream_stream(STREAM)(requests, timeout=PATIENCE_SECONDS)
    call = held.next_call()
    call.send(b"welcome")
    assert next(answers) == b"welcome"
    call.finish()
    assert end_of(answers) == (grpc.StatusCode.OK, "")


def test_a_thousand_pings_get_their_pongs(serve: Serve, connect: Connect, requests: Requests) -> None:
    answers = connect(serve(echoes())).stream_stream(ECHO_STREAM)(requests, timeout=PATIENCE_SECONDS)
    for index in range(1000):
        requests.put(b"%d" % index)
        assert next(answers) == b"%d" % index
    requests.end()
    assert end_of(answers) == (grpc.StatusCode.OK, "")


def test_messages_of_all_sizes_keep_their_order(serve: Serve, connect: Connect) -> None:
    messages = [bytes([size % 251]) * size for size in (0, 1, 5, 16383, 16384, 16385, 65535, 65536, 300_000, 0, 7)] * 4
    answers = connect(serve(echoes())).stream_stream(ECHO_STREAM)(iter(messages), timeout=PATIENCE_SECONDS)
    assert list(answers) == messages


class Amplifier:
    """Answers each message with 64 KiB, and counts."""

    def __init__(self) -> None:
        self.heard = 0

    def open(self, call: Call) -> Amplifier:
        self._call = call
        return self

    def message(self, data: bytes) -> None:
        self.heard += 1
        self._call.send(bytes(data) * (64 * KIB))

    def half_closed(self) -> None:
        self._call.finish()

    def drain(self) -> None: ...


def test_a_caller_that_does_not_read_is_not_read_from_and_loses_nothing(serve: Serve, connect: Connect) -> None:
    count = 2000
    amplifier = Amplifier()
    server = serve({METHOD: StreamMethod(amplifier.open)} | echoes())
    channel, other = connect(server), connect(server)
    sent = threading.Event()

    def messages() -> Iterator[bytes]:
        for index in range(count):
            yield bytes([index % 251])
        sent.set()

    answers = channel.stream_stream(METHOD)(messages(), timeout=PATIENCE_SECONDS)
    assert sent.wait(PATIENCE_SECONDS)  # small requests fit the windows on their way, read or not
    for _ in range(50):  # others are served, on this connection too
        for peer in (channel, other):
            assert peer.unary_unary(ECHO)(b"x", timeout=PATIENCE_SECONDS) == b"x"
    assert amplifier.heard * 64 * KIB < GENEROUS_BYTES < count * 64 * KIB
    for index, answer in enumerate(answers):
        assert (len(answer), answer[0]) == (64 * KIB, index % 251)
    assert end_of(answers) == (grpc.StatusCode.OK, "")
    assert amplifier.heard == count


def test_a_caller_that_does_not_read_can_leave(serve: Serve, connect: Connect, requests: Requests, held: Held) -> None:
    server = serve(held.methods)
    channel = connect(server)
    answers = channel.stream_stream(STREAM)(requests, timeout=PATIENCE_SECONDS)
    call = held.next_call()
    for _ in range(8):
        call.send(bytes(MIB))
    answers.cancel()
    assert call.next_heard() == ("cancelled", b"")
    assert channel.unary_unary(ECHO)(b"x", timeout=PATIENCE_SECONDS) == b"x"


def test_a_caller_that_does_not_read_large_answers_blocks_nobody(serve: Serve, connect: Connect) -> None:
    server = serve(echoes())
    slow = connect(server)
    unread = [
        slow.stream_stream(ECHO_STREAM)(iter([bytes([index]) * MIB] * 3), timeout=PATIENCE_SECONDS)
        for index in range(8)
    ]
    for peer in (slow, connect(server)):
        assert peer.unary_unary(ECHO)(bytes(MIB), timeout=PATIENCE_SECONDS) == bytes(MIB)
    for index, answers in enumerate(unread):
        assert list(answers) == [bytes([index]) * MIB] * 3


def test_answers_of_one_stream_do_not_wait_for_another(serve: Serve, connect: Connect, held: Held) -> None:
    channel = connect(serve(held.methods))
    first, second = Requests(), Requests()
    one = channel.stream_stream(STREAM)(first, timeout=PATIENCE_SECONDS)
    call_one = held.next_call()
    two = channel.stream_stream(STREAM)(second, timeout=PATIENCE_SECONDS)
    call_two = held.next_call()
    call_two.send(b"two")
    assert next(two) == b"two"
    call_one.send(b"one")
    assert next(one) == b"one"
    for call, requests, answers in ((call_one, first, one), (call_two, second, two)):
        requests.end()
        assert call.next_heard() == ("half-closed", b"")
        call.finish()
        assert end_of(answers) == (grpc.StatusCode.OK, "")
