"""A peer on a plain socket that says what it is told to, and reads what comes back."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.hostile import frames
from tests.hostile.frames import Frame
from tests.hostile.hpack import Decoder

PATIENCE_SECONDS = 20


class Peer:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.decoder = Decoder()
        self.frames: list[Frame] = []
        self.ended = False
        self._received = b""

    def send(self, data: bytes) -> None:
        """Send, as far as the server still listens."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def read_until(self, enough: Callable[[Frame], bool]) -> Frame:
        """The first new frame for which `enough` holds. Raises ConnectionError where the server hangs up before."""
        while not self.ended:
            for frame in self._next_frames():
                if enough(frame):
                    return frame
        raise ConnectionError(f"the server hung up after {self.frames}")

    def read_to_end(self) -> list[Frame]:
        """All frames, the earlier ones included, once the server has hung up."""
        while not self.ended:
            for _ in self._next_frames():
                pass
        return self.frames

    def goaway_code(self) -> int:
        """The error that the server named last before it hung up."""
        codes = [frame.error_code for frame in self.read_to_end() if frame.type == frames.GOAWAY]
        assert codes, "the server hung up without a word"
        return codes[-1]

    def reset_code(self, stream_id: int) -> int:
        """The error that a stream is reset with."""
        return self.read_until(lambda f: f.type == frames.RST_STREAM and f.stream_id == stream_id).error_code

    def trailers(self, stream_id: int) -> dict[bytes, bytes]:
        """The header block that ends this stream. Its connection's blocks must be read in order, each once."""
        while True:
            frame = self.read_until(lambda f: f.type == frames.HEADERS)
            fields = dict(self.decoder.decode(frame.payload))
            if frame.stream_id == stream_id and frame.flags & frames.END_STREAM:
                return fields

    def status(self, stream_id: int) -> int:
        """The gRPC status of a call."""
        return int(self.trailers(stream_id)[b"grpc-status"])

    def close(self) -> None:
        self.socket.close()

    def _next_frames(self) -> Iterator[Frame]:
        """The frames that have come, or those of one more read."""
        if not any(frames.parse(self._received)):
            self._read()
        for frame in frames.parse(self._received):
            self._received = self._received[9 + len(frame.payload) :]
            self.frames.append(frame)
            yield frame

    def _read(self) -> None:
        try:
            chunk = self.socket.recv(1 << 18)
        except ConnectionResetError:
            chunk = b""
        self.ended = not chunk
        self._received += chunk


@contextmanager
def connected(port: int) -> Iterator[Peer]:
    peer = Peer(port)
    try:
        yield peer
    finally:
        peer.close()
