"""`frontends.calls.Call` over a stream of an HTTP/2 connection."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from server.frontends.call_counts import MethodCounts, departure
from server.frontends.calls import Peer, Receiver, StatusCode, StreamMethod, UnaryMethod
from server.frontends.compression import IDENTITY, INLINE_BYTES, negotiate
from server.frontends.grpc import wire
from server.frontends.grpc.wire import Header, MessageReader, RequestHead
from server.records import GRPC
from server.tensors import Buffer

log = logging.getLogger(__name__)


InBackground = Callable[[Callable[[], bytes], Callable[[bytes], None]], None]
"""Does what takes long, off the event loop where there is one, and goes on with what it returns."""


class Carrier(Protocol):
    """The connection, as its calls see it."""

    @property
    def peer(self) -> Peer: ...

    def answer(self, stream_id: int, message: bytes) -> StatusCode:
        """End a call with one message and OK, or with an error where its caller leaves too much unread."""
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


class _Http2Call:
    """What both kinds share."""

    protocol = GRPC

    __slots__ = (
        "_carrier", "_counts", "_extras", "_head", "_max_message_bytes", "_open", "_stream_id", "deadline", "on_cancel",
    )  # fmt: skip

    def __init__(
        self,
        carrier: Carrier,
        stream_id: int,
        head: RequestHead,
        deadline: float,
        max_message_bytes: int,
        counts: MethodCounts,
    ) -> None:
        self.deadline = deadline
        self.on_cancel: Callable[[], None] | None = None
        self._carrier = carrier
        self._counts = counts
        counts.started += 1
        self._stream_id = stream_id
        self._head = head
        self._max_message_bytes = max_message_bytes
        self._open = True
        self._extras: _Extras | None = None

    @property
    def open(self) -> bool:
        """Whether somebody still waits for it to end."""
        return self._open

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        return self._head.metadata()

    @property
    def peer(self) -> Peer:
        return self._carrier.peer

    @property
    def authorization(self) -> str:
        return self._head.authorization

    def has_metadata(self, key: str) -> bool:
        return key.encode() in [name for name, _ in self._head.headers]

    def send_initial_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        headers = wire.encode_metadata(metadata)
        if self._open:
            self._begin(headers)

    def set_trailing_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        self._with_extras().trailing = wire.encode_metadata(metadata)

    def compress_messages(self, wanted: bool) -> None:
        encoding = negotiate(self._head.accept_encoding) if wanted else IDENTITY
        if encoding == IDENTITY and self._extras is None:
            return
        extras = self._with_extras()
        extras.compressing = wanted
        if wanted and not extras.begun:
            extras.encoding = encoding

    def fail(self, status: StatusCode, message: str) -> None:
        if not self._open:
            return
        self._open = False
        self._counts.handled[status] += 1
        extras = self._extras
        if extras is None:
            self._carrier.fail(self._stream_id, wire.trailers_only(status, message))
        elif extras.begun:
            self._carrier.end(self._stream_id, wire.trailers(status, message, extras.trailing))
        else:
            self._carrier.fail(self._stream_id, wire.trailers_only(status, message, extras.trailing))

    def cancel(self, status: StatusCode, message: str) -> None:
        """End the call with an error that is not the method's, and tell it so."""
        if self._open:
            self.fail(status, message)
            self._tell_method()

    def abandoned(self) -> None:
        """The caller has gone."""
        if self._open:
            self._open = False
            self._counts.handled[departure(self.deadline)] += 1
            self._tell_method()

    def _tell_method(self) -> None:
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
            self._carrier.send(self._stream_id, b"", wire.frame(message, extras.encoding))
        else:
            self._carrier.send(self._stream_id, wire.frame_prefix(len(message)), message)

    def _end(self) -> None:
        if not self._open:
            return  # the connection has given the call up, since its caller leaves too much unread
        self._begin()
        self._open = False
        self._counts.handled[StatusCode.OK] += 1
        trailing = self._with_extras().trailing
        trailers = wire.trailers(StatusCode.OK, metadata=trailing) if trailing else wire.OK_TRAILERS
        self._carrier.end(self._stream_id, trailers)

    def _with_extras(self) -> _Extras:
        if self._extras is None:
            self._extras = _Extras()
        return self._extras


class UnaryCall(_Http2Call):
    """One message and one answer."""

    __slots__ = ("_method",)

    def __init__(
        self,
        carrier: Carrier,
        stream_id: int,
        head: RequestHead,
        deadline: float,
        max_message_bytes: int,
        counts: MethodCounts,
        method: UnaryMethod,
    ) -> None:
        super().__init__(carrier, stream_id, head, deadline, max_message_bytes, counts)
        self._method = method

    def receive(self, body: Buffer, *, ended: bool) -> None:
        """The whole request, or before it its beginning. Raises `WireError`, and whatever the method raises."""
        if ended:
            self._method.handle(self, wire.unary_message(body, self._max_message_bytes, self._head.encoding))
        elif self._method.begin is not None:
            self._method.begin(self)

    def reply(self, message: bytes) -> None:
        if not self._open:
            return
        extras = self._extras
        if extras is None:
            self._open = False
            self._counts.handled[self._carrier.answer(self._stream_id, message)] += 1
        elif extras.compressing and extras.encoding != IDENTITY and len(message) > INLINE_BYTES:
            if not extras.deflating:
                extras.deflating = True
                self._carrier.frame_later(message, extras.encoding, self._reply_framed)
        else:
            self._send(message)
            self._end()

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


class StreamCall(_Http2Call):
    """Any number of messages both ways."""

    __slots__ = ("_draining", "_ended", "_method", "_reader", "_receiver", "_waiting")

    def __init__(
        self,
        carrier: Carrier,
        stream_id: int,
        head: RequestHead,
        deadline: float,
        max_message_bytes: int,
        counts: MethodCounts,
        method: StreamMethod,
    ) -> None:
        super().__init__(carrier, stream_id, head, deadline, max_message_bytes, counts)
        self._method = method
        self._receiver: Receiver | None = None
        self._reader = MessageReader(max_message_bytes, head.encoding)
        self._waiting: deque[Buffer] = deque()  # what came while the caller did not read its answers
        self._draining = False
        self._ended = False

    @property
    def held_bytes(self) -> int:
        """How much of what the caller has sent waits for more of it, or for the caller to read."""
        return self._reader.held_bytes + sum(map(len, self._waiting))

    def receive(self, body: Buffer, *, ended: bool) -> None:
        """A part of what the caller sends. Raises `WireError`, and whatever the method raises.

        Stops where the caller leaves too many answers unread. To go on then, call it again, with nothing new.
        """
        if self._receiver is None:
            self._receiver = self._method.open(self)
        waiting = self._waiting
        waiting.extend(self._reader.feed(body))
        while waiting and self._open:
            if not self._carrier.has_room(self._stream_id):
                self._ended |= ended
                return
            self._receiver.message(waiting.popleft())
        if (ended or self._ended) and self._open:
            self._ended = False
            self._reader.finish()
            self._receiver.half_closed()

    def reply(self, message: bytes) -> None:
        self.send(message)
        self.finish()

    def send(self, message: bytes) -> None:
        if self._open:
            self._send(message)

    def finish(self) -> None:
        if self._open:
            self._end()

    def drain(self) -> None:
        """The server is about to stop. Raises whatever the method raises."""
        if self._open and self._receiver is not None and not self._draining:
            self._draining = True
            self._receiver.drain()
