"""HTTP: sockets, their timers, and an orderly end. Requests are `connection`'s affair."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from functools import partial
from http import HTTPStatus
from math import inf
from typing import cast

from server.frontends.rest.connection import Connection
from server.frontends.rest.dispatcher import Dispatcher
from server.frontends.rest.exchange import Route
from server.frontends.rest.options import HttpOptions
from server.frontends.sockets import BACKLOG, READ_BYTES, Agenda, ReadTurns, stop_listening
from server.frontends.tls import TlsConfig, peer_of
from server.metrics.snapshots import HttpSnapshot, TransportSnapshot
from server.pages import POPULATED_BYTES, address_of

log = logging.getLogger(__name__)

PROGRESS_BYTES = 16 << 10
"""A peer that moves this much within a timeout is slow, but not stuck."""
LINGER_SECONDS = 2.0
"""How long a peer that was refused may go on sending before its connection is cut off."""
LAST_REQUESTS_SECONDS = 0.1
"""Between the first word of the end and the last, so that requests on their way still come in."""


class HttpListener:
    """Serves routes on one address."""

    def __init__(self, routes: Iterable[Route], options: HttpOptions) -> None:
        """Raises `OSError` where TLS files cannot be used."""
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.dispatcher = Dispatcher(
            routes,
            call_soon=self.loop.call_soon,
            max_input_bytes=options.max_input_bytes,
            memory=options.memory,
            failures=options.failures,
        )
        self.sockets: set[_Socket] = set()
        self.opened = 0
        self.scratch = memoryview(bytearray(READ_BYTES))
        self.agenda = Agenda(self.loop, self.sockets)
        self._tls = TlsConfig(options.tls, ("http/1.1",)) if options.tls else None
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()

    def snapshot(self) -> HttpSnapshot:
        """What a scrape finds."""
        dispatcher = self.dispatcher
        transport = TransportSnapshot(len(self.sockets), self.opened, dispatcher.received_bytes, dispatcher.sent_bytes)
        return HttpSnapshot(dispatcher.snapshot(), transport)

    async def start(self, address: str, port: int) -> int:
        """Listen, and return the port. Raises `OSError` where the address cannot be had."""
        try:
            self._server = await self.loop.create_server(
                self._accept,
                address,
                port,
                ssl=self._tls.context if self._tls else None,
                backlog=BACKLOG,
                reuse_port=self.options.reuse_port or None,
            )
        except OSError as error:
            raise OSError(f"cannot listen on {address}:{port} for HTTP: {error.strerror or error}") from error
        return cast("int", self._server.sockets[0].getsockname()[1])

    def announce_stop(self) -> None:
        """From now on, each connection ends with the answers that are due on it."""
        self.dispatcher.draining = True

    async def drain(self, grace_seconds: float) -> None:
        """After `announce_stop`, wait until what is being asked is answered.

        Connections are still accepted, each for one request: for those who look how the server is.
        """
        if self.sockets:
            await asyncio.sleep(min(LAST_REQUESTS_SECONDS, grace_seconds))
        try:
            async with asyncio.timeout(grace_seconds):
                asking = {peer for peer in self.sockets if peer.connection.busy or peer.connection.arriving}
                while asking := asking & self.sockets:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            log.warning("HTTP requests took too long to be waited for")

    async def stop(self) -> None:
        """Close; what has no answer by now gets none."""
        if self._server:
            context = self._tls.context if self._tls else None
            await stop_listening(self._server, self._accept, context, LAST_REQUESTS_SECONDS)
        for peer in tuple(self.sockets):
            peer.connection.close_when_idle()
        try:
            async with asyncio.timeout(LAST_REQUESTS_SECONDS):
                while self.sockets:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            for peer in tuple(self.sockets):
                peer.transport.abort()
        self.agenda.close()

    def forget(self, peer: _Socket) -> None:
        """A socket is gone."""
        self.sockets.discard(peer)
        self._changed.set()

    def _accept(self) -> _Socket:
        return _Socket(self)


class _Socket(asyncio.BufferedProtocol):
    """One peer: its transport, its connection, and what it has to do by when."""

    __slots__ = (
        "_due", "_gone", "_heard_at", "_lingering", "_listener", "_offered", "_paused_since", "_received_before",
        "_requests_before", "_since", "_turns", "_unsent_before", "connection", "transport",
    )  # fmt: skip

    transport: asyncio.Transport
    connection: Connection

    def __init__(self, listener: HttpListener) -> None:
        self._listener = listener
        self._due = inf
        self._gone = False
        self._lingering = False  # it was refused, and may still be sending
        self._heard_at = time.monotonic()
        self._received_before = 0  # when its progress was last looked at
        self._requests_before = 0
        self._unsent_before = 0
        self._offered = 0  # how much the read that comes next may bring
        # Since when something lasts; 0.0 while it does not.
        self._since = 0.0  # a request is arriving, or a refused peer is waited for
        self._paused_since = 0.0  # its socket takes nothing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._turns = ReadTurns(self.transport, self._listener.loop)
        self.connection = Connection(
            self._listener.dispatcher, self.transport, self._turns, self._hang_up, peer_of(transport)
        )
        self._listener.sockets.add(self)
        self._listener.opened += 1
        self._since = self._heard_at  # a request, from the first moment on
        self._look_again(self._heard_at + self._listener.options.head_timeout)

    def get_buffer(self, sizehint: int) -> memoryview:
        body = self.connection.body_buffer()
        buffer = self._listener.scratch if body is None else body[:READ_BYTES]
        self._offered = len(buffer)
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        connection = self.connection
        self._heard_at = time.monotonic()
        if connection.body_buffer() is not None:
            connection.body_read(nbytes)
        else:
            connection.receive(bytes(self._listener.scratch[:nbytes]))
            body = connection.body_buffer()
            if body is not None and len(body) >= POPULATED_BYTES:
                self._populate(body)
        if nbytes == self._offered:
            self._turns.filled(nbytes)
        if self._lingering:
            return
        if connection.arriving:
            if not self._since or connection.requests != self._requests_before:
                self._since = self._heard_at
                self._received_before = connection.received_bytes
                self._requests_before = connection.requests
            self._look_again(self._due_at())
        elif self._since:
            self._since = 0.0
            self._look_again(self._due_at())

    def _populate(self, body: memoryview) -> None:
        """Read on when the pages of a large body are there."""
        populator, loop = self._listener.options.populator, self._listener.loop
        self._turns.wait_for(partial(populator.populate, loop, address_of(body), len(body)))

    def eof_received(self) -> bool:
        return False  # whoever stops sending has gone

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self.connection.closed()
        self._listener.forget(self)

    def pause_writing(self) -> None:
        self._paused_since = time.monotonic()
        self._unsent_before = self.transport.get_write_buffer_size()
        self.connection.set_unsent(self._unsent_before)
        self.connection.set_writable(False)
        self._look_again(self._due_at())

    def resume_writing(self) -> None:
        self._paused_since = 0.0
        self._heard_at = time.monotonic()
        self.connection.set_unsent(0)
        self.connection.set_writable(True)

    def check(self, now: float) -> None:
        """Do what is due. Called by the agenda, possibly for a time that does not matter any more."""
        if self._gone or now < self._due:
            return
        self._due = inf
        if self._due_at() <= now:
            self._on_due(now)
        if not self._gone and not self.transport.is_closing():
            self._look_again(self._due_at())

    def _hang_up(self, refused: bool) -> None:
        """Close. Were the socket closed on a peer that still sends, the system might throw the answer away before it is
        read (RFC 9112, 9.6)."""
        if refused and self.transport.can_write_eof():
            self.transport.write_eof()
            self._lingering, self._since = True, time.monotonic()
            self._look_again(self._due_at())
        else:
            self.transport.close()

    def _due_at(self) -> float:
        """When something is to be done, as things stand."""
        options = self._listener.options
        if self._paused_since:
            return self._paused_since + options.body_timeout
        if self._since:
            if self._lingering:
                return self._since + LINGER_SECONDS
            return self._since + (options.body_timeout if self.connection.body_arriving else options.head_timeout)
        return self._heard_at + options.idle_timeout

    def _on_due(self, now: float) -> None:
        connection = self.connection
        if self._paused_since:
            unsent = self.transport.get_write_buffer_size()
            connection.set_unsent(unsent)
            if unsent + PROGRESS_BYTES > self._unsent_before:
                log.debug("a peer is cut off: it does not read its answers")
                self.transport.abort()
            self._paused_since, self._unsent_before = now, unsent
        elif self._lingering:
            self.transport.abort()
        elif not self._since:
            if connection.busy:
                self._heard_at = now
            else:
                self.transport.close()
        elif connection.body_arriving and connection.received_bytes - self._received_before >= PROGRESS_BYTES:
            self._since, self._received_before = now, connection.received_bytes
        elif connection.received_bytes:
            self._since = now
            connection.fail(HTTPStatus.REQUEST_TIMEOUT, "the request took too long to arrive")
        else:
            self.transport.close()

    def _look_again(self, when: float) -> None:
        if when < self._due:
            self._due = when
            self._listener.agenda.add(when, self)
