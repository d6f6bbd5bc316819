"""HTTP/2 frames by hand (RFC 9113), right and wrong ones alike: a library would refuse to send what tests need."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = range(1, 6)

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, _, STREAM_CLOSED, FRAME_SIZE_ERROR = range(7)
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, _, ENHANCE_YOUR_CALM = range(7, 12)

Header = tuple[bytes, bytes]


class Frame(NamedTuple):
    """A frame that came back."""

    type: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def error_code(self) -> int:
        """Of RST_STREAM and GOAWAY."""
        start = 4 if self.type == GOAWAY else 0
        return int.from_bytes(self.payload[start : start + 4], "big")


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """A frame; `length` is what its header says, if that is not the truth."""
    announced = len(payload) if length is None else length
    return announced.to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream_id) + payload


def parse(data: bytes) -> Iterator[Frame]:
    """The whole frames at the start of `data`."""
    position = 0
    while len(data) - position >= 9:
        length = int.from_bytes(data[position : position + 3], "big")
        kind, flags, stream_id = struct.unpack_from(">BBI", data, position + 3)
        end = position + 9 + length
        if end > len(data):
            return
        yield Frame(kind, flags, stream_id, data[position + 9 : end])
        position = end


def settings(*entries: tuple[int, int], flags: int = 0) -> bytes:
    return frame(SETTINGS, flags, 0, b"".join(struct.pack(">HI", *entry) for entry in entries))


def hello(*entries: tuple[int, int]) -> bytes:
    """What a client begins with, the acknowledgement of the server's settings included."""
    return PREFACE + settings(*entries) + settings(flags=ACK)


def ping(payload: bytes = b"12345678", flags: int = 0) -> bytes:
    return frame(PING, flags, 0, payload)


def rst_stream(stream_id: int, error_code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream_id, struct.pack(">I", error_code))


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, struct.pack(">I", increment))


def goaway(last_stream_id: int = 0, error_code: int = NO_ERROR, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_stream_id, error_code) + debug)


def priority(stream_id: int, parent: int, weight: int = 15) -> bytes:
    return frame(PRIORITY, 0, stream_id, struct.pack(">IB", parent, weight))


def data(stream_id: int, payload: bytes, *, end: bool = False) -> bytes:
    return frame(DATA, END_STREAM if end else 0, stream_id, payload)


def padded(stream_id: int, payload: bytes, padding: int, *, end: bool = False) -> bytes:
    return frame(DATA, PADDED | (END_STREAM if end else 0), stream_id, bytes([padding]) + payload + bytes(padding))


def block(headers: Iterable[Header], *, indexed: bool = False) -> bytes:
    """A header block in HPACK's plainest form: literals, no Huffman code; put into the dynamic table if `indexed`."""
    first = b"\x40" if indexed else b"\x00"
    return b"".join(first + _string(name) + _string(value) for name, value in headers)


def headers(stream_id: int, fields: Iterable[Header], *, end: bool = False, indexed: bool = False) -> bytes:
    flags = END_HEADERS | (END_STREAM if end else 0)
    return frame(HEADERS, flags, stream_id, block(fields, indexed=indexed))


def continued(stream_id: int, pieces: list[bytes], *, end: bool = False) -> bytes:
    """A header block in one HEADERS frame and as many CONTINUATION frames as it takes."""
    kinds = [HEADERS] + [CONTINUATION] * (len(pieces) - 1)
    flags = [END_STREAM if end else 0] + [0] * (len(pieces) - 1)
    flags[-1] |= END_HEADERS
    return b"".join(frame(kind, flag, stream_id, piece) for kind, flag, piece in zip(kinds, flags, pieces, strict=True))


def call_headers(path: str, *more: Header) -> list[Header]:
    """The headers of a gRPC call."""
    return [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"localhost"),
        (b"te", b"trailers"), (b"content-type", b"application/grpc"), *more,
    ]  # fmt: skip


def message(payload: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """A gRPC message; `length` is what its prefix says, if that is not the truth."""
    return bytes([compressed]) + (len(payload) if length is None else length).to_bytes(4, "big") + payload


def call(stream_id: int, path: str, payload: bytes = b"", *more: Header) -> bytes:
    """A whole unary call."""
    return headers(stream_id, call_headers(path, *more)) + data(stream_id, message(payload), end=True)


def _string(text: bytes) -> bytes:
    return _integer(len(text), 7) + text


def _integer(value: int, bits: int) -> bytes:
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([value])
    encoded = bytearray([limit])
    value -= limit
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
