"""What a gRPC engine offers to the methods it carries, free of any gRPC library.

An engine reads bytes, finds the `Method`, and hands it a `Call`. A method answers through the call when it has an
answer: at once, or later from a callback. Everything happens on the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, Protocol

from server.errors import Cancelled, ConvoyError, Reason
from server.ledger import Account
from server.tensors import Buffer

INTERNAL_MESSAGE = "the server failed while it handled this call; its log has the details"
"""What a caller is told of a bug."""

CALLER_GONE = Cancelled("the caller has gone")
"""Why an answer is not given to anybody."""


class StatusCode(IntEnum):
    """gRPC's status codes (grpc.io, "Status codes and their use in gRPC")."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_REASONS = {
    StatusCode.CANCELLED: Reason.CANCELLED,
    StatusCode.UNKNOWN: Reason.INTERNAL,
    StatusCode.INTERNAL: Reason.INTERNAL,
    StatusCode.DEADLINE_EXCEEDED: Reason.TOO_LATE,
    StatusCode.RESOURCE_EXHAUSTED: Reason.OVERSIZE,
    StatusCode.UNAVAILABLE: Reason.NOT_READY,
}


def reason_of(status: StatusCode) -> Reason:
    """Why a call ended with an error that is none of a model's."""
    return _REASONS.get(status, Reason.INVALID)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection."""

    address: str
    """As logs have it: an IP address and a port, or `unix:`; "" where nobody knows."""
    certificate: tuple[str, ...] = ()
    """Names in the certificate that it has shown, and that was verified: `CN:…`, `DNS:…`, `URI:…`, `email:…`."""


NOBODY = Peer("")


class Later(Enum):
    """What `Call.reply` returns where it is not known yet whether the answer can be given."""

    LATER = "later"


LATER: Final = Later.LATER


class Call(Protocol):
    """One call in progress. It ends with exactly one of `reply`, `finish` or `fail`; what comes later is ignored."""

    deadline: float
    """The caller's deadline on `time.monotonic`'s clock, seconds; inf where it set none."""
    on_cancel: Callable[[], None] | None
    """Set by the method: called once if the call ends otherwise than by it, mostly since the caller has gone."""

    @property
    def protocol(self) -> str:
        """`records.GRPC` or `records.HTTP`."""
        ...

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        """The caller's metadata; values of keys that end in "-bin" are bytes."""
        ...

    @property
    def peer(self) -> Peer:
        """Who calls, as far as its connection tells."""
        ...

    @property
    def authorization(self) -> str:
        """The caller's metadata `authorization`, "" where there is none. Cheaper than to decode all of it."""
        ...

    def has_metadata(self, key: str) -> bool:
        """Whether the caller's metadata has this key. Cheaper than to decode all of it."""
        ...

    def send_initial_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        """Open the answer with this metadata: at most once, before any message."""
        ...

    def set_trailing_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        """What will accompany the status, whichever it is."""
        ...

    def compress_messages(self, wanted: bool) -> None:
        """Compress the messages that follow, where the caller understands it. To be asked for before the first."""
        ...

    def reply(self, message: Buffer) -> ConvoyError | Later | None:
        """End a unary call with its answer and OK. Returns the error that it ended with instead, where there is no room
        for the answer; LATER where the answer takes a while to compress: `on_cancel` is called if it is not given."""
        ...

    def send(self, message: bytes) -> None:
        """Add a message to a streaming answer."""
        ...

    def finish(self) -> None:
        """End a streaming answer with OK."""
        ...

    def fail(self, status: StatusCode, message: str, reason: Reason | None = None) -> None:
        """End the call with an error; `reason` is for the ledger, which otherwise takes `reason_of(status)`."""
        ...


class Receiver(Protocol):
    """A streaming method's ear for what the caller sends."""

    def message(self, data: Buffer) -> None: ...

    def half_closed(self) -> None:
        """The caller will send no more."""
        ...

    def drain(self) -> None:
        """The server is about to stop: end the call as soon as its answers allow. Called at most once."""
        ...


@dataclass(frozen=True, slots=True)
class UnaryMethod:
    """One message in, one out."""

    handle: Callable[[Call, Buffer], None]
    begin: Callable[[Call], None] | None = None
    """Called, where an engine can, of a call whose message has not come whole: it may end the call before the rest
    comes. Others are not worth the while."""
    account: Account | None = None
    """Where its calls are accounted for, each from when its message is there whole until it ends."""


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """Any number of messages in and out."""

    open: Callable[[Call], Receiver]


Method = UnaryMethod | StreamMethod
MethodTable = Mapping[str, Method]
"""Methods by their full path, "/package.Service/Name"."""
