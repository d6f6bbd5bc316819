"""Feeds a gRPC server: one framed request over and over, made once and patched, so that the client costs little.

python -m loadtest.floors.http2_source --port PORT --message FILE --messages N --connections N --in-flight N

Beside h2load, whose frames are 16 KiB and whose own CPU is a limit with large bodies: this sends frames as large as the
server allows. It reads no more of an answer than its end; who uses it compares the server's counts with what was sent.
"""

from __future__ import annotations

import socket
import struct

from loadtest.floors.feeding import SILENCE_SECONDS, feed_from_command_line
from loadtest.target import INFER

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_MAX_FRAME_SIZE = 5  # among the settings (RFC 9113, 6.5.2)
_FRAME = struct.Struct(">BHBBI")  # length in three bytes, type, flags, stream


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    return _FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field for HPACK, never indexed and without Huffman coding; both parts below 127 bytes."""
    return b"\x10" + bytes((len(name),)) + name + bytes((len(value),)) + value


class Source:
    """One connection to the server."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), SILENCE_SECONDS)
        self._unread = b""
        self._window = 65_535
        self._max_frame_size = 16_384
        self.ended = 0
        """Answers that have ended."""
        self._settled = False
        self._socket.sendall(_PREFACE + frame(_SETTINGS, 0, 0))
        while not self._settled:
            self._read()

    def close(self) -> None:
        self._socket.close()

    def feed(self, message: bytes, messages: int, in_flight: int) -> None:
        """Sends the framed message as one request each."""
        request, stream_offsets = self._request(message)
        for sent in range(messages):
            while sent - self.ended >= in_flight or self._window < len(message):
                self._read()
            for offset in stream_offsets:
                struct.pack_into(">I", request, offset, 2 * sent + 1)
            self._window -= len(message)
            self._socket.sendall(request)
        while self.ended < messages:
            self._read()

    def _request(self, message: bytes) -> tuple[bytearray, list[int]]:
        """The frames of one request, and where the number of its stream stands in them."""
        head = literal(b":method", b"POST") + literal(b":scheme", b"http") + literal(b":path", INFER.encode())
        head += literal(b":authority", b"localhost") + literal(b"content-type", b"application/grpc")
        head += literal(b"te", b"trailers")
        frames = [frame(_HEADERS, _END_HEADERS, 0, head)]
        for start in range(0, len(message), self._max_frame_size):
            part = message[start : start + self._max_frame_size]
            frames.append(frame(_DATA, _END_STREAM if start + len(part) == len(message) else 0, 0, part))
        offsets, position = [], 0
        for one in frames:
            offsets.append(position + 5)
            position += len(one)
        return bytearray(b"".join(frames)), offsets

    def _read(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the server has closed the connection")
        data = self._unread + data
        position = 0
        while len(data) - position >= _FRAME.size:
            high, low, kind, flags, stream = _FRAME.unpack_from(data, position)
            end = position + _FRAME.size + (high << 16 | low)
            if end > len(data):
                break
            self._take(kind, flags, stream, data[position + _FRAME.size : end])
            position = end
        self._unread = data[position:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            settings = dict(struct.iter_unpack(">HI", payload))
            self._max_frame_size = settings.get(_MAX_FRAME_SIZE, self._max_frame_size)
            self._settled = True
            self._socket.sendall(frame(_SETTINGS, _ACK, 0))
        elif kind == _WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload)
        elif kind == _PING and not flags & _ACK:
            self._socket.sendall(frame(_PING, _ACK, 0, payload))
        elif kind in (_RST_STREAM, _GOAWAY):
            raise ConnectionError(f"the server broke off: frame type {kind}, {payload!r}")
        elif kind in (_HEADERS, _DATA) and flags & _END_STREAM:
            self.ended += 1


if __name__ == "__main__":
    feed_from_command_line(__doc__, Source)
