"""What holds for whatever a peer sends, however it arrives: the nghttp2 engine without sockets."""

from __future__ import annotations

import weakref
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.frontends.grpc import http2
from server.frontends.grpc.http2 import Http2Error
from tests.fuzz.methods import ECHO, PARROT
from tests.hostile import frames
from tests.hostile.frames import call_headers, hello
from tests.hostile.sans_io import GUARDED, LATER, Line, Server

SEEDS = Path(__file__).parents[1] / "fuzz" / "seeds" / "http2"
CAPTURED = {path.name: path.read_bytes() for path in sorted(SEEDS.iterdir())}
UNCUTTABLE = {"continuation"}
"""nghttp2 counts each part of a CONTINUATION frame's header as a frame, and takes eight (`num_continuations`)."""


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(bounds)]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


CONTROL = frames.SETTINGS, frames.WINDOW_UPDATE

places = st.lists(st.integers(0, 10_000), max_size=30)
messages = st.lists(st.binary(max_size=300), min_size=1, max_size=4)


@st.composite
def exchanges(draw: st.DrawFn) -> bytes:
    """What a well-behaved client may send: calls whose frames are mixed, padded, split anywhere, some of them reset."""
    queues: list[list[bytes]] = []
    for number in range(draw(st.integers(1, 6))):
        stream_id, path = 2 * number + 1, draw(st.sampled_from([ECHO, LATER, PARROT, "/no.Such/Method"]))
        body = b"".join(map(frames.message, draw(messages)[: 1 if path != PARROT else None]))
        more = draw(st.sampled_from([(), ((b"name", b"value"),), ((b"long", b"v" * 200),)]))
        queue = [frames.headers(stream_id, call_headers(path, *more), indexed=draw(st.booleans()))]
        for piece in cut(body, draw(st.lists(st.integers(0, 10_000), max_size=4))):
            padding = draw(st.sampled_from([None, None, 0, 7]))
            queue.append(frames.data(stream_id, piece) if padding is None else frames.padded(stream_id, piece, padding))
        ending = draw(st.sampled_from(["data", "data", "trailers", "reset"]))
        queue.append(
            frames.data(stream_id, b"", end=True) if ending == "data"
            else frames.headers(stream_id, [(b"trailer", b"x")], end=True) if ending == "trailers"
            else frames.rst_stream(stream_id)
        )  # fmt: skip
        queues.append(queue)
    sent = [hello()]
    opened = 0
    while any(queues):
        index = draw(st.sampled_from([i for i, queue in enumerate(queues[: opened + 1]) if queue]))
        opened = max(opened, index + 1)  # streams must be opened in order
        sent.append(queues[index].pop(0))
    return b"".join(sent)


def assert_nothing_left(server: Server, line: Line) -> None:
    line.close()
    ledger = server.ledger
    assert server.dispatcher.context.held_bytes == 0
    assert ledger.opened == ledger.ended + ledger.cancelled
    assert not ledger.waiting
    assert all(call.started == sum(call.handled.values()) for call in server.dispatcher.calls.snapshot())


def final(data: bytes, chunks: list[bytes]) -> list[object]:
    """Everything that an exchange comes to, reset streams aside: how far those got is a matter of timing."""
    assert b"".join(chunks) == data
    server = Server()
    line = server.connect()
    line.play(chunks)
    server.ledger.answer_waiting()
    server.run()
    answers = [(i, a.headers, a.body, a.ended) for i, a in sorted(line.answers().items()) if not was_reset(data, i)]
    goaways = [frame for frame in line.frames() if frame.type == frames.GOAWAY]
    assert_nothing_left(server, line)
    return [answers, goaways]


def was_reset(data: bytes, stream_id: int) -> bool:
    start = len(frames.PREFACE)
    return any(f.type == frames.RST_STREAM and f.stream_id == stream_id for f in frames.parse(data[start:]))


@settings(max_examples=150, deadline=None)
@given(exchanges(), places)
def test_an_exchange_comes_to_the_same_however_it_is_cut(data: bytes, cuts: list[int]):
    assert final(data, cut(data, cuts)) == final(data, [data])


