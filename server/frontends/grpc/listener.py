"""The gRPC engine on libnghttp2: sockets, their timers, and an orderly end. Calls are `connection`'s affair."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf
from typing import cast

from server.frontends.call_counts import CallCounts
from server.frontends.calls import MethodTable
from server.frontends.compression import FASTEST
from server.frontends.grpc import http2
from server.frontends.grpc.connection import Connection
from server.frontends.grpc.dispatcher import Dispatcher
from server.frontends.grpc.options import GrpcOptions
from server.frontends.grpc.pings import PingGuard
from server.frontends.sockets import BACKLOG, Agenda, ReadTurns, stop_listening
from server.frontends.tls import TlsConfig, peer_of
from server.metrics.snapshots import TransportSnapshot

log = logging.getLogger(__name__)

UNIX_PREFIX = "unix:"
PREFIX_BYTES = 5
MAX_HELD_BYTES = 1 << 30
"""By one connection, however much memory there is: requests on their way, and answers that it does not read."""
HANDSHAKE_BYTES = 24 + 9
"""The client's preface and its first SETTINGS frame (RFC 9113, 3.4): less is no HTTP/2 connection yet."""

GOAWAY_SECONDS = 0.1
"""Between the first word of the end and the last, so that requests on their way still come in (RFC 9113, 6.8)."""
TOO_MANY_PINGS = b"too_many_pings"
"""What gRPC clients look for in a GOAWAY, to ping less often from then on (gRFC A8)."""
PROGRESS_BYTES = 16 << 10
"""A peer that takes this much of its answers within a request timeout is slow, but not stuck."""


DEFLATE_LEVELS = (FASTEST, FASTEST, 3, 6)
"""zlib's, for each level of compression that a server may have. Those above 6 take ten times as long, for nothing."""


class Nghttp2Engine:
    """Serves a method table on one address."""

    def __init__(self, methods: MethodTable, options: GrpcOptions) -> None:
        """Raises `OSError` where TLS files cannot be used."""
        self.options = options
        self.loop = asyncio.get_running_loop()
        # Many small messages of a stream may come in one read.
        max_body_bytes = max(options.max_message_bytes + PREFIX_BYTES, http2.INPUT_BYTES)
        self.dispatcher = Dispatcher(
            methods,
            self.loop.call_soon,
            max_message_bytes=options.max_message_bytes,
            limits=http2.Limits(
                max_body_bytes=max_body_bytes,
                max_held_bytes=max(max_body_bytes, min(MAX_HELD_BYTES, options.memory.connection_share)),
                max_shared_bytes=options.memory.limit,
            ),
            memory=options.memory,
            failures=options.failures,
            deflate_level=DEFLATE_LEVELS[options.compression_level],
            in_background=self._in_background,
        )
        self._deflating = ThreadPoolExecutor(1, thread_name_prefix="deflate")  # starts with the first such answer
        self.sockets: set[_Socket] = set()
        self.opened = 0
        self.agenda = Agenda(self.loop, self.sockets)
        self._tls = TlsConfig(options.tls, ("h2",)) if options.tls else None
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()

    @property
    def calls(self) -> CallCounts:
        """Calls by method and status."""
        return self.dispatcher.calls

    def transport(self) -> TransportSnapshot:
        """Connections and bytes, as a scrape finds them."""
        return TransportSnapshot(
            len(self.sockets), self.opened, self.dispatcher.received_bytes, self.dispatcher.sent_bytes
        )

    async def start(self, address: str, port: int) -> int:
        """Listen on a host name, an IPv4 or IPv6 address, or `unix:/path`. Returns the port, 0 for a path.

        Raises `OSError` where the address cannot be had.
        """
        context = self._tls.context if self._tls else None
        try:
            if address.startswith(UNIX_PREFIX):
                path = address.removeprefix(UNIX_PREFIX)
                self._server = await self.loop.create_unix_server(self._accept, path, ssl=context, backlog=BACKLOG)
                return 0
            self._server = await self.loop.create_server(
                self._accept, address, port, ssl=context, backlog=BACKLOG, reuse_port=self.options.reuse_port or None
            )
        except OSError as error:
            where = address if address.startswith(UNIX_PREFIX) else f"{address}:{port}"
            raise OSError(f"cannot listen on {where} for gRPC: {error.strerror or error}") from error
        return cast("int", self._server.sockets[0].getsockname()[1])

    async def stop(self, grace_seconds: float) -> None:
        """Take no new calls, let those in progress end, and cut off what is left after the grace."""
        if self._server:
            context = self._tls.context if self._tls else None
            await stop_listening(self._server, self._accept, context, min(GOAWAY_SECONDS, grace_seconds))
        for final in (False, True):
            for peer in tuple(self.sockets):
                peer.connection.drain(final=final)
            if not final and self.sockets:
                await asyncio.sleep(min(GOAWAY_SECONDS, grace_seconds))
        try:
            async with asyncio.timeout(grace_seconds):
                while self.sockets:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            log.warning("%d connections are cut off: their calls took too long", len(self.sockets))
            for peer in tuple(self.sockets):
                peer.transport.abort()
        self.agenda.close()
        self._deflating.shutdown(wait=False, cancel_futures=True)

    def _in_background(self, work: Callable[[], bytes], then: Callable[[bytes], None]) -> None:
        future = self.loop.run_in_executor(self._deflating, work)
        future.add_done_callback(lambda done: None if done.cancelled() else then(done.result()))

    def forget(self, peer: _Socket) -> None:
        """A socket is gone."""
        self.sockets.discard(peer)
        self._changed.set()

    def _accept(self) -> _Socket:
        return _Socket(self)


