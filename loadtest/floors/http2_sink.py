"""A gRPC server that does nothing: every call, whatever it asks, gets the same answer, made once and patched.

python -m loadtest.floors.http2_sink --answer-bytes N --ports-file FILE [--service-us N]

One thread and few µs a request, so that what limits is the generator. With `--service-us` each request is served for
that long, one after another, by the clock: a server whose capacity is known and that needs no processor for it.
"""

from __future__ import annotations

import argparse
import selectors
import signal
import socket
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from loadtest import http2_frames as http2
from loadtest.open_loop.player import take_timers_exactly
from loadtest.ready import say_ready

_READ_BYTES = 1 << 18
_REPLENISH_BYTES = 1 << 30
_SETTINGS = struct.pack(">HIHI", http2.MAX_CONCURRENT_STREAMS, 1 << 20, http2.INITIAL_WINDOW_SIZE, http2.LARGEST_WINDOW)
_HEAD = b"\x88\x0f\x10\x10application/grpc"  # :status 200 and content-type, from the static table
_TRAILERS = b"\x00\x0bgrpc-status\x010"


class Sink:
    """One connection."""

    def __init__(self, peer: socket.socket, answer: bytes) -> None:
        self._socket = peer
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

    def close(self) -> None:
        self._socket.close()

    def read(self) -> list[int]:
        """Reads once. Returns the streams whose requests are whole now; ConnectionError where the peer has gone."""
        received = self._socket.recv(_READ_BYTES)
        if not received:
            raise ConnectionError
        data = self._unread + received
        if not self._read_bytes:
            data = data[len(http2.PREFACE) :]
        self._read_bytes += len(received)
        streams: list[int] = []
        end = 0
        for kind, flags, stream, begin, end in http2.frames(data):
            if kind == http2.DATA and flags & http2.END_STREAM:
                streams.append(stream)
            elif kind in (http2.SETTINGS, http2.PING) and not flags & http2.ACK:
                payload = data[begin:end] if kind == http2.PING else b""
                self._socket.sendall(http2.frame(kind, http2.ACK, 0, payload))
        self._unread = data[end:]
        if self._read_bytes > _REPLENISH_BYTES:
            self._socket.sendall(http2.window_update(0, self._read_bytes))
            self._read_bytes = 1
        return streams

    def answer(self, streams: list[int]) -> None:
        """ConnectionError where the peer has gone."""
        out = []
        for stream in streams:
            for offset in self._offsets:
                struct.pack_into(">I", self._answer, offset, stream)
            out.append(bytes(self._answer))
        self._socket.sendall(b"".join(out))


class Server:
    """All connections, and the requests that are being served: one after another, each for as long."""

    def __init__(self, answer: bytes, service_seconds: float) -> None:
        self._answer, self._service_seconds = answer, service_seconds
        self._selector = selectors.SelectSelector()  # to the microsecond, where epoll counts milliseconds
        self._serving: deque[tuple[float, Sink, int]] = deque()
        """When each will have been served, on whose connection and stream; ascending."""

    def serve(self, listener: socket.socket) -> NoReturn:
        """Answers for ever."""
        self._selector.register(listener, selectors.EVENT_READ)
        while True:
            wait = max(0.0, self._serving[0][0] - time.perf_counter()) if self._serving else None
            for key, _ in self._selector.select(wait):
                if key.data is None:
                    peer, _ = listener.accept()
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._selector.register(peer, selectors.EVENT_READ, Sink(peer, self._answer))
                else:
                    self._read(key.fileobj, key.data)
            while self._serving and self._serving[0][0] <= time.perf_counter():
                _, sink, stream = self._serving.popleft()
                with suppress(ConnectionError):
                    sink.answer([stream])

    def _read(self, peer: Any, sink: Sink) -> None:
        try:
            streams = sink.read()
            if not self._service_seconds:
                sink.answer(streams)
                return
        except ConnectionError:
            self._selector.unregister(peer)
            sink.close()
            return
        served = max(time.perf_counter(), self._serving[-1][0] if self._serving else 0.0)
        for stream in streams:
            served += self._service_seconds
            self._serving.append((served, sink, stream))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answer-bytes", type=int, default=100, help="length of the answer's message (%(default)s)")
    parser.add_argument("--service-us", type=float, default=0.0, help="µs that it serves a request, one at a time")
    parser.add_argument("--ports-file", type=Path, required=True, help="where the chosen port is written")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    take_timers_exactly()
    with socket.create_server(("127.0.0.1", 0)) as port:
        say_ready(arguments.ports_file, grpc=port.getsockname()[1])
        Server(bytes(arguments.answer_bytes), arguments.service_us / 1e6).serve(port)
