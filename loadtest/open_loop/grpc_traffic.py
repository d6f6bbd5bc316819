"""Unary gRPC calls over HTTP/2, by hand: few µs of Python a request, since frames are patched and not made.

An answer is a message; what ends without one is a refusal (a gRPC status alone). What the message says is not looked
at: whoever uses this checks one answer with the official client first, and compares the server's own counts afterwards.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from loadtest import http2_frames as http2
from loadtest.open_loop.traffic import Outgoing, open_socket

_READ_BYTES = 1 << 18
_MANY_BYTES = 1 << 20
"""Made at a time where many requests are due."""
_REPLENISH_BYTES = 1 << 30
_MESSAGE, _OVER = 1, 2
"""Of a stream's state, or'ed."""


@dataclass(frozen=True)
class GrpcTraffic:
    """Calls of one method at `address` ("host:port", plain text)."""

    address: str
    path: str
    """/package.Service/Method"""
    messages: tuple[bytes, ...]
    """Framed (five bytes and the message), all of one length; sent in turn."""
    connections: int = 4

    def __post_init__(self) -> None:
        if len({len(message) for message in self.messages}) != 1:
            raise ValueError("the messages of an open loop must be of one length")

    def connect(self) -> GrpcConnection:
        return GrpcConnection(self)


class GrpcConnection:
    """A connection, and its streams in the order of their opening: stream n is at n // 2."""

    def __init__(self, traffic: GrpcTraffic) -> None:
        self.room = 0
        self.socket = open_socket(traffic.address)
        self._out = Outgoing(self.socket)
        self._traffic = traffic
        self._message_bytes = len(traffic.messages[0])
        self._numbers: list[int] = []
        self._state = bytearray()
        self._input = bytearray(_READ_BYTES)
        self._view = memoryview(self._input)
        self._kept = 0  # bytes of a frame that is not whole, at the beginning of the input
        self._taken = 0  # bytes of answers since the last window update
        self._window = http2.FIRST_WINDOW
        self._stream_window = http2.FIRST_WINDOW
        self._streams = 0
        self._max_frame_size = 0
        self._leaving = False
        self._waiting: dict[int, list[int]] = {}
        """By stream: bytes of its message that were sent, and how many more its window lets pass."""
        self.socket.sendall(http2.HELLO)
        while not self._streams:
            self.receive([], [])
        self.socket.setblocking(False)

    @property
    def unsent(self) -> bool:
        return bool(self._out)

    @property
    def in_flight(self) -> list[int]:
        return [number for number, state in zip(self._numbers, self._state, strict=True) if state < _OVER]

    def send(self, number: int, count: int) -> None:
        size = self._message_bytes
        while count:
            stream = 2 * len(self._numbers) + 1
            if self._waiting or size > self._window or size > self._stream_window:
                taken = 1
                self._out.write(self._requests.head(stream, first=stream == 1))
                self._waiting[stream] = [0, self._stream_window]
            elif count == 1 or stream == 1:
                taken = 1
                self._window -= size
                self._out.write(self._requests.one(stream, number, first=stream == 1))
            else:
                taken = min(count, self._window // size, max(1, _MANY_BYTES // size))
                self._window -= taken * size
                self._out.write(self._requests.many(stream, number, taken).reshape(-1).data)
            self._numbers.extend(range(number, number + taken))
            self._state.extend(bytes(taken))
            self.room -= taken
            number += taken
            count -= taken
        if self._waiting:
            self._send_waiting()

    def flush(self) -> None:
        self._out.flush()

    def receive(self, answered: list[int], failed: list[int]) -> None:
        count = self.socket.recv_into(self._view[self._kept :])
        if not count:
            raise ConnectionError("the server has closed the connection")
        available = self._kept + count
        unpack, data, state, numbers = http2.FRAME.unpack_from, self._input, self._state, self._numbers
        position = taken = ended = 0
        while available - position >= 9:
            high, low, kind, flags, stream = unpack(data, position)
            end = position + 9 + (high << 16 | low)
            if end > available:
                break
            if kind == 0:  # DATA
                taken += end - position - 9
                if low or high:
                    state[stream >> 1] |= _MESSAGE
            elif kind != 1:  # not HEADERS either
                self._control(kind, flags, stream, bytes(data[position + 9 : end]), failed)
            if kind <= 1 and flags & 1:  # END_STREAM
                index = stream >> 1
                if stream in self._waiting:
                    del self._waiting[stream]
                    self._out.write(http2.frame(http2.RST_STREAM, 0, stream, struct.pack(">I", http2.CANCEL)))
                if state[index] < _OVER:
                    (answered if state[index] else failed).append(numbers[index])
                    state[index] = _OVER
                    ended += 1
            position = end
        self.room += ended
        self._kept = available - position
        if self._kept:
            data[: self._kept] = data[position:available]
        self._taken += taken
        if self._taken > _REPLENISH_BYTES:
            self._out.write(http2.window_update(0, self._taken))
            self._taken = 0
        if self._leaving and not self.in_flight:
            raise ConnectionError("the server has said goodbye")

    def _control(self, kind: int, flags: int, stream: int, payload: bytes, failed: list[int]) -> None:
        if kind == http2.SETTINGS and not flags & http2.ACK:
            self._settle(http2.settings(payload))
            self._out.write(http2.frame(http2.SETTINGS, http2.ACK, 0))
        elif kind == http2.WINDOW_UPDATE:
            more = int.from_bytes(payload)
            if stream == 0:
                self._window += more
            elif stream in self._waiting:
                self._waiting[stream][1] += more
            if self._waiting:
                self._send_waiting()
        elif kind == http2.PING and not flags & http2.ACK:
            self._out.write(http2.frame(http2.PING, http2.ACK, 0, payload))
        elif kind == http2.RST_STREAM:
            self._waiting.pop(stream, None)
            if self._state[stream >> 1] < _OVER:
                self._state[stream >> 1] = _OVER
                failed.append(self._numbers[stream >> 1])
                self.room += 1
        elif kind == http2.GOAWAY:
            self._leave(int.from_bytes(payload[:4]) & http2.LARGEST_WINDOW, failed)

    def _leave(self, last_stream: int, failed: list[int]) -> None:
        """The server takes no more streams, and none after `last_stream`: the others may still end."""
        self._leaving, self.room = True, -(1 << 31)
        for index in range((last_stream + 1) >> 1, len(self._numbers)):
            if self._state[index] < _OVER:
                self._state[index] = _OVER
                failed.append(self._numbers[index])

    def _settle(self, settings: dict[int, int]) -> None:
        if settings.get(http2.HEADER_TABLE_SIZE, 4096) < 4096:
            raise ConnectionError("the server indexes fewer headers than HTTP/2 has it do by default")
        streams = settings.get(http2.MAX_CONCURRENT_STREAMS, self._streams or 1 << 31)
        self.room += streams - self._streams
        self._streams = streams
        window = settings.get(http2.INITIAL_WINDOW_SIZE, self._stream_window)
        for waiting in self._waiting.values():
            waiting[1] += window - self._stream_window
        self._stream_window = window
        max_frame_size = settings.get(http2.MAX_FRAME_SIZE, self._max_frame_size or http2.FIRST_FRAME_SIZE)
        if max_frame_size != self._max_frame_size:
            self._max_frame_size = max_frame_size
            self._requests = http2.Requests(self._traffic.path, self._traffic.messages, max_frame_size)

    def _send_waiting(self) -> None:
        """Sends what the windows let pass, the oldest stream first."""
        for stream, state in list(self._waiting.items()):
            sent, window = state
            message = self._traffic.messages[self._numbers[stream >> 1] % len(self._traffic.messages)]
            until = min(len(message), sent + min(window, self._window))
            for start in range(sent, until, self._max_frame_size):
                part = message[start : min(until, start + self._max_frame_size)]
                last = start + len(part) == len(message)
                self._out.write(http2.frame(http2.DATA, http2.END_STREAM if last else 0, stream, part))
            self._window -= until - sent
            if until == len(message):
                del self._waiting[stream]
            else:
                self._waiting[stream] = [until, window - (until - sent)]


def framed(messages: Iterable[bytes]) -> tuple[bytes, ...]:
    """Uncompressed gRPC messages as they travel."""
    return tuple(struct.pack(">BI", 0, len(message)) + message for message in messages)
