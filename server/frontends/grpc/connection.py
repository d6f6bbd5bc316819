"""gRPC calls over HTTP/2 connections, without a coroutine or a task per call.

One `Connection` per peer feeds `http2` and dispatches its events to methods; answers are gathered and flushed once per
turn of the event loop, so that a batch's answers leave in one write per connection. Knows no sockets: `listener` does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

from server.errors import AnswersUnread, ConvoyError, RequestTooLarge
from server.frontends.calls import NOBODY, Peer, StatusCode
from server.frontends.grpc import framing, http2, wire
from server.frontends.grpc.dispatcher import Dispatcher
from server.frontends.grpc.http2 import (
    CLOSED,
    END,
    HEAD,
    NO_ROOM,
    SHORT,
    TOO_LARGE,
    Header,
    HeaderBlock,
    Http2Connection,
)
from server.frontends.grpc.http2_calls import UnaryCall, UnaryRoute
from server.frontends.grpc.http2_streams import StreamCall
from server.frontends.grpc.wire import Refusal
from server.memory_budget import SMALL_BYTES
from server.tensors import Buffer

log = logging.getLogger(__name__)

WHOLE = http2.HEAD | http2.BODY | http2.END
"""What most events are: a request that came at once."""

MAX_BROKEN_STREAMS = 1000
"""A peer that makes us break off so many of its streams does so on purpose (CVE-2025-8671)."""
FLUSH_BYTES = 1 << 20
"""A peer that reads quickly is sent no more before it is others' turn."""
UNSENT_STREAM_BYTES = 1 << 20
"""A streaming caller that leaves this much of its answers unread is not read from until it catches up."""

_OK_HEAD = HeaderBlock(wire.RESPONSE_HEADERS)
_OK_TRAILERS = HeaderBlock(wire.OK_TRAILERS)
_UNREAD = "the caller leaves too many of this connection's answers unread"


