"""What the fuzzers do with their bytes. A target returns, or the code under it has a bug."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from server.frontends import compression
from server.frontends.calls import StatusCode
from server.frontends.grpc import wire
from server.frontends.grpc.http2 import Http2Error, pack_headers, unpack_headers
from server.frontends.grpc.wire import MessageReader, Refusal, WireError
from tests.hostile.sans_io import Server

LIMIT = 500
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
        single = bytes(wire.unary_message(body, LIMIT, encoding))
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


TARGETS: dict[str, tuple[Callable[[bytes], None], str]] = {
    "messages": (fuzz_messages, "wire"),
    "headers": (fuzz_headers, "wire"),
    "texts": (fuzz_texts, "wire"),
    "connection": (fuzz_connection, "http2"),
}
"""Each target by name, with the folder of its seeds."""

SEED_PREFIX = b"\x40\x01"
"""What a target's own choices are for a seed, which is what would come over the wire."""


def run(name: str, data: bytes) -> None:
    """One input through one target."""
    if len(data) >= len(SEED_PREFIX):
        TARGETS[name][0](data)
