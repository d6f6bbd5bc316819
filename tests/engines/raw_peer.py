"""A peer that speaks bare HTTP/2 frames: for what the official client hides or never does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import NamedTuple

from tests.engines.hosting import PATIENCE_SECONDS, Server

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ACK = 1
NO_ERROR, ENHANCE_YOUR_CALM = 0, 11


class Frame(NamedTuple):
    """RFC 9113, section 4.1."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes

    def encode(self) -> bytes:
        head = len(self.payload).to_bytes(3, "big") + bytes([self.kind, self.flags])
        return head + self.stream_id.to_bytes(4, "big") + self.payload


class RawPeer:
    """A connection that has said hello and been heard: a server that stops before that owes it nothing."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS)
        self._socket.sendall(PREFACE + Frame(SETTINGS, 0, 0, b"").encode())
        assert self.next_of(SETTINGS).flags == 0
        assert self.next_of(SETTINGS).flags == ACK

    def send(self, *frames: Frame) -> None:
        self._socket.sendall(b"".join(frame.encode() for frame in frames))

    def next_of(self, kind: int) -> Frame:
        """The next frame of this kind; others are passed over."""
        return next(frame for frame in self.frames() if frame.kind == kind)

    def frames(self) -> Iterator[Frame]:
        """What comes, to the end of the connection. Pings are answered."""
        while head := self._read(9):
            payload = self._read(int.from_bytes(head[:3], "big"))
            frame = Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), payload)
            if frame.kind == PING and not frame.flags & ACK:
                self.send(frame._replace(flags=ACK))
            yield frame

    def close(self) -> None:
        self._socket.close()

    def _read(self, length: int) -> bytes:
        """So many bytes, or fewer at the end."""
        data = b""
        while len(data) < length:
            try:
                part = self._socket.recv(length - len(data))
            except ConnectionResetError:
                part = b""
            if not part:
                return b""
            data += part
        return data


def goaway_code(frame: Frame) -> int:
    """The error code of a GOAWAY frame."""
    return int.from_bytes(frame.payload[4:8], "big")
