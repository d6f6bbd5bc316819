"""As much of HTTP/2 (RFC 9113) as a load generator needs: frames, and gRPC requests that are patched. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 3, 4, 5  # some settings (6.5.2)
CANCEL = 8  # among the error codes (7)
FIRST_WINDOW, FIRST_FRAME_SIZE = 65_535, 16_384
"""What holds until the peer says otherwise."""
LARGEST_WINDOW = (1 << 31) - 1
FRAME = struct.Struct(">BHBBI")
"""A frame's head: length in three bytes, type, flags, stream."""

Bytes = np.ndarray[tuple[int, int], np.dtype[np.uint8]]
Frame = tuple[int, int, int, int, int]
"""Type, flags, stream, and where its payload begins and ends."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    return FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def window_update(stream: int, more: int) -> bytes:
    """Lets the peer send so many bytes more; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", more))


HELLO = (
    PREFACE
    + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, LARGEST_WINDOW))
    + window_update(0, LARGEST_WINDOW - FIRST_WINDOW)
)
"""What a client says first. Lets the peer send 2 GiB of answers: without that it would stop after 64 KiB."""


def frames(data: bytes) -> Iterator[Frame]:
    """The frames that are whole."""
    position, available = 0, len(data)
    unpack, head = FRAME.unpack_from, FRAME.size
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


class Requests:
    """Framed gRPC messages of one length as requests, for any stream: its number is patched into the same bytes.

    The stream that is opened first on a connection carries the headers in full and has the peer index them (HPACK, RFC
    7541); every later one says six bytes, as the clients of gRPC do.
    """

    def __init__(self, path: str, messages: Sequence[bytes], max_frame_size: int) -> None:
        self._heads = _head_blocks(path)
        self._max_frame_size = max_frame_size
        self._messages = messages
        laid_out = [self._lay_out(self._heads[1], message) for message in messages]
        self._offsets = _stream_offsets(laid_out[0])
        self._each = [bytearray(request) for request in laid_out]
        self._all: Bytes = np.frombuffer(b"".join(laid_out), np.uint8).reshape(len(laid_out), -1)

    def one(self, stream: int, number: int, *, first: bool) -> bytearray:
        """Message `number`, counted round and round, on this stream. The next call may change the bytes."""
        if first:
            request = bytearray(self._lay_out(self._heads[0], self._messages[number % len(self._messages)]))
            offsets = _stream_offsets(request)
        else:
            request, offsets = self._each[number % len(self._each)], self._offsets
        for offset in offsets:
            struct.pack_into(">I", request, offset, stream)
        return request

    def many(self, stream: int, number: int, count: int) -> Bytes:
        """Messages `number` and following on `count` streams from `stream` on, none of them the first: a row each."""
        rows = self._all[np.arange(number, number + count) % len(self._all)]
        streams = np.arange(stream, stream + 2 * count, 2, dtype=">u4").view(np.uint8).reshape(count, 4)
        for offset in self._offsets:
            rows[:, offset : offset + 4] = streams
        return rows

    def head(self, stream: int, *, first: bool) -> bytes:
        """The headers alone, for a request whose message follows as the peer makes room."""
        return frame(HEADERS, END_HEADERS, stream, self._heads[0 if first else 1])

    def _lay_out(self, head: bytes, message: bytes) -> bytes:
        parts = [frame(HEADERS, END_HEADERS, 0, head)]
        for start in range(0, len(message), self._max_frame_size):
            part = message[start : start + self._max_frame_size]
            parts.append(frame(DATA, END_STREAM if start + len(part) == len(message) else 0, 0, part))
        return b"".join(parts)


def _stream_offsets(request: bytes | bytearray) -> list[int]:
    """Where the stream's number stands in every frame."""
    return [begin - 4 for _, _, _, begin, _ in frames(bytes(request))]


def _head_blocks(path: str) -> tuple[bytes, bytes]:
    """The headers of a gRPC request, for the first stream of a connection and for every other."""
    post, http = b"\x83", b"\x86"  # from the static table
    fields = (
        (b":path", path.encode()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
    new = b"".join(b"\x40" + _string(name) + _string(value) for name, value in fields)  # to be indexed
    known = bytes(0x80 | 61 + len(fields) - index for index in range(len(fields)))  # the newest entry is number 62
    return post + http + new, post + http + known


def _string(text: bytes) -> bytes:
    """Without Huffman coding: its length in seven bits, continued where they do not suffice (RFC 7541, 5.1); itself."""
    if len(text) < 127:
        return bytes((len(text),)) + text
    rest, prefix = len(text) - 127, bytearray((127,))
    while rest >= 128:
        prefix.append(rest & 127 | 128)
        rest >>= 7
    prefix.append(rest)
    return bytes(prefix) + text
