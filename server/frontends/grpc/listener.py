"""The gRPC engine on libnghttp2: sockets, their timers, and an orderly end. Calls are `connection`'s affair."""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass
from typing import cast

from server.frontends.calls import MethodTable
from server.frontends.grpc import http2
from server.frontends.grpc.connection import Connection, Dispatcher

log = logging.getLogger(__name__)

UNIX_PREFIX = "unix:"


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Times in seconds."""

    max_message_bytes: int
    keepalive_time: float = 7200.0
    """Silence after which the peer is asked whether it still lives."""
    keepalive_timeout: float = 20.0
    """How long it may take to answer."""
    handshake_timeout: float = 20.0
    """How long a new connection may take to say anything."""
    request_timeout: float = 60.0
    """How long a request may take to arrive whole, and a socket to take what is sent."""
    goaway_seconds: float = 0.1
    """Between the first word of the end and the last, so that requests on their way still come in."""


class Nghttp2Engine:
    """Serves a method table on one address."""

    def __init__(self, methods: MethodTable, settings: ListenerSettings) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        limits = http2.Limits(max_body_bytes=settings.max_message_bytes + 5)
        self.dispatcher = Dispatcher(
            methods, self._loop.call_soon, max_message_bytes=settings.max_message_bytes, limits=limits
        )
        self.protocols: set[_Protocol] = set()
        self._server: asyncio.Server | None = None
        self._emptied: asyncio.Event = asyncio.Event()

    async def start(self, address: str, port: int) -> int:
        """Listen on a host name, an IPv4 or IPv6 address, or `unix:/path`. Returns the port, 0 for a path.

        Raises `OSError` where the address cannot be had.
        """
        try:
            if address.startswith(UNIX_PREFIX):
                path = address.removeprefix(UNIX_PREFIX)
                self._server = await self._loop.create_unix_server(self._protocol, path)
                return 0
            family = socket.AF_INET6 if ":" in address else socket.AF_UNSPEC
            self._server = await self._loop.create_server(self._protocol, address, port, family=family, backlog=4096)
        except OSError as error:
            raise OSError(f"cannot listen on {address}:{port} for gRPC: {error.strerror or error}") from error
        return cast("int", self._server.sockets[0].getsockname()[1])

    async def stop(self, grace_seconds: float) -> None:
        """Take no new calls, let those in progress end, and cut off what is left after the grace."""
        if self._server:
            self._server.close()
        for final in (False, True):
            for protocol in tuple(self.protocols):
                protocol.connection.drain(final=final)
            if not final and self.protocols:
                await asyncio.sleep(min(self._settings.goaway_seconds, grace_seconds))
        try:
            async with asyncio.timeout(grace_seconds):
                while self.protocols:
                    self._emptied.clear()
                    await self._emptied.wait()
        except TimeoutError:
            log.warning("%d connections are cut off: their calls took too long", len(self.protocols))
            for protocol in tuple(self.protocols):
                protocol.transport.abort()

    def forget(self, protocol: _Protocol) -> None:
        """A socket is gone."""
        self.protocols.discard(protocol)
        self._emptied.set()

    def _protocol(self) -> _Protocol:
        return _Protocol(self)


class _Protocol(asyncio.BufferedProtocol):
    """One socket."""

    transport: asyncio.Transport
    connection: Connection

    def __init__(self, engine: Nghttp2Engine) -> None:
        self._engine = engine

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.connection = Connection(self._engine.dispatcher, self.transport.write, self.transport.close)
        self._engine.protocols.add(self)
        self.connection.mark_dirty()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._engine.dispatcher.context.input_view

    def buffer_updated(self, nbytes: int) -> None:
        try:
            self.connection.receive(nbytes)
        except http2.Http2Error as error:
            log.debug("a peer broke HTTP/2: %s", error)
            self.connection.flush()
            self.transport.close()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.closed()
        self._engine.forget(self)

    def pause_writing(self) -> None:
        self.connection.set_writable(False)
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.connection.set_writable(True)
        self.transport.resume_reading()
