"""Any routes on real sockets on loopback, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any, TypeVar

import pytest
import uvloop

from server.frontends.rest.exchange import Content, Exchange, Route
from server.frontends.rest.listener import HttpListener
from server.frontends.rest.options import HttpOptions
from server.ledger import Account
from server.tensors import Buffer

T = TypeVar("T")

PATIENCE_SECONDS = 30
"""How long a test waits for what must happen."""


class Held:
    """A route whose requests wait until the test answers them."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.gone = threading.Event()
        self.exchanges: list[Exchange] = []

    def handle(self, exchange: Exchange, _: Buffer) -> None:
        self.exchanges.append(exchange)
        exchange.on_cancel = self.gone.set
        self.arrived.release()

    def wait(self) -> Exchange:
        """The next request, once it is there."""
        assert self.arrived.acquire(timeout=PATIENCE_SECONDS)
        return self.exchanges.pop(0)


def echo(exchange: Exchange, body: Buffer) -> None:
    exchange.respond(HTTPStatus.OK, Content(bytes(body), ()))


class Host:
    """An event loop with listeners on it."""

    def __init__(self) -> None:
        self.held = Held()
        self.account = Account("http")
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="host", daemon=True)
        self._thread.start()
        self._listeners: list[HttpListener] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """A coroutine's result, from the listeners' loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_SECONDS)

    def begin(self, work: Coroutine[Any, Any, T]) -> Callable[[], T]:
        """Begin a coroutine on the listeners' loop, and return what waits for its result."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        return lambda: future.result(PATIENCE_SECONDS)

    def do(self, action: Callable[..., T], *arguments: Any) -> T:
        """The result of a call made on the listeners' loop."""

        async def call() -> T:
            return action(*arguments)

        return self.run(call())

    def start(self, **options: Any) -> tuple[HttpListener, int]:
        """A listener on a free port, and the port; `options` are fields of `HttpOptions`."""
        return self.run(self._start(0, HttpOptions(**options)))

    def start_at(self, port: int, **options: Any) -> int:
        """As `start`, on a port. Raises `OSError` where it cannot be had."""
        return self.run(self._start(port, HttpOptions(**options)))[1]

    def close(self) -> None:
        for listener in self._listeners:
            self.run(listener.stop())
            assert listener.dispatcher.memory.used == 0
        assert list(self.account.problems()) == []
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_SECONDS)
        self._loop.close()

    async def _start(self, port: int, options: HttpOptions) -> tuple[HttpListener, int]:
        routes: Iterable[Route] = [
            Route("POST", "echo", echo, "", account=self.account),
            Route("POST", "held", self.held.handle, "", account=self.account),
        ]
        listener = HttpListener(routes, options)
        self._listeners.append(listener)
        return listener, await listener.start("127.0.0.1", port)


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


class Peer:
    """One connection that says what it is told to."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        """Send, as far as the server still listens."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def read_to_end(self) -> bytes:
        """All that comes until the server hangs up."""
        received = b""
        with suppress(ConnectionResetError):
            while part := self.socket.recv(65536):
                received += part
        return received

    def read_status(self) -> int:
        """The status of the next answer, of which everything has been read then."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._read(1)
        length = next(
            int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")
        )
        while length:
            length -= len(self._read(length))
        return int(head.split()[1])

    def _read(self, length: int) -> bytes:
        part = self.socket.recv(length)
        assert part, "the server hung up"
        return part


@pytest.fixture
def connect() -> Iterator[Callable[[int], Peer]]:
    """Connections, which are closed after the test."""
    peers: list[Peer] = []

    def open_one(port: int) -> Peer:
        peers.append(Peer(port))
        return peers[-1]

    yield open_one
    for peer in peers:
        peer.socket.close()
