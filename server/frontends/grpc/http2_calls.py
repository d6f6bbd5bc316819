"""`frontends.calls.Call` over a stream of an HTTP/2 connection."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from server.errors import ConvoyError, Reason
from server.frontends.call_counts import MethodCounts, departure
from server.frontends.calls import (
    CALLER_GONE,
    INTERNAL_MESSAGE,
    LATER,
    Later,
    Peer,
    StatusCode,
    StreamMethod,
    UnaryMethod,
    reason_of,
)
from server.frontends.compression import IDENTITY, INLINE_BYTES, negotiate
from server.frontends.grpc import framing, wire
from server.frontends.grpc.wire import Header, RequestHead, WireError
from server.frontends.statuses import Failures
from server.ledger import Account
from server.memory_budget import CALL_BYTES, SMALL_BYTES, MemoryBudget
from server.records import GRPC
from server.tensors import Buffer

log = logging.getLogger(__name__)


InBackground = Callable[[Callable[[], bytes], Callable[[bytes], None]], None]
"""Does what takes long, off the event loop where there is one, and goes on with what it returns."""


@dataclass(frozen=True, slots=True)
class Route:
    """What a header block means; remembered, since most callers send the same one again and again."""

    head: RequestHead
    timeout: float
    """Of `head`."""
    counts: MethodCounts


@dataclass(frozen=True, slots=True)
class UnaryRoute(Route):
    """Its calls are `UnaryCall`."""

    method: UnaryMethod


@dataclass(frozen=True, slots=True)
class StreamRoute(Route):
    """Its calls are `StreamCall`."""

    method: StreamMethod


R = TypeVar("R", bound=Route)


class Carrier(Protocol):
    """The connection, as its calls see it."""

    @property
    def peer(self) -> Peer: ...

    memory: MemoryBudget
    failures: Failures
    max_message_bytes: int

    def answer(self, stream_id: int, message: Buffer) -> ConvoyError | None:
        """End a call with one message and OK. Returns why not, and has done nothing, where there is no room for it."""
        ...

    def fail(self, stream_id: int, headers: Sequence[Header]) -> None:
        """End a call that has not begun to answer."""
        ...

    def begin(self, stream_id: int, headers: Sequence[Header]) -> None:
        """Open an answer whose messages and end follow."""
        ...

    def send(self, stream_id: int, prefix: bytes, message: bytes) -> None: ...

    def frame_later(self, message: bytes, encoding: bytes, then: Callable[[bytes], None]) -> None:
        """Compress a large message while others are served, and go on with it and its prefix."""
        ...

    def has_room(self, stream_id: int) -> bool:
        """Whether the caller keeps up with what is sent to it."""
        ...

    def end(self, stream_id: int, trailers: Sequence[Header]) -> None:
        """End a call that has begun to answer."""
        ...


class _Extras:
    """What an answer has beyond messages and OK. Most unary answers have none of it."""

    __slots__ = ("begun", "compressing", "deflating", "encoding", "trailing")

    def __init__(self) -> None:
        self.begun = False
        self.compressing = False
        self.deflating = False
        """Whether the answer to a unary call is being compressed: nothing else may be answered then."""
        self.encoding = IDENTITY
        self.trailing: Sequence[Header] = ()


class Http2Call(Generic[R]):
    """What unary calls and those of `http2_streams` share."""

    protocol = GRPC

    __slots__ = ("_account", "_carrier", "_extras", "_held_bytes", "_open", "_route", "_stream_id", "deadline",
                 "on_cancel")  # fmt: skip

    def __init__(self, carrier: Carrier, stream_id: int, route: R, deadline: float) -> None:
        route.counts.started += 1
        self.deadline = deadline
        self.on_cancel: Callable[[], None] | None = None
        self._carrier = carrier
        self._stream_id = stream_id
        self._route = route
        self._open = True
        self._account: Account | None = None
        """Where the call is accounted for, from when its request is there."""
        self._held_bytes = 0
        """What the call has taken of the memory budget."""
        self._extras: _Extras | None = None

    @property
    def open(self) -> bool:
        """Whether somebody still waits for it to end."""
        return self._open

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        return self._route.head.metadata()

    @property
    def peer(self) -> Peer:
        return self._carrier.peer

    @property
    def authorization(self) -> str:
        return self._route.head.authorization

    def has_metadata(self, key: str) -> bool:
        return key.encode() in [name for name, _ in self._route.head.headers]

    def send_initial_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        headers = wire.encode_metadata(metadata)
        if self._open:
            self._begin(headers)

    def set_trailing_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        self._with_extras().trailing = wire.encode_metadata(metadata)

    def compress_messages(self, wanted: bool) -> None:
        encoding = negotiate(self._route.head.accept_encoding) if wanted else IDENTITY
        if encoding == IDENTITY and self._extras is None:
            return
        extras = self._with_extras()
        extras.compressing = wanted
        if wanted and not extras.begun:
            extras.encoding = encoding

    def fail(self, status: StatusCode, message: str, reason: Reason | None = None) -> None:
        extras = self._extras
        if not self._open or (extras is not None and extras.deflating):
            self._ended_again()
            return
        self._open = False
        self._carrier.memory.used -= self._held_bytes
        self._route.counts.handled[status] += 1
        if self._account is not None:
            self._account.fail(reason or reason_of(status))
        else:
            self._note_unread(reason or reason_of(status))
        if extras is None:
            self._carrier.fail(self._stream_id, wire.trailers_only(status, message))
        elif extras.begun:
            self._carrier.end(self._stream_id, wire.trailers(status, message, extras.trailing))
        else:
            self._carrier.fail(self._stream_id, wire.trailers_only(status, message, extras.trailing))

    def cancel(self, status: StatusCode, message: str, reason: Reason | None = None) -> None:
        """End the call with an error that is not the method's, and tell it so."""
        if self._open:
            if self._extras is not None:
                self._extras.deflating = False  # what the method has answered comes too late
            self.fail(status, message, reason)
            self._tell_method()

    def abandoned(self) -> None:
        """The caller has gone."""
        if self._open:
            self._open = False
            self._carrier.memory.used -= self._held_bytes
            self._route.counts.handled[departure(self.deadline)] += 1
            if self._account is not None:
                self._account.abandon()
            self._tell_method()

    def give_up(self, error: Exception) -> None:
        """End a call whose message is none, or whose method has raised."""
        if isinstance(error, WireError):
            reason = Reason.OVERSIZE if error.status is StatusCode.RESOURCE_EXHAUSTED else Reason.INVALID
            self.cancel(error.status, error.message, reason)
        else:
            log.error("a method raised", exc_info=error)
            self.cancel(StatusCode.INTERNAL, INTERNAL_MESSAGE)

    def _note_unread(self, reason: Reason) -> None:
        """The call has failed before its request was there whole."""

    def _ended_again(self) -> None:
        """An answer came for a call that has one."""
        if self._account is not None:
            self._account.answer_again()

    def _tell_method(self) -> None:
        self._account = None  # whoever answers all the same answers nobody
        on_cancel, self.on_cancel = self.on_cancel, None
        if on_cancel is None:
            return
        try:
            on_cancel()
        except Exception:  # it must not harm the connection's other calls
            log.exception("a method raised when it was told that its call is over")

    def _begin(self, metadata: Sequence[Header] = ()) -> None:
        extras = self._with_extras()
        if extras.begun:
            return
        extras.begun = True
        if extras.encoding != IDENTITY:
            metadata = [(b"grpc-encoding", extras.encoding), *metadata]
        self._carrier.begin(self._stream_id, [*wire.RESPONSE_HEADERS, *metadata])

    def _send(self, message: bytes) -> None:
        self._begin()
        extras = self._with_extras()
        if extras.compressing and extras.encoding != IDENTITY:
            self._carrier.send(self._stream_id, b"", framing.frame(message, extras.encoding))
        else:
            self._carrier.send(self._stream_id, framing.frame_prefix(len(message)), message)

    def _end(self) -> None:
        if not self._open:
            return  # the connection has given the call up, since its caller leaves too much unread
        self._begin()
        self._open = False
        self._carrier.memory.used -= self._held_bytes
        self._route.counts.handled[StatusCode.OK] += 1
        if self._account is not None:
            self._account.answered += 1
        trailing = self._with_extras().trailing
        trailers = wire.trailers(StatusCode.OK, metadata=trailing) if trailing else wire.OK_TRAILERS
        self._carrier.end(self._stream_id, trailers)

    def _with_extras(self) -> _Extras:
        if self._extras is None:
            self._extras = _Extras()
        return self._extras


