"""Feeds a gRPC server: one framed request over and over, made once and patched, so that the client costs little.

python -m loadtest.floors.http2_source --port PORT --message FILE --messages N --connections N --in-flight N

Beside h2load, whose frames are 16 KiB and whose own CPU is a limit with large bodies: this sends frames as large as the
server allows. It reads no more of an answer than its end; who uses it compares the server's counts with what was sent.
"""

from __future__ import annotations

import socket

from loadtest import http2_frames as http2
from loadtest.floors.feeding import SILENCE_SECONDS, feed_from_command_line
from loadtest.target import INFER


class Source:
    """One connection to the server."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), SILENCE_SECONDS)
        self._unread = b""
        self._window = http2.FIRST_WINDOW
        self._max_frame_size = http2.FIRST_FRAME_SIZE
        self.ended = 0
        """Answers that have ended."""
        self._settled = False
        self._socket.sendall(http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0))
        while not self._settled:
            self._read()

    def close(self) -> None:
        self._socket.close()

    def feed(self, message: bytes, messages: int, in_flight: int) -> None:
        """Sends the framed message as one request each."""
        requests = http2.Requests(INFER, [message], self._max_frame_size)
        for sent in range(messages):
            while sent - self.ended >= in_flight or self._window < len(message):
                self._read()
            self._window -= len(message)
            self._socket.sendall(requests.one(2 * sent + 1, 0, first=sent == 0))
        while self.ended < messages:
            self._read()

    def _read(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the server has closed the connection")
        data = self._unread + data
        position = 0
        for kind, flags, stream, begin, position in http2.frames(data):
            self._take(kind, flags, stream, data[begin:position])
        self._unread = data[position:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == http2.SETTINGS and not flags & http2.ACK:
            self._max_frame_size = http2.settings(payload).get(http2.MAX_FRAME_SIZE, self._max_frame_size)
            self._settled = True
            self._socket.sendall(http2.frame(http2.SETTINGS, http2.ACK, 0))
        elif kind == http2.WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload)
        elif kind == http2.PING and not flags & http2.ACK:
            self._socket.sendall(http2.frame(http2.PING, http2.ACK, 0, payload))
        elif kind in (http2.RST_STREAM, http2.GOAWAY):
            raise ConnectionError(f"the server broke off: frame type {kind}, {payload!r}")
        elif kind in (http2.HEADERS, http2.DATA) and flags & http2.END_STREAM:
            self.ended += 1


if __name__ == "__main__":
    feed_from_command_line(__doc__, Source)
