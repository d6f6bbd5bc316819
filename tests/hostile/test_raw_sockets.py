"""Peers that break HTTP/2 and gRPC on purpose, against a real server: each is dealt with by name, and alone.

The fixture `victim` checks after each test that another client is served, memory is back and the connection is gone.
"""

from __future__ import annotations

import struct

import pytest

from tests.hostile import frames
from tests.hostile.conftest import AttackedServer
from tests.hostile.frames import call_headers, hello

LIVE = "/inference.GRPCInferenceService/ServerLive"
INFER = "/inference.GRPCInferenceService/ModelInfer"
OK, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 0, 8, 12, 13

HEAD = call_headers(LIVE)
OPEN = frames.headers(1, HEAD)
BOMB = frames.block([(b"a", b"v" * 4000)], indexed=True) + b"\xbe" * 100_000  # one byte each names 4,000 of them


def without(name: bytes) -> list[frames.Header]:
    return [header for header in HEAD if header[0] != name]


BROKEN_CONNECTIONS = {
    "garbage": (bytes(range(256)) * 10, frames.PROTOCOL_ERROR),
    "an HTTP/1.1 request": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", frames.PROTOCOL_ERROR),
    "a TLS client hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(506), frames.PROTOCOL_ERROR),
    "no SETTINGS after the preface": (frames.PREFACE + frames.ping(), frames.PROTOCOL_ERROR),
    "an oversized frame": (hello() + frames.frame(frames.DATA, 0, 1, length=0xFFFFFF), frames.FRAME_SIZE_ERROR),
    "a PING of seven bytes": (hello() + frames.ping(b"1234567"), frames.FRAME_SIZE_ERROR),
    "half a SETTINGS entry": (hello() + frames.frame(frames.SETTINGS, 0, 0, bytes(7)), frames.FRAME_SIZE_ERROR),
    "SETTINGS on a stream": (hello() + frames.frame(frames.SETTINGS, 0, 1, b""), frames.PROTOCOL_ERROR),
    "a window size over 31 bits": (hello((frames.INITIAL_WINDOW_SIZE, 1 << 31)), frames.FLOW_CONTROL_ERROR),
    "ENABLE_PUSH of two": (hello((frames.ENABLE_PUSH, 2)), frames.PROTOCOL_ERROR),
    "a frame size below the least": (hello((frames.MAX_FRAME_SIZE, 100)), frames.PROTOCOL_ERROR),
    "HEADERS on stream 0": (hello() + frames.headers(0, HEAD), frames.PROTOCOL_ERROR),
    "HEADERS on an even stream": (hello() + frames.headers(2, HEAD), frames.PROTOCOL_ERROR),
    "DATA on stream 0": (hello() + frames.data(0, b"x"), frames.PROTOCOL_ERROR),
    "DATA on a stream never opened": (hello() + frames.data(5, b"x"), frames.PROTOCOL_ERROR),
    "RST_STREAM of a stream never opened": (hello() + frames.rst_stream(5), frames.PROTOCOL_ERROR),
    "WINDOW_UPDATE of a stream never opened": (hello() + frames.window_update(5, 1), frames.PROTOCOL_ERROR),
    "DATA after the end of the stream": (hello() + frames.call(1, LIVE) + frames.data(1, b"x"), frames.STREAM_CLOSED),
    "HEADERS after the end of the stream": (hello() + frames.call(1, LIVE) + OPEN, frames.STREAM_CLOSED),
    "a window of more than 31 bits": (hello() + frames.window_update(0, 0x7FFFFFFF), frames.FLOW_CONTROL_ERROR),
    "WINDOW_UPDATE by nothing": (hello() + frames.window_update(0, 0), frames.PROTOCOL_ERROR),
    "a stream's WINDOW_UPDATE by nothing": (hello() + OPEN + frames.window_update(1, 0), frames.PROTOCOL_ERROR),
    "a promise from a client": (
        hello() + OPEN + frames.frame(frames.PUSH_PROMISE, frames.END_HEADERS, 1, struct.pack(">I", 2)),
        frames.PROTOCOL_ERROR,
    ),
    "a stream that depends on itself": (hello() + frames.priority(3, 3), frames.PROTOCOL_ERROR),
    "padding longer than its frame": (
        hello() + OPEN + frames.frame(frames.DATA, frames.PADDED, 1, b"\xff12"), frames.PROTOCOL_ERROR,
    ),
    "a header block that does not unpack": (
        hello() + frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff" * 6), frames.COMPRESSION_ERROR,
    ),
    "another frame inside a header block": (
        hello() + frames.frame(frames.HEADERS, 0, 1, b"") + frames.ping(), frames.PROTOCOL_ERROR,
    ),
    "a flood of CONTINUATION": (
        hello() + frames.frame(frames.HEADERS, 0, 1, b"") + frames.frame(frames.CONTINUATION, 0, 1, b"") * 10_000,
        frames.ENHANCE_YOUR_CALM,
    ),
    "a flood of PING": (hello() + frames.ping() * 30_000, frames.ENHANCE_YOUR_CALM),
    "a flood of SETTINGS": (hello() + frames.settings() * 30_000, frames.ENHANCE_YOUR_CALM),
    "a flood of settings in one frame": (
        hello() + frames.settings(*[(frames.INITIAL_WINDOW_SIZE, size) for size in range(1000)]),
        frames.ENHANCE_YOUR_CALM,
    ),
    "a flood of empty DATA": (hello() + OPEN + frames.data(1, b"") * 30_000, frames.ENHANCE_YOUR_CALM),
    "a flood of WINDOW_UPDATE": (hello() + frames.window_update(0, 1) * 30_000, frames.ENHANCE_YOUR_CALM),
    "a storm of PRIORITY": (
        hello() + b"".join(frames.priority(2 * n + 1, 2 * n - 1 if n % 7 else 0) for n in range(1, 30_000)),
        frames.ENHANCE_YOUR_CALM,
    ),
    "more streams at once than allowed": (
        hello() + b"".join(frames.headers(n, HEAD) for n in range(1, 2100, 2)), frames.PROTOCOL_ERROR,
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", BROKEN_CONNECTIONS)
def test_a_broken_connection_is_told_why_and_closed(attack: str, victim: AttackedServer):
    sent, code = BROKEN_CONNECTIONS[attack]
    peer = victim.peer()
    peer.send(sent)
    assert peer.goaway_code() == code


BROKEN_STREAMS = {
    "an upper-case header": (frames.headers(1, [*HEAD, (b"Upper", b"case")], end=True), frames.PROTOCOL_ERROR),
    "an empty header name": (frames.headers(1, [*HEAD, (b"", b"x")], end=True), frames.PROTOCOL_ERROR),
    "a NUL in a header": (frames.headers(1, [*HEAD, (b"nul", b"a\0b")], end=True), frames.PROTOCOL_ERROR),
    "a newline in a header": (frames.headers(1, [*HEAD, (b"split", b"a\r\nb: c")], end=True), frames.PROTOCOL_ERROR),
    "a connection header": (frames.headers(1, [*HEAD, (b"connection", b"close")], end=True), frames.PROTOCOL_ERROR),
    "a broken path": (frames.headers(1, [(b":path", b"\xff"), *without(b":path")], end=True), frames.PROTOCOL_ERROR),
    "a late pseudo-header": (frames.headers(1, [*without(b":path"), HEAD[2]], end=True), frames.PROTOCOL_ERROR),
    "a pseudo-header twice": (frames.headers(1, [HEAD[0], *HEAD], end=True), frames.PROTOCOL_ERROR),
    "an unknown pseudo-header": (frames.headers(1, [(b":what", b"x"), *HEAD], end=True), frames.PROTOCOL_ERROR),
    "a response's pseudo-header": (frames.headers(1, [(b":status", b"200"), *HEAD], end=True), frames.PROTOCOL_ERROR),
    "no method": (frames.headers(1, without(b":method"), end=True), frames.PROTOCOL_ERROR),
    "no path": (frames.headers(1, without(b":path"), end=True), frames.PROTOCOL_ERROR),
    "no scheme": (frames.headers(1, without(b":scheme"), end=True), frames.PROTOCOL_ERROR),
    "no headers at all": (frames.headers(1, [], end=True), frames.PROTOCOL_ERROR),
    "less content than its length": (
        frames.headers(1, [*HEAD, (b"content-length", b"9")]) + frames.data(1, b"123", end=True), frames.PROTOCOL_ERROR,
    ),
    "more content than its length": (
        frames.headers(1, [*HEAD, (b"content-length", b"2")]) + frames.data(1, b"12345"), frames.PROTOCOL_ERROR,
    ),
    "a length that is none": (frames.headers(1, [*HEAD, (b"content-length", b"-1")]), frames.PROTOCOL_ERROR),
    "trailers that end nothing": (OPEN + frames.headers(1, [(b"more", b"x")]), frames.PROTOCOL_ERROR),
    "a stream window of more than 31 bits": (OPEN + frames.window_update(1, 0x7FFFFFFF), frames.FLOW_CONTROL_ERROR),
    "a header bomb": (frames.frame(frames.HEADERS, frames.END_HEADERS, 1, BOMB), frames.INTERNAL_ERROR),
}  # fmt: skip


@pytest.mark.parametrize("attack", BROKEN_STREAMS)
def test_a_broken_stream_is_reset_and_the_next_is_served(attack: str, victim: AttackedServer):
    sent, code = BROKEN_STREAMS[attack]
    peer = victim.peer()
    peer.send(hello((frames.MAX_FRAME_SIZE, 1 << 20)) + sent)
    assert peer.reset_code(1) == code
    peer.send(frames.call(3, LIVE))
    assert peer.status(3) == OK


LARGE_HEAD = [*HEAD, *((b"h%d" % n, b"v" * 900) for n in range(20))]
LARGE_BLOCK = frames.block(LARGE_HEAD)

REFUSED_CALLS = {
    "headers over the limit": (frames.headers(1, LARGE_HEAD, end=True), RESOURCE_EXHAUSTED),
    "headers over the limit, in CONTINUATION frames": (
        frames.continued(1, [LARGE_BLOCK[at : at + 5000] for at in range(0, len(LARGE_BLOCK), 5000)], end=True),
        RESOURCE_EXHAUSTED,
    ),
    "too many small headers": (frames.headers(1, [*HEAD, *[(b"a", b"")] * 600], end=True), RESOURCE_EXHAUSTED),
    "a message shorter than it says": (OPEN + frames.data(1, frames.message(b"", length=9), end=True), INTERNAL),
    "more than one message": (OPEN + frames.data(1, frames.message(b"12345", length=2), end=True), UNIMPLEMENTED),
    "half a length": (OPEN + frames.data(1, b"\0\0\0", end=True), INTERNAL),
    "no message": (frames.headers(1, HEAD, end=True), UNIMPLEMENTED),
    "a message of 4 GiB": (OPEN + frames.data(1, b"\0\xff\xff\xff\xff", end=True), RESOURCE_EXHAUSTED),
    "an unknown flag": (OPEN + frames.data(1, frames.message(b"", compressed=7), end=True), INTERNAL),
    "unannounced compression": (OPEN + frames.data(1, frames.message(b"x", compressed=1), end=True), INTERNAL),
    "a broken timeout": (frames.call(1, LIVE, b"", (b"grpc-timeout", b"1 week")), INTERNAL),
}  # fmt: skip


@pytest.mark.parametrize("attack", REFUSED_CALLS)
def test_a_call_against_grpcs_rules_is_refused_with_a_status(attack: str, victim: AttackedServer):
    sent, status = REFUSED_CALLS[attack]
    peer = victim.peer()
    peer.send(hello() + sent)
    assert peer.status(1) == status
    peer.send(frames.call(3, LIVE))
    assert peer.status(3) == OK


def test_metadata_that_is_no_utf8_is_nobodys_business(victim: AttackedServer):
    peer = victim.peer()
    peer.send(hello() + frames.call(1, LIVE, b"", (b"name", b"\xff\xfe\xc3")))
    assert peer.status(1) == OK


def test_white_space_around_a_value_is_no_part_of_it(victim: AttackedServer):
    peer = victim.peer()
    peer.send(hello() + frames.call(1, LIVE, b"", (b"grpc-timeout", b" \t1H "), (b"name", b" "), (b"other", b"a b\t")))
    assert peer.status(1) == OK  # a timeout with a space in it is refused


def test_a_closed_connection_leaves_nothing_of_half_a_request(victim: AttackedServer):
    for _ in range(20):
        peer = victim.peer()
        peer.send(
            hello()
            + frames.headers(1, call_headers(INFER))
            + frames.data(1, frames.message(bytes(60_000), length=100_000))
        )
        peer.close()


def test_rapid_resets_end_the_connection(victim: AttackedServer):
    peer = victim.peer()
    resets = (frames.headers(n, call_headers(INFER)) + frames.rst_stream(n) for n in range(1, 20_000, 2))
    peer.send(hello() + b"".join(resets))
    peer.send(frames.goaway())
    assert peer.goaway_code() == frames.INTERNAL_ERROR  # nghttp2's word for it


def test_a_client_may_cancel_some_thousand_calls_in_a_row(victim: AttackedServer):
    peer = victim.peer()
    resets = (frames.headers(n, call_headers(INFER)) + frames.rst_stream(n) for n in range(1, 6_000, 2))
    peer.send(hello() + b"".join(resets) + frames.call(6_001, LIVE))
    assert peer.status(6_001) == OK


def test_streams_that_a_peer_makes_the_server_reset_end_the_connection(victim: AttackedServer):
    peer = victim.peer()
    for first in range(1, 4000, 200):
        ids = range(first, first + 200, 2)
        peer.send((hello() if first == 1 else b"") + b"".join(
            frames.headers(n, call_headers(INFER)) + frames.window_update(n, 0x7FFFFFFF) for n in ids
        ))  # fmt: skip
        if first < 1800:
            assert peer.reset_code(ids[-1]) == frames.FLOW_CONTROL_ERROR
    assert peer.goaway_code() == frames.ENHANCE_YOUR_CALM


def test_resets_of_streams_that_are_over_are_ignored(victim: AttackedServer):
    peer = victim.peer()
    peer.send(hello() + frames.call(1, LIVE))
    assert peer.status(1) == OK
    peer.send(frames.rst_stream(1) + frames.window_update(1, 10) + frames.priority(1, 0) + frames.call(3, LIVE))
    assert peer.status(3) == OK


def test_a_client_that_says_goodbye_gets_its_answers_first(victim: AttackedServer):
    peer = victim.peer()
    peer.send(hello() + frames.call(1, LIVE) + frames.goaway())
    assert peer.status(1) == OK
    assert peer.read_to_end()


def test_a_message_in_frames_of_one_byte_is_read(victim: AttackedServer):
    message = frames.message(b"\x0a\x06lenet5" + bytes(0))
    padding = frames.message(b"\x22" + b"\xd0\x0f" + bytes(2000))  # a field of a type that nobody knows
    path = "/inference.GRPCInferenceService/ModelReady"
    peer = victim.peer()
    peer.send(hello() + frames.headers(1, call_headers(path)))
    peer.send(b"".join(frames.data(1, bytes([byte])) for byte in message) + frames.data(1, b"", end=True))
    assert peer.status(1) == OK
    peer.send(frames.headers(3, call_headers(path)))
    peer.send(b"".join(frames.data(3, bytes([byte])) for byte in padding) + frames.data(3, b"", end=True))
    assert peer.status(3) != INTERNAL


def test_an_error_that_quotes_a_huge_name_still_gets_through(victim: AttackedServer):
    name = b"n" * 500_000
    field = b"\x0a" + b"\xa0\xc2\x1e" + name
    peer = victim.peer()
    peer.send(hello() + frames.headers(1, call_headers("/inference.GRPCInferenceService/ModelMetadata")))
    body = frames.message(field)
    peer.send(b"".join(frames.data(1, body[at : at + 16384]) for at in range(0, len(body), 16384)))
    peer.send(frames.data(1, b"", end=True))
    assert peer.status(1) != OK


def test_unknown_frames_and_flags_are_ignored(victim: AttackedServer):
    peer = victim.peer()
    unknown = frames.frame(0xBE, 0xFF, 0x7FFFFFFF, bytes(100))
    reserved = frames.frame(frames.DATA, 0xF6 & ~frames.PADDED, 0x80000001, frames.message(b""))
    peer.send(hello() + unknown + OPEN + unknown + reserved + frames.data(1, b"", end=True))
    assert peer.status(1) == OK


def test_answers_that_nobody_reads_are_dropped_with_their_connection(victim: AttackedServer):
    peer = victim.peer()
    path = "/inference.GRPCInferenceService/ServerMetadata"
    calls = b"".join(frames.call(n, path) for n in range(1, 1000, 2))
    peer.send(hello((frames.INITIAL_WINDOW_SIZE, 0)) + calls)
    peer.read_until(lambda frame: frame.type == frames.HEADERS and frame.stream_id == 999)
    peer.close()