class UnaryCall(Http2Call[UnaryRoute]):
    """One message and one answer."""

    __slots__ = ()

    def begin(self) -> None:
        """The request has not come whole."""
        begin = self._route.method.begin
        if begin is None:
            return
        try:
            begin(self)
        except Exception as error:  # noqa: BLE001 -- it must not harm the connection's other calls
            self.give_up(error)

    def receive(self, body: Buffer) -> None:
        """The whole request."""
        carrier, method = self._carrier, self._route.method
        account = method.account
        if account is not None:
            self._account = account
            account.received += 1
        memory, size = carrier.memory, len(body) + CALL_BYTES
        used = memory.used + size
        if used > memory.limit and (account is not None or size > SMALL_BYTES):
            carrier.failures.fail(self, memory.refusal(size))
            return
        memory.used, self._held_bytes = used, size
        try:
            if body and body[0]:
                message = self._unpacked(body)
                if message is None:
                    return
            else:
                message = framing.unary_message(body, carrier.max_message_bytes)
            method.handle(self, message)
        except Exception as error:  # noqa: BLE001 -- it must not harm the connection's other calls
            self.give_up(error)

    def _note_unread(self, reason: Reason) -> None:
        self._account = self._route.method.account  # whoever answers again is noticed
        if self._account is not None:
            self._account.turn_away(reason)

    def reply(self, message: Buffer) -> ConvoyError | Later | None:
        if not self._open:
            self._ended_again()
            return None
        if self._extras is not None:
            return self._reply_with(self._extras, message)
        carrier = self._carrier
        carrier.memory.used -= self._held_bytes
        error = carrier.answer(self._stream_id, message)
        if error is not None:
            self._held_bytes = 0
            carrier.failures.fail(self, error)
            return error
        self._open = False
        self._route.counts.handled[StatusCode.OK] += 1
        account = self._account
        if account is not None:
            account.answered += 1
        return None

    def _reply_with(self, extras: _Extras, message: Buffer) -> ConvoyError | Later | None:
        if extras.deflating:
            self._ended_again()
            return None
        if extras.compressing and extras.encoding != IDENTITY and len(message) > INLINE_BYTES:
            extras.deflating = True
            self._carrier.frame_later(bytes(message), extras.encoding, self._reply_framed)
            return LATER
        self._send(bytes(message))
        given = self._open  # else the connection has given the call up, since its caller leaves too much unread
        self._end()
        return None if given else CALLER_GONE

    def _unpacked(self, body: Buffer) -> Buffer | None:
        """The message of a compressed request; None where there is no room for it, and the call has failed."""
        memory = self._carrier.memory
        most = min(self._carrier.max_message_bytes, memory.room)
        try:
            message = framing.unary_message(body, most, self._route.head.encoding)
        except WireError as error:
            if error.status is not StatusCode.RESOURCE_EXHAUSTED or most == self._carrier.max_message_bytes:
                raise
            self._carrier.failures.fail(self, memory.refusal())
            return None
        memory.used += len(message)
        self._held_bytes += len(message)
        return message

    def _reply_framed(self, framed: bytes) -> None:
        if self._open:
            self._begin()
            self._carrier.send(self._stream_id, b"", framed)
            self._end()

    def send(self, message: bytes) -> None:
        raise TypeError("a unary call is answered with reply")

    def finish(self) -> None:
        raise TypeError("a unary call is answered with reply")

    def drain(self) -> None:
        """Nothing to do: the answer is on its way."""
