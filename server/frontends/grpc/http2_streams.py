"""Streaming calls over HTTP/2."""

from __future__ import annotations

from collections import deque

from server.errors import ConvoyError
from server.frontends.calls import Receiver
from server.frontends.grpc.framing import MessageReader
from server.frontends.grpc.http2_calls import Carrier, Http2Call, StreamRoute
from server.tensors import Buffer


class StreamCall(Http2Call[StreamRoute]):
    """Any number of messages both ways."""

    __slots__ = ("_draining", "_ended", "_reader", "_receiver", "_waiting")

    def __init__(self, carrier: Carrier, stream_id: int, route: StreamRoute, deadline: float) -> None:
        super().__init__(carrier, stream_id, route, deadline)
        self._receiver: Receiver | None = None
        self._reader = MessageReader(carrier.max_message_bytes, route.head.encoding)
        self._waiting: deque[Buffer] = deque()  # what came while the caller did not read its answers
        self._draining = False
        self._ended = False

    @property
    def held_bytes(self) -> int:
        """How much of what the caller has sent waits for more of it, or for the caller to read."""
        return self._reader.held_bytes + sum(map(len, self._waiting))

    def receive(self, body: Buffer, *, ended: bool) -> None:
        """A part of what the caller sends.

        Stops where the caller leaves too many answers unread. To go on then, call it again, with nothing new.
        """
        try:
            self._receive(body, ended)
        except Exception as error:  # noqa: BLE001 -- it must not harm the connection's other calls
            self.give_up(error)

    def _receive(self, body: Buffer, ended: bool) -> None:
        if self._receiver is None:
            self._receiver = self._route.method.open(self)
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

    def reply(self, message: Buffer) -> ConvoyError | None:
        self.send(bytes(message))
        self.finish()
        return None

    def send(self, message: bytes) -> None:
        if self._open:
            self._send(message)

    def finish(self) -> None:
        if self._open:
            self._end()

    def drain(self) -> None:
        """The server is about to stop."""
        if self._open and self._receiver is not None and not self._draining:
            self._draining = True
            try:
                self._receiver.drain()
            except Exception as error:  # noqa: BLE001 -- it must not harm the connection's other calls
                self.give_up(error)
