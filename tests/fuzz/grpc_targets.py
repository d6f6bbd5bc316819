"""gRPC over HTTP/2: messages, headers, and whole connections to the engine without sockets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from server.frontends import compression
from server.frontends.calls import StatusCode
from server.frontends.grpc import framing, wire
from server.frontends.grpc.framing import MessageReader
from server.frontends.grpc.http2 import Http2Error, pack_headers, unpack_headers
from server.frontends.grpc.wire import Refusal, WireError
from tests.hostile import frames
from tests.hostile.frames import Frame
from tests.hostile.sans_io import Server

LIMIT = 500
ENDING = (frames.DATA, frames.HEADERS)
ENCODINGS = (b"identity", b"gzip", b"deflate", b"snappy", b"")


def fuzz_messages(data: bytes) -> None:
    """Length-prefixed messages, whole and cut: the same messages, or the same refusal."""
    encoding, step = ENCODINGS[data[0] % len(ENCODINGS)], 1 + data[1] % 7
    body = data[2:]

    def read(chunks: list[bytes]) -> tuple[list[bytes], StatusCode | None]:
        reader = MessageReader(LIMIT, encoding)
        messages: list[bytes] = []
        try:
            for chunk in chunks:
                messages += map(bytes, reader.feed(chunk))
            reader.finish()
        except WireError as error:
            return messages, error.status
        return messages, None

    whole, error = read([body])
    in_parts, same_error = read([body[at : at + step] for at in range(0, len(body), step)])
    assert error == same_error
    assert all(len(message) <= LIMIT for message in in_parts)
    if error is None:
        assert whole == in_parts
    try:
        single = bytes(framing.unary_message(body, LIMIT, encoding))
    except WireError:
        assert error is not None or len(whole) != 1
    else:
        assert whole == [single]


def fuzz_headers(data: bytes) -> None:
    """A request's headers, and its metadata if it may begin."""
    fields = [tuple(line.split(b"=", 1)) for line in data.split(b"\n") if b"=" in line]
    headers = [(name, value) for name, value in fields]
    assert unpack_headers(pack_headers(headers)) == headers
    head = wire.check_request_headers(headers)
    if isinstance(head, Refusal):
        assert head.headers()
        return
    assert head.timeout >= 0
    compression.negotiate(head.accept_encoding)
    with suppress(WireError):
        metadata = head.metadata()
        echoed = wire.encode_metadata(metadata)
        assert wire.decode_metadata(echoed) == metadata


def fuzz_texts(data: bytes) -> None:
    """Timeouts and status messages."""
    with suppress(WireError):
        seconds = wire.parse_timeout(data)
        if seconds:
            assert wire.parse_timeout(wire.format_timeout(seconds)) >= seconds * (1 - 1e-9)
    text = wire.decode_status_message(data)
    assert wire.decode_status_message(wire.encode_status_message(text)) == text


def fuzz_connection(data: bytes) -> None:
    """A peer of the whole engine: the first bytes say how its words are cut, and when answers are given."""
    step, answers_every, rest = 1 + data[0] * 4, 1 + data[1] % 8, data[2:]
    server = Server()
    line = server.connect()
    with suppress(Http2Error):
        for number, at in enumerate(range(0, len(rest), step)):
            line.receive(rest[at : at + step])
            if number % answers_every == 0:
                server.ledger.answer_waiting()
                server.run()
        line.answers()
    line.close()
    ledger = server.ledger
    assert ledger.opened == ledger.ended + ledger.cancelled
    assert server.dispatcher.context.held_bytes == 0


def fuzz_sessions(data: bytes) -> None:
    """Several streams on one connection: the same answers, or the same end, however its bytes are cut."""
    step, rest = 1 + data[0] * 4, data[2:]
    if not _has_one_meaning(rest):
        return
    whole, pieces = _session(rest, len(rest) or 1), _session(rest, step)
    if _asked_after(rest, pieces.ended_at):
        return
    assert pieces.error == whole.error, (whole.error, pieces.error)
    if whole.error is None:
        assert whole.answers == pieces.answers


def _has_one_meaning(data: bytes) -> bool:
    """Whether timing plays no part.

    It does where frames come on a stream after its end, which may have been forgotten by then, or after GOAWAY, when a
    connection without streams is closed; and nghttp2 counts each piece of a CONTINUATION frame's header as a frame, and
    takes eight. After HEADERS that do not end their block, what is left over is such a header, or the beginning of one.
    """
    ended: set[int] = set()
    parsed = list(frames.parse(data[len(frames.PREFACE) :]))
    if any(frame.type == frames.GOAWAY for frame in parsed):
        return False
    for frame in parsed:
        if frame.type == frames.CONTINUATION or (frame.stream_id in ended and frame.type != frames.PRIORITY):
            return False
        if frame.type == frames.HEADERS and not frame.flags & frames.END_HEADERS:
            return False
        ended.update(_ended([frame]))
    return True


def _asked_after(data: bytes, ended_at: dict[int, int]) -> bool:
    """Whether a frame came on a stream, or was not there whole, when the server had ended it for an error.

    A frame is on a stream that is still there where it comes with the one before it, and on none where it does not.
    """
    position = len(frames.PREFACE)
    for frame in frames.parse(data[position:]):
        position += 9 + len(frame.payload)
        if position > ended_at.get(frame.stream_id, len(data)):
            return True
    return bool(ended_at) and position < len(data)


class _Outcome(NamedTuple):
    """Of a session."""

    answers: Sequence[object]
    """On all streams that were not reset; where the connection was ended, how, and they count for nothing."""
    error: str | None
    ended_at: dict[int, int]
    """How many bytes had come when the server ended a stream; it answers when all have."""


def _session(data: bytes, step: int) -> _Outcome:
    """What a stream was sent before its error is a matter of timing, and so is which of two errors is seen first."""
    server = Server()
    line = server.connect()
    error = None
    ended_at: dict[int, int] = {}
    try:
        for at in range(0, len(data), step):
            said = len(line.sent)
            line.receive(data[at : at + step])
            if len(line.sent) > said:
                for stream_id in _ended(line.frames()):
                    ended_at.setdefault(stream_id, at + step)
    except Http2Error as raised:
        error = type(raised).__name__
    else:
        server.ledger.answer_waiting()
        server.run()
    answers = [(i, (a.headers, a.body) if a.status == b"0" else ()) for i, a in sorted(line.answers().items())]
    ends = [frame for frame in line.frames() if frame.type == frames.GOAWAY]
    line.close()
    assert server.dispatcher.context.held_bytes == 0
    reset = {f.stream_id for f in frames.parse(data[len(frames.PREFACE) :]) if f.type == frames.RST_STREAM}
    return _Outcome(ends or [answer for answer in answers if answer[0] not in reset], error, ended_at)


def _ended(said: Iterable[Frame]) -> Iterator[int]:
    """The streams that end with one of these frames."""
    for frame in said:
        if frame.type == frames.RST_STREAM or (frame.type in ENDING and frame.flags & frames.END_STREAM):
            yield frame.stream_id