@pytest.mark.parametrize("name", sorted(CAPTURED.keys() - UNCUTTABLE))
def test_a_captured_exchange_comes_to_the_same_byte_by_byte(name: str):
    data = CAPTURED[name]
    assert final(data, one_by_one(data)) == final(data, [data])


@settings(max_examples=150, deadline=None)
@given(exchanges(), st.data())
def test_nothing_but_an_error_of_http2_comes_of_flipped_bits(data: bytes, choices: st.DataObject):
    damaged = bytearray(data)
    for place in choices.draw(st.lists(st.integers(24, len(data) - 1), min_size=1, max_size=8)):
        damaged[place] ^= 1 << choices.draw(st.integers(0, 7))
    server = Server()
    line = server.connect()
    with suppress(Http2Error):
        line.play(cut(bytes(damaged), choices.draw(places)))
        server.ledger.answer_waiting()
        server.run()
    assert_nothing_left(server, line)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(CAPTURED)), st.integers(0, 5000))
def test_a_connection_that_breaks_off_anywhere_leaves_nothing(name: str, length: int):
    server = Server()
    line = server.connect()
    line.play([CAPTURED[name][:length]])
    assert_nothing_left(server, line)


def test_headers_of_a_stream_that_was_refused_are_not_carried_over_to_another():
    line = Server().connect()
    smuggled = (b"grpc-timeout", b"nonsense that would fail the call that inherits it")
    line.receive(hello() + frames.headers(1, [*call_headers(ECHO), smuggled, (b"Upper", b"case")], end=True))
    request = frames.call(3, ECHO, b"mine")
    answers = line.play(cut(request, [40]))
    assert answers[1].reset == frames.PROTOCOL_ERROR
    assert answers[3].status == b"0"


def test_a_caller_that_may_not_ask_is_told_before_it_has_sent_all():
    server = Server()
    line = server.connect()
    line.receive(hello() + frames.headers(1, call_headers(GUARDED)) + frames.data(1, bytes(100)))
    assert line.answers()[1].status == b"16"
    line.receive(frames.data(1, bytes(4000)) + frames.call(3, GUARDED, b"whole"))
    assert line.answers()[3].status == b"0"
    known = [*call_headers(GUARDED), (b"authorization", b"somebody")]
    message = frames.message(b"in parts")
    line.receive(frames.headers(5, known) + frames.data(5, message[:7]))
    line.receive(frames.data(5, message[7:], end=True))
    assert line.answers()[5].body == message
    assert server.dispatcher.context.held_bytes == 0
    assert_nothing_left(server, line)


def test_a_reader_that_never_quite_catches_up_costs_no_memory_for_what_it_has_read():
    server = Server()
    line = server.connect()
    line.receive(hello((frames.INITIAL_WINDOW_SIZE, 3000)) + frames.headers(1, call_headers(PARROT)))
    message = frames.data(1, frames.message(bytes(3995)))
    line.receive(message)
    before = psutil.Process().memory_info().rss
    for _ in range(10_000):  # 40 MB
        line.receive(message + frames.window_update(0, 4000) + frames.window_update(1, 4000))
        assert {frame.type for frame in line.frames()} <= {frames.HEADERS, frames.DATA, *CONTROL}
        line.sent = b""
    assert 0 < server.dispatcher.context.held_bytes <= 4000
    assert psutil.Process().memory_info().rss - before < 10 << 20
    assert_nothing_left(server, line)


def test_answers_that_nobody_reads_are_refused_at_the_limit():
    server = Server()
    line = server.connect()
    calls = b"".join(frames.call(n, ECHO, bytes(4000)) for n in range(1, 20, 2))
    answers = line.play([hello((frames.INITIAL_WINDOW_SIZE, 0)) + calls])
    assert [answer.status for answer in answers.values()].count(b"8") == 6  # four answers fit into 20,000 bytes
    assert server.dispatcher.context.held_bytes <= 20_000
    assert_nothing_left(server, line)


