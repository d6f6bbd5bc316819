"""Requests over HTTP/1.1 connections, without a coroutine or a task per request.

One `Connection` per peer cuts what arrives into requests, hands each to its route, and sends the answers in the order
of the requests. Knows no sockets: `listener` does. A body that arrives in one read is a view on what was read; a larger
one is read into a buffer of its size.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

import numpy as np

from server.errors import MemoryFull, Reason
from server.frontends.calls import INTERNAL_MESSAGE, NOBODY, Peer
from server.frontends.rest import http1
from server.frontends.rest.dispatcher import Dispatcher, Plan
from server.frontends.rest.exchange import Content, Exchange, RouteCounts, json_content
from server.frontends.rest.http1 import ChunkedBody, Head, HttpError
from server.frontends.rest.outbox import Outbox, Sink
from server.memory_budget import CALL_BYTES, SMALL_BYTES
from server.tensors import Buffer

log = logging.getLogger(__name__)

MAX_PIPELINED = 64
"""Requests of one connection that may wait for answers; what comes after them is not read until one is answered."""
JOINED_BYTES = 64 << 10
"""Up to here, an answer is copied behind its head: that costs less than a second buffer to send."""
TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class Source(Protocol):
    """Where a connection's bytes come from."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Connection:
    """One peer's requests."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        sink: Sink,
        source: Source,
        hang_up: Callable[[bool], None],
        peer: Peer = NOBODY,
    ) -> None:
        """`hang_up` closes when what was written is sent; it is told whether the peer was refused, and so may still be
        sending."""
        self.peer = peer
        self._dispatcher = dispatcher
        self.memory = dispatcher.memory
        self.failures = dispatcher.failures
        self._source = source
        self._outbox = Outbox(sink, dispatcher.memory, dispatcher.call_soon, self._go_on)
        self._hang_up = hang_up
        self._exchanges: deque[Exchange] = deque()  # in the order of their requests, until they are sent
        self._held_bytes = 0  # of the bodies of those
        self._read = b""  # what was read last, and before it what was left over
        self._at = 0  # where in it what has not been looked at begins
        self._plan: Plan | None = None  # of the request whose body is arriving
        self._body: memoryview | None = None  # of known length, filled from its beginning
        self._filled = 0
        self._chunked: ChunkedBody | None = None
        self._arriving_bytes = 0  # what that request has taken of the memory budget
        self._last = False  # no request comes after those that there are
        self._closed = False
        self._reading = True
        self.received_bytes = 0
        self.requests = 0
        """How many have arrived whole."""
        self._refused = False

    @property
    def busy(self) -> bool:
        """Whether a request waits for its answer, or an answer for its turn to be sent."""
        return bool(self._exchanges) or self._outbox.waiting

    @property
    def arriving(self) -> bool:
        """Whether a request has come in part."""
        return self._plan is not None or (self._at < len(self._read) and self._reading)

    @property
    def body_arriving(self) -> bool:
        return self._plan is not None

    def body_buffer(self) -> memoryview | None:
        """Where to read to, if what comes next is the rest of a body of known length."""
        return None if self._body is None else self._body[self._filled :]

    def body_read(self, length: int) -> None:
        """So much was read into `body_buffer`."""
        self._count(length)
        self._filled += length
        if self._body is not None and self._filled == len(self._body):
            body, self._body = self._body, None
            self._begin(body)

    def receive(self, data: bytes) -> None:
        """Take what was read."""
        self._count(len(data))
        self._read = self._read[self._at :] + data if self._at < len(self._read) else data
        self._at = 0
        self._process()

    def fail(self, status: HTTPStatus, message: str) -> None:
        """Answer what is no request, or not in time, after all that was asked for before it; and close then."""
        self._dispatcher.refused(status)
        self._refuse(RouteCounts("", "")).respond(status, json_content({"error": message}))

    def close_when_idle(self) -> None:
        """End with the answers that are due."""
        self._last = True
        if not self.busy and not self.arriving:
            self._end()

    def closed(self) -> None:
        """The socket is gone: everybody who still waits has left."""
        self._closed = True
        exchanges, self._exchanges = self._exchanges, deque()
        for exchange in exchanges:
            exchange.abandoned()
            exchange.let_go()
        self._forget_arriving()
        self._outbox.drop()

    def set_writable(self, writable: bool) -> None:
        """Whether the peer reads its answers; while it does not, no more requests are read from it."""
        self._outbox.set_writable(writable)
        self._read_on()

    def set_unsent(self, size: int) -> None:
        """So much of the answers waits in front of the socket, beside what it was not given yet."""
        self._outbox.set_unsent(size)

    # --- requests ---

    def _count(self, length: int) -> None:
        self.received_bytes += length
        self._dispatcher.received_bytes += length

    def _process(self) -> None:
        """Take one request after another out of what was read."""
        try:
            while self._at < len(self._read) and not self._closed:
                if self._chunked is not None:
                    self._at += self._chunked.feed(memoryview(self._read)[self._at :])
                    self._hold_arriving(self._chunked.size)
                    if self._chunked.done:
                        body, self._chunked = self._chunked.body, None
                        self._begin(body)
                elif self._last:
                    break  # nobody waits for what comes after the last request
                elif not self._has_room():
                    self._read_on()
                    return
                elif not self._next():
                    return
        except HttpError as error:
            self._turn_away_arriving(Reason.OVERSIZE if error.status is TOO_LARGE else Reason.INVALID)
            self.fail(error.status, str(error))
        except MemoryFull as error:
            self._turn_away_arriving(error.reason)
            counts = self._plan.counts if self._plan is not None else RouteCounts("", "")
            self._refuse(counts).fail_with(error)
        self._read, self._at = b"", 0

    def _next(self) -> bool:
        """Begin with the request that begins here. Returns whether its head is there. Raises `HttpError`."""
        data, start = self._read, self._at
        if data.startswith(b"\r\n", start):  # some send one more line end after a body (RFC 9112, 2.2)
            self._at += 2
            return True
        end = data.find(http1.HEAD_END, start, start + http1.MAX_HEAD_BYTES)
        if end < 0:
            if len(data) - start < http1.MAX_HEAD_BYTES:
                return False
            raise HttpError(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"the request's head is larger than max ({http1.MAX_HEAD_BYTES} bytes)",
            )
        end += len(http1.HEAD_END)
        self._plan = plan = self._dispatcher.plan(data[start:end])
        length = plan.head.length
        if length > self._dispatcher.max_input_bytes:
            raise http1.too_large(self._dispatcher.max_input_bytes)
        is_whole = not plan.head.chunked and len(data) - end >= length
        refusal: MemoryFull | None = None
        try:
            self._hold_arriving(length)
        except MemoryFull as error:
            if not is_whole:
                raise
            refusal = error.with_traceback(None)  # which leads here
        if not plan.head.keep_alive:
            self._last = True
        if (plan.head.chunked or len(data) - end < length) and self._refused_early(plan):
            return True
        if plan.head.expects_continue and not self._exchanges and len(data) == end:
            self._write((http1.CONTINUE,))
        if plan.head.chunked:
            self._at = end
            self._chunked = ChunkedBody(self._dispatcher.max_input_bytes)
        elif is_whole:
            self._at = end + length
            self._begin(memoryview(data)[end : self._at], refusal)
        else:
            self._at = len(data)
            self._filled = len(data) - end
            self._body = np.empty(length, np.uint8).data
            self._body[: self._filled] = memoryview(data)[end:]
        return True

    def _refused_early(self, plan: Plan) -> bool:
        """Whether a request is answered before its body is there: then nothing more is read."""
        if plan.route is None or plan.route.begin is None:
            return False
        exchange = Exchange(self, plan.head, plan.parameters, plan.counts, 0)
        refuse = plan.route.begin(exchange)
        if refuse is None:
            return False
        self._last = self._refused = True
        self._forget_arriving()
        self._exchanges.append(exchange)
        exchange.account_for(plan.route.account)
        refuse()
        return True

    def _begin(self, body: memoryview, refusal: MemoryFull | None = None) -> None:
        """A request is there, which is refused where there is no memory for it."""
        plan, self._plan = self._plan, None
        assert plan is not None, "a body has a head before it"
        self.requests += 1
        account = None if plan.route is None else plan.route.account
        exchange = Exchange(self, plan.head, plan.parameters, plan.counts, len(body), account)
        exchange.budget_bytes, self._arriving_bytes = self._arriving_bytes, 0
        self._exchanges.append(exchange)
        self._held_bytes += len(body)
        if refusal is not None:
            exchange.fail_with(refusal)
            return
        if plan.route is None:
            _no_route(exchange, plan)
            return
        try:
            plan.route.handle(exchange, body)
        except Exception:
            log.exception("a handler raised")
            if exchange.open:
                exchange.respond_error(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_MESSAGE)

    def _hold_arriving(self, length: int) -> None:
        """The request that is arriving has a body of so many bytes, as far as is known. Raises `MemoryFull`."""
        plan, more = self._plan, length + CALL_BYTES - self._arriving_bytes
        small = length <= SMALL_BYTES and (plan is None or plan.route is None or plan.route.account is None)
        if self.memory.used + more > self.memory.limit and not small:
            raise self.memory.refusal(length)
        self.memory.used += more
        self._arriving_bytes += more

    def _turn_away_arriving(self, reason: Reason) -> None:
        """The request that is arriving is refused: it will not be read to its end."""
        plan = self._plan
        if plan is not None and plan.route is not None and plan.route.account is not None:
            plan.route.account.turn_away(reason)

    def _has_room(self) -> bool:
        return (
            self._outbox.writable
            and not self._outbox.waiting
            and len(self._exchanges) < MAX_PIPELINED
            and self._held_bytes <= self._dispatcher.max_input_bytes
        )

    def _read_on(self) -> None:
        """Read from the peer while there is room for what it asks, and not otherwise."""
        room = self._has_room()
        if room is self._reading or self._closed:
            return
        self._reading = room
        if room:
            self._source.resume_reading()
            self._process()
        else:
            self._source.pause_reading()

    # --- answers ---

    def answer(self, exchange: Exchange, status: HTTPStatus, content: Content) -> None:
        exchange.answer = (status, content)
        self._send_answers()

    def _send_answers(self) -> None:
        """Send every answer whose turn has come. The event loop gathers what is written in one turn of it."""
        exchanges = self._exchanges
        while exchanges and (answer := exchanges[0].answer) is not None:
            exchange = exchanges.popleft()
            self._held_bytes -= exchange.held_bytes
            exchange.let_go()
            self._send(exchange.head, *answer)
        self._go_on()

    def _go_on(self) -> None:
        """Something was sent: end where nothing else is due, or read on where that had to wait."""
        if self._last and not self.busy and self._plan is None:
            self._end()
        elif not self._reading:
            self._read_on()

    def _send(self, head: Head, status: HTTPStatus, content: Content) -> None:
        if self._dispatcher.draining and not (self._exchanges or self._plan or self._at < len(self._read)):
            self._last = True
        body = b"" if head.verb == "HEAD" else content.body
        ends = not head.keep_alive or (self._last and not self._exchanges and self._plan is None)
        start = http1.answer_head(
            status,
            content.headers,
            len(content.body),
            second=int(time.time()),
            connection="close" if ends else "keep-alive" if head.old else "",
        )
        if len(body) <= JOINED_BYTES:
            self._write((b"".join((start, body)),))
        else:
            self._write((start, body))

    def _refuse(self, counts: RouteCounts) -> Exchange:
        """Read nothing more, and return what is to be answered in place of what is arriving."""
        self._last = True
        self._forget_arriving()
        self._refused = True
        exchange = Exchange(self, _NO_HEAD, {}, counts, 0)
        self._exchanges.append(exchange)
        return exchange

    def _forget_arriving(self) -> None:
        self.memory.used -= self._arriving_bytes
        self._arriving_bytes = 0
        self._read, self._at = b"", 0
        self._plan, self._body, self._chunked = None, None, None

    def _end(self) -> None:
        if not self._closed:
            self._hang_up(self._refused)

    def _write(self, parts: tuple[Buffer, ...]) -> None:
        if self._closed:
            return
        size = sum(map(len, parts))
        self._dispatcher.sent_bytes += size
        self._outbox.write(parts, size)


def _no_route(exchange: Exchange, plan: Plan) -> None:
    if plan.allow:
        message = f"{plan.head.path} takes {plan.allow}, not {plan.head.verb}"
        exchange.respond_error(HTTPStatus.METHOD_NOT_ALLOWED, message, [("Allow", plan.allow)])
    else:
        exchange.respond_error(HTTPStatus.NOT_FOUND, f"no route {plan.head.path}")


_NO_HEAD = Head("", "", (), "", {}, keep_alive=False, old=False, length=0, chunked=False, expects_continue=False)