class _Socket(asyncio.BufferedProtocol):
    """One peer: its transport, its connection, and what it has to do by when."""

    __slots__ = (
        "_answers_seen", "_asked_at", "_due", "_engine", "_gone", "_guard", "_heard_at", "_offered", "_old_since",
        "_opened", "_paused_since", "_pings_seen", "_received_before", "_refusing", "_sent_when_stuck", "_stuck_since",
        "_turns", "connection", "transport",
    )  # fmt: skip

    transport: asyncio.Transport
    connection: Connection

    def __init__(self, engine: Nghttp2Engine) -> None:
        options = engine.options
        self._engine = engine
        self._guard = PingGuard(
            options.min_recv_ping_interval_without_data,
            options.max_ping_strikes,
            permit_without_calls=options.keepalive_permit_without_calls,
        )
        self._opened = time.monotonic()
        self._due = inf
        self._gone = False
        self._pings_seen = 0
        self._answers_seen = 0
        self._heard_at = self._opened  # when its silence was last looked at
        self._received_before = 0  # how much had come by then
        self._sent_when_stuck = 0
        self._refusing = False  # new streams, for its age
        self._offered = 0  # how much the read that comes next may bring
        # Since when something lasts; 0.0 while it does not.
        self._asked_at = 0.0  # it was asked whether it lives
        self._stuck_since = 0.0  # it has left something unfinished
        self._paused_since = 0.0  # its socket takes nothing
        self._old_since = 0.0  # it was told to leave for its age

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._turns = ReadTurns(self.transport, self._engine.loop)
        self.connection = Connection(
            self._engine.dispatcher, self.transport.write, self.transport.close, peer_of(transport)
        )
        self._engine.sockets.add(self)
        self._engine.opened += 1
        secured = self.transport.get_extra_info("ssl_object")
        if secured is not None and secured.selected_alpn_protocol() != "h2":
            log.debug("a TLS peer did not choose h2 by ALPN")
            self.transport.close()
            return
        self.connection.mark_dirty()
        self._look_again(min(when for when, _ in self._deadlines()))

    def get_buffer(self, sizehint: int) -> memoryview:
        buffer = self.connection.read_buffer()
        self._offered = len(buffer)
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        connection = self.connection
        try:
            connection.receive(nbytes)
        except http2.Http2Error as error:
            log.debug("a peer broke HTTP/2: %s", error)
            connection.flush()
            self.transport.close()
            return
        if not connection.unfinished:
            self._stuck_since = 0.0
        else:
            self._populate(*connection.unwritten())
            if not self._stuck_since:
                self._set_stuck(time.monotonic())
        if nbytes == self._offered:
            self._turns.filled(nbytes)
        if connection.pings != self._pings_seen:
            self._on_pings()
        if connection.next_deadline < self._due:
            self._look_again(connection.next_deadline)

    def _populate(self, address: int, length: int) -> None:
        """Read on when the pages of a large body are there."""
        if length:
            engine = self._engine
            self._turns.wait_for(partial(engine.options.populator.populate, engine.loop, address, length))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self.connection.closed()
        self._engine.forget(self)

    def pause_writing(self) -> None:
        self.connection.set_writable(False)
        self._turns.pause_reading()
        self._paused_since = time.monotonic()
        self._look_again(self._paused_since + self._engine.options.request_timeout)

    def resume_writing(self) -> None:
        self._paused_since = 0.0
        self._turns.resume_reading()
        self.connection.set_writable(True)

    def check(self, now: float) -> None:
        """Do what is due. Called by the agenda, possibly for a time that does not matter any more."""
        if self._gone or now < self._due:
            return
        for when, act in tuple(self._deadlines()):
            if when <= now and not self.transport.is_closing():
                act(now)
        self._due = inf
        if not self.transport.is_closing():
            self._look_again(min(when for when, _ in self._deadlines()))

    def _deadlines(self) -> Iterator[tuple[float, Callable[[float], None]]]:
        """What will have to be done when, as things stand."""
        options = self._engine.options
        if self.connection.bytes_received < HANDSHAKE_BYTES:
            yield self._opened + options.handshake_timeout, self._on_no_handshake
        yield self.connection.next_deadline, self.connection.end_late_streams
        if self._paused_since:
            yield self._paused_since + options.request_timeout, self._on_no_reading
        if self._stuck_since:
            yield self._stuck_since + options.request_timeout, self._on_stuck
        if self._asked_at:
            yield self._asked_at + options.keepalive_timeout, self._on_no_pong
        else:
            yield self._heard_at + options.keepalive_time, self._on_silence
        if not self._old_since:
            yield self._opened + options.max_connection_age, self._on_age
        else:
            if not self._refusing:
                yield self._old_since + GOAWAY_SECONDS, self._on_last_word
            yield self._old_since + options.max_connection_age_grace, self._on_grace_over

    def _on_no_handshake(self, _: float) -> None:
        self._cut_off("it connected and did not say what HTTP/2 begins with")

    def _on_no_reading(self, _: float) -> None:
        self._cut_off("its socket takes no more of its answers")

    def _on_stuck(self, now: float) -> None:
        self.connection.fail_late_requests(now - self._engine.options.request_timeout)
        self.connection.flush()  # what remains unread now is the peer's doing
        sent = self.connection.bytes_sent - self._sent_when_stuck
        if self.connection.unread and sent < PROGRESS_BYTES:
            self.connection.refuse(http2.ENHANCE_YOUR_CALM)
            self._cut_off("it left a request or an answer unfinished")
            return
        self._set_stuck(now if self.connection.unfinished else 0.0)

    def _on_silence(self, now: float) -> None:
        """Ask a peer that has said nothing since the last look whether it lives."""
        heard = self.connection.bytes_received != self._received_before
        self._received_before = self.connection.bytes_received
        self._heard_at = now
        if not heard and (self.connection.open_calls or self._engine.options.keepalive_permit_without_calls):
            self._asked_at = now
            self.connection.ping()

    def _on_no_pong(self, now: float) -> None:
        self._asked_at = 0.0
        self._heard_at = now
        if self.connection.bytes_received == self._received_before:
            self._cut_off("it did not answer a keepalive ping")

    def _on_age(self, now: float) -> None:
        self._old_since = now
        self.connection.drain(final=False)

    def _on_last_word(self, _: float) -> None:
        self._refusing = True
        self.connection.drain(final=True)

    def _on_grace_over(self, _: float) -> None:
        self._cut_off("its calls outlasted the connection's age")

    def _on_pings(self) -> None:
        new = self.connection.pings - self._pings_seen
        self._pings_seen += new
        answer_frames = self.connection.answer_frames
        if answer_frames != self._answers_seen:
            self._answers_seen = answer_frames
            self._guard.data_sent()
        now, open_calls = time.monotonic(), self.connection.open_calls
        if not all(self._guard.allow(now, open_calls=open_calls) for _ in range(new)):  # one read may bring many
            self.connection.refuse(http2.ENHANCE_YOUR_CALM, TOO_MANY_PINGS)
            self._cut_off("it pings too often")

    def _set_stuck(self, since: float) -> None:
        self._stuck_since = since
        self._sent_when_stuck = self.connection.bytes_sent
        if since:
            self._look_again(since + self._engine.options.request_timeout)

    def _cut_off(self, reason: str) -> None:
        log.debug("a peer is cut off: %s", reason)
        self.connection.flush()
        if self._paused_since:
            self.transport.abort()  # it would wait for ever to be sent
        else:
            self.transport.close()

    def _look_again(self, when: float) -> None:
        if when < self._due:
            self._due = when
            self._engine.agenda.add(when, self)
