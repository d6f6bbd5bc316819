"""`frontends.calls.Call` over a call of `grpc.aio`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any, NamedTuple
from urllib.parse import unquote

import grpc

from server.errors import ConvoyError, Reason
from server.frontends.calls import INTERNAL_MESSAGE, Peer, Receiver, StatusCode, reason_of
from server.ledger import Account
from server.memory_budget import MemoryBudget
from server.records import GRPC
from server.tensors import Buffer

log = logging.getLogger(__name__)

Context = Any  # grpc.aio.ServicerContext; grpcio ships no type information

UNSENT_STREAM_BYTES = 1 << 20
"""A streaming caller that leaves this much of its answers unread is not read from until it catches up."""

TURNS = 4
"""Of the event loop, that it takes to pass a cancellation on from grpcio to the task that reads requests, or fewer."""

WHITE_SPACE = " \t"
"""What may stand around the value of a header."""


class Failed(Exception):
    def __init__(self, status: StatusCode, message: str, reason: Reason | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason or reason_of(status)


class _GrpcioCall:
    """What both kinds of call share: the caller's deadline, metadata and departure, and the answer's metadata."""

    protocol = GRPC

    def __init__(self, context: Context) -> None:
        self._context = context
        remaining = context.time_remaining()
        self.deadline = inf if remaining is None else time.monotonic() + remaining
        self.on_cancel: Callable[[], None] | None = None
        self._opening: asyncio.Task[None] | None = None

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        return _joined(self._context.invocation_metadata())

    @property
    def peer(self) -> Peer:
        return Peer(_address(self._context.peer()), _names(self._context.auth_context()))

    @property
    def authorization(self) -> str:
        values = [value for name, value in self._context.invocation_metadata() if name == "authorization"]
        return str(values[-1]).strip(WHITE_SPACE) if values else ""

    def has_metadata(self, key: str) -> bool:
        return key in [name for name, _ in self._context.invocation_metadata()]

    def send_initial_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        if self._opening is None:
            self._opening = asyncio.create_task(self._context.send_initial_metadata(tuple(metadata.items())))

    def set_trailing_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        self._context.set_trailing_metadata(tuple(metadata.items()))

    async def opened(self) -> None:
        """Wait until initial metadata is on its way: grpcio sends it twice if asked meanwhile."""
        if self._opening is not None:
            await self._opening

    def _tell_method(self) -> None:
        on_cancel, self.on_cancel = self.on_cancel, None
        if on_cancel is None:
            return
        try:
            on_cancel()
        except Exception:
            log.exception("a method raised when it was told that its call is over")


class UnaryCall(_GrpcioCall):
    """`frontends.calls.Call` for one answer."""

    def __init__(self, context: Context, account: Account | None = None) -> None:
        super().__init__(context)
        self._account = account
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._compressed = False

    def compress_messages(self, wanted: bool) -> None:
        if self._opening is None:
            self._compressed = wanted
            self._context.set_compression(grpc.Compression.Gzip if wanted else grpc.Compression.NoCompression)

    async def opened(self) -> None:
        if self._compressed and self._opening is None:
            self.send_initial_metadata({})  # grpcio forgets the compression where it opens the answer itself
        await super().opened()

    def reply(self, message: Buffer) -> ConvoyError | None:
        if self.answer.done():
            self._ended_again()
        else:
            self.answer.set_result(bytes(message))
            if self._account is not None:
                self._account.answered += 1
        return None

    def fail(self, status: StatusCode, message: str, reason: Reason | None = None) -> None:
        if self.answer.done():
            self._ended_again()
        else:
            failure = Failed(status, message, reason)
            self.answer.set_exception(failure)
            if self._account is not None:
                self._account.fail(failure.reason)

    def _ended_again(self) -> None:
        """An answer came for a call that has ended. Who has just gone may not have told the method yet."""
        if self._account is not None and not self.answer.cancelled():
            self._account.answer_again()

    def cancel(self) -> None:
        """End the call since the method has broken, and tell it so."""
        if not self.answer.done():
            self.fail(StatusCode.INTERNAL, INTERNAL_MESSAGE)
            self._tell_method()

    def abandoned(self) -> None:
        """The caller has gone."""
        if not self.answer.done() or self.answer.cancelled():
            if self._account is not None:
                self._account.abandon()
            self._tell_method()

    def send(self, message: bytes) -> None:
        raise TypeError("a unary call is answered with reply")

    def finish(self) -> None:
        raise TypeError("a unary call is answered with reply")


class Answer(NamedTuple):
    message: bytes
    compressed: bool


class StreamCall(_GrpcioCall):
    """`frontends.calls.Call` for a stream of answers."""

    def __init__(self, context: Context, memory: MemoryBudget) -> None:
        super().__init__(context)
        self._memory = memory
        self.receiver: Receiver | None = None
        self.failure: Failed | None = None
        self.ended = False
        self.compressing = False
        """Whether messages are compressed unless said otherwise."""
        self._compress_next = False
        self._begun = False
        self.room = asyncio.Event()
        """Set while the caller keeps up with its answers."""
        self.room.set()
        self._outgoing: asyncio.Queue[Answer | None] = asyncio.Queue()
        self._unsent_bytes = 0

    async def hear_of_departure(self) -> None:
        """Wait, once requests have ended, until this task would have been cancelled if the caller had left.

        grpcio ends the requests of a caller who leaves as if they were complete, and tells of the departure at the
        same time: it is known after another round through grpcio, and the turns of the loop that pass it on.
        """
        await self._context.read()
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def next_answer(self) -> Answer | None:
        """The next message to send; None at the end. The one before it has been sent."""
        answer = await self._outgoing.get()
        if answer is not None:
            self._unsent_bytes -= len(answer.message)
            self._memory.used -= len(answer.message)
            if self._unsent_bytes <= UNSENT_STREAM_BYTES:
                self.room.set()
        return answer

    def forget_unsent(self) -> None:
        """The call is over: nobody will read the rest."""
        self._memory.used -= self._unsent_bytes
        self._unsent_bytes = 0

    def compress_messages(self, wanted: bool) -> None:
        if wanted and not self.compressing and not self._begun and self._opening is None:
            self.compressing = True
            self._context.set_compression(grpc.Compression.Gzip)
        self._compress_next = wanted

    def reply(self, message: Buffer) -> ConvoyError | None:
        self.send(bytes(message))
        self.finish()
        return None

    def send(self, message: bytes) -> None:
        if not self.ended:
            self._begun = True
            self._outgoing.put_nowait(Answer(message, self._compress_next))
            self._unsent_bytes += len(message)
            self._memory.used += len(message)
            if self._unsent_bytes > UNSENT_STREAM_BYTES:
                self.room.clear()

    def drain(self) -> None:
        """The server is about to stop."""
        if self.ended or self.receiver is None:
            return
        try:
            self.receiver.drain()
        except Exception:
            log.exception("a streaming method raised")
            self.cancel()

    def finish(self) -> None:
        if not self.ended:
            self.ended = True
            self._outgoing.put_nowait(None)

    def fail(self, status: StatusCode, message: str, reason: Reason | None = None) -> None:
        if not self.ended:
            self.failure = Failed(status, message, reason)
            self.finish()

    def cancel(self) -> None:
        """End the call since the method has broken, and tell it so."""
        if not self.ended:
            self.fail(StatusCode.INTERNAL, INTERNAL_MESSAGE)
            self._tell_method()

    def abandoned(self) -> None:
        """The caller has gone."""
        if not self.ended:
            self.ended = True
            self._tell_method()


_NAMES = {"x509_common_name": "CN", "peer_dns": "DNS", "peer_uri": "URI", "peer_email": "email"}
"""What grpc core calls the names in a certificate, and what `Peer` does."""


def _names(auth_context: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
    return tuple(
        f"{kind}:{value.decode('utf-8', 'replace')}"
        for key, kind in _NAMES.items()
        for value in auth_context.get(key, ())
        if value
    )


def _address(core: str) -> str:
    """Of what grpc core calls a peer: "ipv4:127.0.0.1:1234", "ipv6:%5B::1%5D:1234", "unix:"."""
    return "unix:" if core.startswith("unix") else unquote(core.partition(":")[2])


def _joined(pairs: Iterable[tuple[str, str | bytes]]) -> dict[str, str | bytes]:
    """Metadata as a mapping, as HTTP has it: repeated values are joined by a comma, and white space around a value is
    no part of it."""
    metadata: dict[str, str | bytes] = {}
    for key, sent in pairs:
        value = sent.strip(WHITE_SPACE) if isinstance(sent, str) else sent
        earlier = metadata.get(key)
        if isinstance(earlier, bytes) and isinstance(value, bytes):
            metadata[key] = earlier + b"," + value
        elif isinstance(earlier, str) and isinstance(value, str):
            metadata[key] = f"{earlier},{value}"
        else:
            metadata[key] = value
    return metadata