@pytest.mark.parametrize("ending", ["it is read", "its call is cancelled", "the peer goes"])
def test_a_large_answer_is_sent_from_where_it_lies_and_let_go(ending: str):
    server = Server(http2.Limits())
    line = server.connect()
    line.receive(hello() + frames.call(1, LATER, b""))
    ((call, _),) = server.ledger.waiting
    answer = np.zeros(2 << 20, np.uint8)
    lives = weakref.ref(answer)
    assert call.reply(answer.data) is None
    del answer
    server.run()
    assert lives() is not None
    assert server.dispatcher.memory.used == server.dispatcher.context.held_bytes > 1 << 20
    match ending:
        case "it is read":
            line.receive(frames.window_update(0, 4 << 20) + frames.window_update(1, 4 << 20))
            assert line.answers()[1].status == b"0"
        case "its call is cancelled":
            line.receive(frames.rst_stream(1))
        case _:
            line.close()
    server.run()
    assert lives() is None
    assert server.dispatcher.memory.used == 0


def test_what_is_reserved_for_a_large_request_is_told_once():
    line = Server(http2.Limits()).connect()
    request = frames.headers(1, call_headers(ECHO)) + frames.data(1, frames.message(b"begins", length=8 << 20))
    line.receive(hello() + request)
    address, length = line.connection.unwritten()
    assert address
    assert length == (8 << 20) - len(b"begins")
    assert line.connection.unwritten()[1] == 0


def test_for_a_small_request_nothing_is_reserved_that_is_worth_a_word():
    line = Server(http2.Limits()).connect()
    line.receive(hello() + frames.headers(1, call_headers(ECHO)) + frames.data(1, frames.message(b"", length=1 << 20)))
    assert line.connection.unwritten()[1] == 0


def test_streaming_answers_that_nobody_reads_end_their_call_at_the_limit():
    server = Server()
    line = server.connect()
    opened = hello((frames.INITIAL_WINDOW_SIZE, 0)) + frames.headers(1, call_headers(PARROT))
    answers = line.play([opened] + [frames.data(1, frames.message(bytes(4000))) for _ in range(8)])
    assert answers[1].reset == frames.ENHANCE_YOUR_CALM
    assert server.ledger.cancelled == 1
    assert_nothing_left(server, line)


def test_requests_that_do_not_arrive_whole_are_refused_at_the_limit():
    server = Server()
    line = server.connect()
    half = frames.message(bytes(3000), length=4000)
    sent = hello() + b"".join(frames.headers(n, call_headers(ECHO)) + frames.data(n, half) for n in range(1, 20, 2))
    answers = line.play([sent])
    assert [answer.status for answer in answers.values()].count(b"8") == 6  # four that say 4,005 bytes fit into 20,000
    assert_nothing_left(server, line)


def test_streamed_messages_that_do_not_arrive_whole_are_refused_at_the_limit():
    server = Server()
    line = server.connect()
    half = frames.message(bytes(3000), length=4000)
    sent = hello() + b"".join(frames.headers(n, call_headers(PARROT)) + frames.data(n, half) for n in range(1, 20, 2))
    answers = line.play([sent])
    assert [answer.status for answer in answers.values()].count(b"8") == 6
    assert_nothing_left(server, line)


def test_what_connections_hold_together_is_limited_too():
    server = Server()
    lines = [server.connect() for _ in range(3)]
    half = frames.message(bytes(3000), length=4000)
    for line in lines:
        for stream_id in range(1, 10, 2):
            line.receive(
                (hello() if stream_id == 1 else b"")
                + frames.headers(stream_id, call_headers(ECHO)) + frames.data(stream_id, half)
            )  # fmt: skip
    statuses = [[answer.status for answer in line.answers().values()] for line in lines]
    own_limit, all_limits = b"8", b"14"  # the caller's own connection is full; there is no memory, for now
    assert statuses == [[own_limit], [all_limits] * 2, [all_limits] * 5]
    for line in lines:
        line.close()
    assert server.dispatcher.context.held_bytes == 0


def test_a_peer_whose_call_is_over_is_told_to_stop_sending():
    line = Server().connect()
    answers = line.play([hello() + frames.headers(1, call_headers("/no.Such/Method"))])
    assert answers[1].status == b"12"
    assert answers[1].reset == frames.NO_ERROR


def test_what_comes_after_the_end_of_a_connection_is_not_looked_at():
    server = Server()
    line = server.connect()
    line.receive(hello() + frames.data(0, b"x"))
    assert line.hung_up
    line.hung_up = False  # as if the socket still had something
    line.receive(frames.call(1, ECHO))
    assert server.ledger.opened == 0
    assert_nothing_left(server, line)
