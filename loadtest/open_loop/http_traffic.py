"""The same request, or a few in turn, over HTTP/1.1: as many connections as may be in flight, kept alive.

An answer has a 2xx status; any other status is a refusal. Bodies are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import httptools

from loadtest.open_loop.traffic import Outgoing, open_socket

_READ_BYTES = 1 << 18
_SUCCESSES = range(200, 300)


@dataclass(frozen=True)
class HttpTraffic:
    """Requests to one path at `address` ("host:port", plain text)."""

    address: str
    path: str
    bodies: tuple[bytes, ...]
    """Sent in turn."""
    headers: tuple[tuple[str, str], ...] = ()
    """Besides Host and Content-Length."""
    connections: int = 64
    """Each carries a request at a time."""
    method: str = "POST"

    def requests(self) -> list[bytes]:
        """As they travel."""
        fields = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        start = f"{self.method} {self.path} HTTP/1.1\r\nHost: {self.address}\r\n{fields}"
        return [f"{start}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body for body in self.bodies]

    def connect(self) -> HttpConnection:
        return HttpConnection(self)


class HttpConnection:
    """One connection. Where the server will not keep it alive, the next request finds a new one in its place."""

    def __init__(self, traffic: HttpTraffic) -> None:
        self.room = 1
        self.in_flight: Iterable[int] = ()
        self.socket = open_socket(traffic.address)
        self.socket.setblocking(False)
        self._requests = traffic.requests()
        self._out = Outgoing(self.socket)
        self._input = memoryview(bytearray(_READ_BYTES))
        self._parser = httptools.HttpResponseParser(self)
        self._complete = self._keep_alive = False

    @property
    def unsent(self) -> bool:
        return bool(self._out)

    def send(self, number: int, count: int) -> None:
        self.room -= count
        self.in_flight = (number,)
        self._out.write(self._requests[number % len(self._requests)])

    def flush(self) -> None:
        self._out.flush()

    def receive(self, answered: list[int], failed: list[int]) -> None:
        count = self.socket.recv_into(self._input)
        if not count:
            raise ConnectionError("the server has closed the connection")
        try:
            self._parser.feed_data(self._input[:count])
        except httptools.HttpParserError as error:
            raise ConnectionError(f"the server does not speak HTTP/1.1: {error}") from error
        if self._complete:
            self._complete = False
            ended = answered if self._parser.get_status_code() in _SUCCESSES else failed
            ended.extend(self.in_flight)
            self.in_flight = ()
            if not self._keep_alive:
                raise ConnectionError("the server has ended the connection")
            self._parser = httptools.HttpResponseParser(self)
            self.room = 1

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._complete = self._parser.get_status_code() >= _SUCCESSES.start  # not where it is 100 Continue
        self._keep_alive = self._parser.should_keep_alive()
