"""`frontends.calls.Call` over a stream of an HTTP/2 connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from server.frontends.calls import Receiver, StatusCode, StreamMethod, UnaryMethod
from server.frontends.grpc import wire
from server.frontends.grpc.wire import Header, MessageReader, RequestHead
from server.tensors import Buffer


class Carrier(Protocol):
    """The connection, as its calls see it."""

    def answer(self, stream_id: int, message: bytes) -> None:
        """End a call with one message and OK."""
        ...

    def fail(self, stream_id: int, headers: Sequence[Header]) -> None:
        """End a call that has not begun to answer."""
        ...

    def begin(self, stream_id: int) -> None: ...

    def send(self, stream_id: int, message: bytes) -> None: ...

    def end(self, stream_id: int, trailers: Sequence[Header]) -> None:
        """End a call that has begun to answer."""
        ...


class _Http2Call:
    """What both kinds share."""

    __slots__ = ("_carrier", "_head", "_max_message_bytes", "_open", "_stream_id", "deadline", "on_cancel")

    def __init__(
        self, carrier: Carrier, stream_id: int, head: RequestHead, deadline: float, max_message_bytes: int
    ) -> None:
        self.deadline = deadline
        self.on_cancel: Callable[[], None] | None = None
        self._carrier = carrier
        self._stream_id = stream_id
        self._head = head
        self._max_message_bytes = max_message_bytes
        self._open = True

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        return self._head.metadata()

    def cancelled(self) -> None:
        """Tell the method, once, that nobody waits any more."""
        on_cancel, self.on_cancel = self.on_cancel, None
        if on_cancel:
            on_cancel()

    def abandoned(self) -> None:
        """The caller has gone."""
        if self._open:
            self._open = False
            self.cancelled()


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
        method: UnaryMethod,
    ) -> None:
        super().__init__(carrier, stream_id, head, deadline, max_message_bytes)
        self._method = method

    def receive(self, body: Buffer, *, ended: bool) -> None:
        """The whole request. Raises `WireError`, and whatever the method raises."""
        if ended:
            self._method.handle(self, wire.unary_message(body, self._max_message_bytes, self._head.encoding))

    def reply(self, message: bytes) -> None:
        if self._open:
            self._open = False
            self._carrier.answer(self._stream_id, message)

    def fail(self, status: StatusCode, message: str) -> None:
        if self._open:
            self._open = False
            self._carrier.fail(self._stream_id, wire.trailers_only(status, message))

    def send(self, message: bytes) -> None:
        raise TypeError("a unary call is answered with reply")

    def finish(self) -> None:
        raise TypeError("a unary call is answered with reply")

    def drain(self) -> None:
        """Nothing to do: the answer is on its way."""


class StreamCall(_Http2Call):
    """Any number of messages both ways."""

    __slots__ = ("_begun", "_reader", "_receiver")

    def __init__(
        self,
        carrier: Carrier,
        stream_id: int,
        head: RequestHead,
        deadline: float,
        max_message_bytes: int,
        method: StreamMethod,
    ) -> None:
        super().__init__(carrier, stream_id, head, deadline, max_message_bytes)
        self._begun = False
        self._reader = MessageReader(max_message_bytes, head.encoding)
        self._receiver: Receiver = method.open(self)

    def receive(self, body: Buffer, *, ended: bool) -> None:
        """A part of what the caller sends. Raises `WireError`, and whatever the method raises."""
        for message in self._reader.feed(body):
            if not self._open:
                return
            self._receiver.message(message)
        if ended and self._open:
            self._reader.finish()
            self._receiver.half_closed()

    def reply(self, message: bytes) -> None:
        self.send(message)
        self.finish()

    def send(self, message: bytes) -> None:
        if self._open:
            self._begin()
            self._carrier.send(self._stream_id, message)

    def finish(self) -> None:
        if self._open:
            self._begin()
            self._open = False
            self._carrier.end(self._stream_id, wire.OK_TRAILERS)

    def fail(self, status: StatusCode, message: str) -> None:
        if not self._open:
            return
        self._open = False
        if self._begun:
            self._carrier.end(self._stream_id, wire.trailers(status, message))
        else:
            self._carrier.fail(self._stream_id, wire.trailers_only(status, message))

    def drain(self) -> None:
        """The server is about to stop."""
        if self._open:
            self._receiver.drain()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._carrier.begin(self._stream_id)
