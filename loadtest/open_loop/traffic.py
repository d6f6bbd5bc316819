"""The seam between when requests are sent and how they travel. `grpc_traffic` and `http_traffic` implement it."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Protocol

CONNECT_SECONDS = 10.0


class Traffic(Protocol):
    """What is sent, where to, and over how many connections. Can be pickled."""

    @property
    def connections(self) -> int: ...

    def connect(self) -> Connection:
        """A new connection that is ready for requests. OSError where there is none to be had."""
        ...


class Connection(Protocol):
    """One connection, driven by whoever watches its socket, which does not block.

    Requests have numbers, given by the caller, which decide what of the traffic is sent.
    """

    @property
    def socket(self) -> socket.socket: ...

    @property
    def room(self) -> int:
        """How many requests it takes now; negative where the peer has lowered what it allows."""
        ...

    @property
    def unsent(self) -> bool:
        """Whether `flush` should be called as soon as the socket can be written to."""
        ...

    @property
    def in_flight(self) -> Iterable[int]:
        """The numbers of the requests that it has taken and that have not ended."""
        ...

    def send(self, number: int, count: int) -> None:
        """Takes the requests `number` and following, no more than there is room for."""
        ...

    def flush(self) -> None:
        """Writes what the socket takes."""
        ...

    def receive(self, answered: list[int], failed: list[int]) -> None:
        """Reads once, and appends the numbers of the requests that have ended.

        ConnectionError where the peer is gone: what is in flight will not be answered.
        """
        ...


def open_socket(address: str) -> socket.socket:
    """To "host:port", an IPv6 host in brackets."""
    host, _, port = address.rpartition(":")
    opened = socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


class Outgoing:
    """Bytes on their way to a socket that does not block, in order."""

    def __init__(self, to: socket.socket) -> None:
        self._socket = to
        self._waiting: list[memoryview] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends what the socket takes and keeps a copy of the rest. An error of the socket is seen when it is read."""
        if self._waiting:
            self._waiting.append(memoryview(bytes(data)))
            return
        sent = self._send(memoryview(data))
        if sent < len(data):
            self._waiting.append(memoryview(bytes(memoryview(data)[sent:])))

    def flush(self) -> None:
        while self._waiting:
            first = self._waiting[0]
            sent = self._send(first)
            if sent < len(first):
                self._waiting[0] = first[sent:]
                return
            del self._waiting[0]

    def _send(self, data: memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)