class Connection:
    """One peer's calls. Knows bytes and calls, no sockets: `write` sends, and `hang_up` closes when all is said."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        write: Callable[[bytes], None],
        hang_up: Callable[[], None],
        peer: Peer = NOBODY,
    ) -> None:
        self.dispatcher = dispatcher
        self.memory = dispatcher.memory
        self.failures = dispatcher.failures
        self.max_message_bytes = dispatcher.max_message_bytes
        self.peer = peer
        self._write = write
        self._hang_up = hang_up
        self._http2 = Http2Connection(dispatcher.context, dispatcher.limits)
        self._calls: dict[int, UnaryCall | StreamCall] = {}
        self._arriving: dict[int, float] = {}  # unary calls whose message has not come whole, since when; oldest first
        self._stalled: set[int] = set()  # streaming callers that do not read their answers
        self.bytes_sent = 0
        self.bytes_received = 0
        self.next_deadline = inf
        """When `end_late_streams` should be called next, or sooner than it need be."""
        self._dirty = False
        self._writable = True
        self._closed = False
        self._broken_streams = 0

    @property
    def open_calls(self) -> int:
        return len(self._calls)

    @property
    def pings(self) -> int:
        """PING frames that the peer has sent."""
        return self._http2.pings

    @property
    def answer_frames(self) -> int:
        """Frames of answers sent, modulo 2³²."""
        return self._http2.answer_frames

    @property
    def unread(self) -> bool:
        """Whether there are streams without a call: answers that the peer makes no room for, or half a header block."""
        return self._http2.open_streams > len(self._calls)

    @property
    def unfinished(self) -> bool:
        """Whether the peer has begun something that it should end: a request to send, or an answer to read."""
        return self._http2.open_streams > len(self._calls) - len(self._arriving)

    def read_buffer(self) -> memoryview:
        """Where the bytes of the next `receive` should be read to."""
        return self._http2.read_buffer()

    def receive(self, length: int) -> None:
        """Take bytes that were read into the context's input. Raises `Http2Error`."""
        self.bytes_received += length
        self.dispatcher.received_bytes += length
        self.dispatcher.tell_of_memory()
        events = self._http2.receive(length)
        self.dispatcher.look_at_memory()
        for stream_id, flags, head, body in events:
            if flags == WHOLE:
                self._open(stream_id, flags, head, body)
            else:
                self._on_event(stream_id, flags, head, body)
        if self._http2.due or self._stalled or self._http2.lends:
            self.mark_dirty()

    def unwritten(self) -> tuple[int, int]:
        """See `Http2Connection.unwritten`."""
        return self._http2.unwritten() if self._arriving and not self._closed else (0, 0)

    def end_late_streams(self, now: float) -> None:
        """End the streams whose callers' deadlines have passed. Unary calls are their methods' to end."""
        streams = [call for call in self._calls.values() if isinstance(call, StreamCall)]
        for stream in streams:
            if stream.deadline <= now:
                stream.cancel(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        self.next_deadline = min((stream.deadline for stream in streams if stream.open), default=inf)

    def fail_late_requests(self, started_before: float) -> None:
        """End the calls whose request has been on its way since before that time."""
        for stream_id, started in tuple(self._arriving.items()):
            if started >= started_before:
                break
            call = self._calls[stream_id]
            call.fail(StatusCode.DEADLINE_EXCEEDED, "the request took too long to arrive")

    def closed(self) -> None:
        """The socket is gone: everybody who still waits has left."""
        if self._closed:
            return
        self._closed = True
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.abandoned()
        self._http2.close()
        self.dispatcher.look_at_memory()

    def mark_dirty(self) -> None:
        """There is something to send."""
        if not self._dirty and not self._closed:
            self._dirty = True
            self.dispatcher.flush_soon(self)

    def set_writable(self, writable: bool) -> None:
        """Whether the socket takes more; while it does not, answers stay where they are."""
        self._writable = writable
        if writable:
            self.mark_dirty()

    def flush(self) -> None:
        """Send what there is to send, as far as the socket takes it, and others need not wait for it."""
        self._dirty = False
        before = self.bytes_sent
        while self._writable and not self._closed:
            try:
                data = self._http2.output()
            except http2.Http2Error as error:
                log.debug("a connection broke while it was written: %s", error)
                self._hang_up()
                return
            if self._http2.lends:
                self._http2.take_back()
            for stream_id in self._http2.broken_streams():
                self._forget(stream_id)
                self._broken_streams += 1
                if self._broken_streams == MAX_BROKEN_STREAMS:
                    self.refuse(http2.ENHANCE_YOUR_CALM)
            if data:
                self.bytes_sent += len(data)
                self.dispatcher.sent_bytes += len(data)
                self._write(data)
            if len(data) < http2.OUTPUT_BYTES:
                break
            if self.bytes_sent - before >= FLUSH_BYTES:
                self.mark_dirty()
                break
        if not self._closed and not self._http2.alive:
            self._hang_up()
        if self._stalled and not self._closed:
            self._resume_stalled()

    def drain(self, *, final: bool) -> None:
        """Tell the peer to go elsewhere, first kindly and then finally; ask streaming methods to end."""
        if self._closed:
            return
        self._http2.goaway(final=final)
        for call in tuple(self._calls.values()):
            call.drain()
        self.mark_dirty()

    def ping(self) -> None:
        self._http2.ping()
        self.mark_dirty()

    def refuse(self, error_code: int, debug: bytes = b"") -> None:
        """Close with an error, and a word for the peer's log."""
        self._http2.goaway(final=True, error_code=error_code, debug=debug)
        self.mark_dirty()

    # --- what calls use ---

    def answer(self, stream_id: int, message: Buffer) -> ConvoyError | None:
        """End a call with one message and OK. Returns why not, and has done nothing, where there is no room for it."""
        length = len(message)
        if length > SMALL_BYTES:
            self.dispatcher.tell_of_memory()
        problem = self._http2.answer(stream_id, _OK_HEAD, framing.frame_prefix(length), message, _OK_TRAILERS)
        if problem:
            return self.memory.refusal(length) if problem == SHORT else AnswersUnread(_UNREAD)
        if length > SMALL_BYTES:
            self.dispatcher.look_at_memory()
        self._calls.pop(stream_id, None)
        if not self._dirty:
            self.mark_dirty()
        return None

    def fail(self, stream_id: int, headers: Sequence[Header]) -> None:
        """End a call that has not begun to answer."""
        self._calls.pop(stream_id, None)
        self._arriving.pop(stream_id, None)
        self._stalled.discard(stream_id)
        if not self._closed:
            self._http2.headers_only(stream_id, headers)
            self.mark_dirty()

    def begin(self, stream_id: int, headers: Sequence[Header]) -> None:
        """Open an answer whose messages and end follow."""
        self._http2.begin(stream_id, headers)
        self.mark_dirty()

    def send(self, stream_id: int, prefix: bytes, message: bytes) -> None:
        if not self._http2.message(stream_id, prefix, message):
            self._http2.reset(stream_id, http2.ENHANCE_YOUR_CALM)
            self._forget(stream_id)
        self.mark_dirty()

    def frame_later(self, message: bytes, encoding: bytes, then: Callable[[bytes], None]) -> None:
        self.dispatcher.in_background(
            partial(framing.frame, message, encoding, level=self.dispatcher.deflate_level), then
        )

    def has_room(self, stream_id: int) -> bool:
        """Whether the peer keeps up with what this stream answers."""
        return self._http2.unsent_bytes(stream_id) <= UNSENT_STREAM_BYTES

    def end(self, stream_id: int, trailers: Sequence[Header]) -> None:
        """End a call that has begun to answer."""
        self._calls.pop(stream_id, None)
        self._stalled.discard(stream_id)
        if not self._closed:
            self._http2.end(stream_id, trailers)
            self.mark_dirty()

    # --- what the peer does ---

    def _on_event(self, stream_id: int, flags: int, head: bytes, body: Buffer) -> None:
        if flags & CLOSED:
            if not flags & HEAD:
                self._forget(stream_id)
        elif flags & (TOO_LARGE | NO_ROOM):
            self._refuse_too_large(stream_id, flags, head)
        elif flags & HEAD:
            self._open(stream_id, flags, head, body)
        else:
            self._arriving.pop(stream_id, None)
            call = self._calls.get(stream_id)
            if isinstance(call, StreamCall):
                self._deliver(stream_id, call, body, ended=bool(flags & END))
            elif call is not None and flags & END:
                call.receive(body)

    def _open(self, stream_id: int, flags: int, head: bytes, body: Buffer) -> None:
        route = self.dispatcher.routes.get(head) or self.dispatcher.route(head)
        if isinstance(route, Refusal):
            self.dispatcher.calls.refused(route.status)
            self._http2.headers_only(stream_id, route.headers())
            return
        timeout = route.timeout
        deadline = inf if timeout == inf else time.monotonic() + timeout
        if isinstance(route, UnaryRoute):
            self._calls[stream_id] = unary = UnaryCall(self, stream_id, route, deadline)
            if flags & END:
                unary.receive(body)
                return
            self._arriving[stream_id] = time.monotonic()
            unary.begin()
            return
        early = self._http2.stream_body(stream_id)
        self._calls[stream_id] = stream = StreamCall(self, stream_id, route, deadline)
        self.next_deadline = min(self.next_deadline, deadline)
        self._deliver(stream_id, stream, bytes(early) + bytes(body), ended=bool(flags & END))

    def _deliver(self, stream_id: int, call: StreamCall, body: Buffer, *, ended: bool) -> None:
        call.receive(body, ended=ended)
        if not call.open:
            return
        if not self._http2.keep(stream_id, call.held_bytes):
            call.cancel(StatusCode.RESOURCE_EXHAUSTED, "too much of this connection's messages waits for more")
        elif self.has_room(stream_id):
            self._http2.consume(stream_id)
        else:
            self._stalled.add(stream_id)

    def _refuse_too_large(self, stream_id: int, flags: int, head: bytes) -> None:
        call = self._calls.get(stream_id)
        error: ConvoyError
        if flags & NO_ROOM:
            error = self.memory.refusal()
        elif flags & HEAD and not head:
            most = self.dispatcher.limits.max_head_bytes
            error = RequestTooLarge(f"the request's headers are larger than max ({most} bytes)")
        else:
            most = self.max_message_bytes
            error = RequestTooLarge(f"Received message larger than max ({most} bytes), or too many of them at once")
        if isinstance(call, UnaryCall):
            self.failures.fail(call, error)
        elif call is not None:
            call.cancel(self.failures.statuses[type(error)], str(error))
        else:
            status = self.failures.statuses[type(error)]
            if flags & HEAD:
                self.dispatcher.count_refused(head, status, error.reason)
            self.fail(stream_id, wire.trailers_only(status, str(error)))

    def _forget(self, stream_id: int) -> None:
        call = self._calls.pop(stream_id, None)
        self._arriving.pop(stream_id, None)
        self._stalled.discard(stream_id)
        if call is not None:
            call.abandoned()

    def _resume_stalled(self) -> None:
        for stream_id in tuple(self._stalled):
            call = self._calls.get(stream_id)
            if isinstance(call, StreamCall) and self.has_room(stream_id):
                self._stalled.discard(stream_id)
                self._deliver(stream_id, call, b"", ended=False)
                self.mark_dirty()
