"""As much of HTTP/2 (RFC 9113) as a load generator needs: frames, and one gRPC request that is patched. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from loadtest.target import INFER

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 3, 4, 5  # among the settings (6.5.2)
FIRST_WINDOW, FIRST_FRAME_SIZE = 65_535, 16_384
"""What holds until the peer says otherwise."""
_FRAME = struct.Struct(">BHBBI")  # length in three bytes, type, flags, stream

Frame = tuple[int, int, int, int, int]
"""Type, flags, stream, and where its payload begins and ends."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    return _FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


WIDE_OPEN = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 31) - 1 - FIRST_WINDOW))
"""Lets the peer send 2 GiB of answers on a connection. Without it, it would stop after 64 KiB."""


def frames(data: bytes) -> Iterator[Frame]:
    """The frames that are whole."""
    position, available = 0, len(data)
    unpack, head = _FRAME.unpack_from, _FRAME.size
    while available - position >= head:
        high, low, kind, flags, stream = unpack(data, position)
        begin = position + head
        end = begin + (high << 16 | low)
        if end > available:
            return
        yield kind, flags, stream, begin, end
        position = end


def settings(payload: bytes) -> dict[int, int]:
    """What a SETTINGS frame says."""
    return dict(struct.iter_unpack(">HI", payload))


class Request:
    """One framed gRPC message as a request to ModelInfer, for any stream: the number is patched into the same bytes."""

    def __init__(self, message: bytes, max_frame_size: int) -> None:
        head = _literal(b":method", b"POST") + _literal(b":scheme", b"http") + _literal(b":path", INFER.encode())
        head += _literal(b":authority", b"localhost") + _literal(b"content-type", b"application/grpc")
        head += _literal(b"te", b"trailers")
        parts = [frame(HEADERS, END_HEADERS, 0, head)]
        for start in range(0, len(message), max_frame_size):
            part = message[start : start + max_frame_size]
            parts.append(frame(DATA, END_STREAM if start + len(part) == len(message) else 0, 0, part))
        self._offsets: list[int] = []
        position = 0
        for part in parts:
            self._offsets.append(position + 5)
            position += len(part)
        self._bytes = bytearray(b"".join(parts))

    def on(self, stream: int) -> bytearray:
        """The request's bytes on this stream, which the next call changes."""
        for offset in self._offsets:
            struct.pack_into(">I", self._bytes, offset, stream)
        return self._bytes


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field for HPACK, never indexed and without Huffman coding; both parts below 127 bytes."""
    return b"\x10" + bytes((len(name),)) + name + bytes((len(value),)) + value
