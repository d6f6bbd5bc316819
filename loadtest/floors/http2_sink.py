"""A gRPC server that does nothing: every call, whatever it asks, gets the same answer, made once and patched.

python -m loadtest.floors.http2_sink --answer-bytes N --ports-file FILE [--service-us N]

One thread and few µs a request, so that what limits is the generator. With `--service-us` it is busy that long with
each request, one after another: a server whose capacity is known.
"""

from __future__ import annotations

import argparse
import selectors
import signal
import socket
import struct
import sys
import time
from pathlib import Path

from loadtest import http2_frames as http2
from loadtest.ready import say_ready

_READ_BYTES = 1 << 18
_REPLENISH_BYTES = 1 << 30
_SETTINGS = struct.pack(">HIHI", http2.MAX_CONCURRENT_STREAMS, 1 << 20, http2.INITIAL_WINDOW_SIZE, http2.LARGEST_WINDOW)
_HEAD = b"\x88\x0f\x10\x10application/grpc"  # :status 200 and content-type, from the static table
_TRAILERS = b"\x00\x0bgrpc-status\x010"


class Sink:
    """One connection."""

    def __init__(self, peer: socket.socket, answer: bytes, service_seconds: float) -> None:
        self._socket = peer
        self._service_seconds = service_seconds
        self._unread = b""
        self._read_bytes = 0
        parts = (
            http2.frame(http2.HEADERS, http2.END_HEADERS, 0, _HEAD),
            http2.frame(http2.DATA, 0, 0, struct.pack(">BI", 0, len(answer)) + answer),
            http2.frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, 0, _TRAILERS),
        )
        self._answer = bytearray(b"".join(parts))
        self._offsets = [sum(map(len, parts[:index])) + 5 for index in range(len(parts))]
        opening = http2.window_update(0, http2.LARGEST_WINDOW - http2.FIRST_WINDOW)
        peer.sendall(http2.frame(http2.SETTINGS, 0, 0, _SETTINGS) + opening)

    def read(self) -> bool:
        """Reads once and answers what is whole. False where the peer has gone."""
        try:
            received = self._socket.recv(_READ_BYTES)
            if not received:
                return False
            self._answer_all(received)
        except ConnectionError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()

    def _answer_all(self, received: bytes) -> None:
        data = self._unread + received
        if not self._read_bytes:
            data = data[len(http2.PREFACE) :]
        self._read_bytes += len(received)
        out: list[bytes] = []
        end = 0
        for kind, flags, stream, begin, end in http2.frames(data):
            if kind == http2.DATA and flags & http2.END_STREAM:
                out.append(self._answer_to(stream))
                if self._service_seconds:
                    self._socket.sendall(b"".join(out))
                    out.clear()
            elif kind in (http2.SETTINGS, http2.PING) and not flags & http2.ACK:
                payload = data[begin:end] if kind == http2.PING else b""
                out.append(http2.frame(kind, http2.ACK, 0, payload))
        self._unread = data[end:]
        if self._read_bytes > _REPLENISH_BYTES:
            out.append(http2.window_update(0, self._read_bytes))
            self._read_bytes = 1
        if out:
            self._socket.sendall(b"".join(out))

    def _answer_to(self, stream: int) -> bytes:
        if self._service_seconds:
            until = time.perf_counter() + self._service_seconds
            while time.perf_counter() < until:
                pass
        for offset in self._offsets:
            struct.pack_into(">I", self._answer, offset, stream)
        return bytes(self._answer)


def serve(answer: bytes, service_seconds: float, ports_file: Path) -> None:
    """Answers until SIGTERM. Writes {"grpc": port} to `ports_file` once it listens."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.create_server(("127.0.0.1", 0)) as listener, selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        say_ready(ports_file, grpc=listener.getsockname()[1])
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    peer, _ = listener.accept()
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(peer, selectors.EVENT_READ, Sink(peer, answer, service_seconds))
                elif not key.data.read():
                    selector.unregister(key.fileobj)
                    key.data.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answer-bytes", type=int, default=100, help="length of the answer's message (%(default)s)")
    parser.add_argument("--service-us", type=float, default=0.0, help="µs that each request keeps it busy")
    parser.add_argument("--ports-file", type=Path, required=True, help="where the chosen port is written")
    arguments = parser.parse_args()
    serve(bytes(arguments.answer_bytes), arguments.service_us / 1e6, arguments.ports_file)
