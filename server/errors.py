"""Every way a request or a load can fail, named for what happened.

This room knows nothing of gRPC or HTTP: `frontends` owns the one table from these classes to wire statuses.
Messages follow Triton's wording wherever Triton has the case, because clients match on it.

    ConvoyError
    ├── InvalidRequest          the caller must change the request
    │   ├── WrongShape          its tensors have shapes that the model does not take, or other sizes than they say
    │   ├── TooLarge            it asks for more rows, elements or pixels than may ever be
    │   │   └── RequestTooLarge its message is larger than this server reads
    │   ├── AlreadyExists       the name is taken
    │   └── SequenceNotStarted  it goes on with a sequence that is not there
    ├── NotFound                no such model or version here
    │   └── RegionNotFound      no such shared memory here
    ├── Unauthenticated         the caller has shown no credential that is valid here
    ├── Forbidden               the caller is known, or need not be, and may not do this
    ├── SharedMemoryFailed      the caller's shared memory cannot be opened, read or written to
    ├── Unsupported             a known operation that this server or model does not offer
    ├── Unavailable             the same request may succeed later, or elsewhere
    │   ├── NotReady            the version, or the server, is not serving yet or any more
    │   │   └── ShuttingDown    the server is going down
    │   ├── RateLimited         the caller asks more often, or for more, than it may
    │   ├── QueueFull           the model's queue has no room now
    │   ├── MemoryFull          the server's memory budget has no room now
    │   ├── Overloaded          the latency objective cannot be kept behind the work that is already accepted
    │   ├── ObjectiveMissed     the latency objective can no longer be kept
    │   ├── QueueTimeout        the request's own time in the queue ran out
    │   └── OutOfMemory         the run found no memory
    ├── DeadlineExceeded        the caller's deadline passed before the batch ran
    ├── AnswersUnread           the caller leaves too many answers unread to be given another one
    ├── Cancelled               the caller went away
    ├── ExecutionFailed         the backend raised, or returned something impossible
    │   └── RunTimedOut         the run took longer than the model may
    └── LoadFailed              a version cannot be loaded
        ├── ConfigInvalid       its config.pbtxt asks for the unknown or the impossible
        ├── LoadTimedOut        the load, or a run of it, took longer than it may
        └── ChecksumWrong       a file of it at a distance is not what its maker meant
"""

from __future__ import annotations

from copy import copy
from enum import StrEnum
from typing import ClassVar, Self


class FailureReason(StrEnum):
    """The `reason` label of `nv_inference_request_failure`, spelled as Triton spells it."""

    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    BACKEND = "BACKEND"
    OTHER = "OTHER"


class Reason(StrEnum):
    """Why a request got no result: the `reason` label of `convoy_request_failed_total`, a closed list.

    Each calls for another answer: more room, more capacity, a longer deadline, a better caller, a better model.
    """

    QUEUE_FULL = "queue_full"
    """The queue's bounds, or the server's bytes."""
    MEMORY = "memory"
    """The server's memory budget, or a connection's share of it."""
    OVERLOADED = "overloaded"
    """Refused on arrival, since the latency objective could not be kept."""
    TOO_LATE = "too_late"
    """It waited until its deadline, its timeout or the model's objective had passed."""
    INVALID = "invalid"
    SHAPE = "shape"
    OVERSIZE = "oversize"
    UNKNOWN_MODEL = "unknown_model"
    CANCELLED = "cancelled"
    BACKEND = "backend"
    OUT_OF_MEMORY = "out_of_memory"
    NOT_READY = "not_ready"
    SHUTDOWN = "shutdown"
    INTERNAL = "internal"
    """A bug of the server's; its log has the details."""
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"
    """Of the caller's own limits, whatever the server could do."""


TRITON_REASONS: dict[Reason, FailureReason] = {
    Reason.QUEUE_FULL: FailureReason.REJECTED,
    Reason.OVERLOADED: FailureReason.REJECTED,
    Reason.TOO_LATE: FailureReason.REJECTED,
    Reason.INVALID: FailureReason.OTHER,
    Reason.SHAPE: FailureReason.OTHER,
    Reason.OVERSIZE: FailureReason.OTHER,
    Reason.UNKNOWN_MODEL: FailureReason.OTHER,
    Reason.CANCELLED: FailureReason.CANCELED,
    Reason.BACKEND: FailureReason.BACKEND,
    Reason.OUT_OF_MEMORY: FailureReason.BACKEND,
    Reason.NOT_READY: FailureReason.REJECTED,
    Reason.SHUTDOWN: FailureReason.REJECTED,
    Reason.MEMORY: FailureReason.REJECTED,
    Reason.INTERNAL: FailureReason.OTHER,
    Reason.UNAUTHENTICATED: FailureReason.OTHER,
    Reason.FORBIDDEN: FailureReason.OTHER,
    Reason.RATE_LIMITED: FailureReason.REJECTED,
}

CALLERS_FAULT = frozenset(
    {
        Reason.INVALID,
        Reason.SHAPE,
        Reason.OVERSIZE,
        Reason.UNKNOWN_MODEL,
        Reason.UNAUTHENTICATED,
        Reason.FORBIDDEN,
        Reason.RATE_LIMITED,
    }
)
"""No server could have answered: such a request misses no deadline."""


MAX_MESSAGE_LENGTH = 4000
"""Characters of what a caller is told. It may quote names of the caller's, which may be of any length."""


def one_line(text: str) -> str:
    """A text for logs and callers: cut at `MAX_MESSAGE_LENGTH`, and whatever would begin a new line spelled out."""
    if len(text) > MAX_MESSAGE_LENGTH:
        text = text[: MAX_MESSAGE_LENGTH - 3] + "..."
    if text.isprintable():
        return text
    escaped = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return escaped if len(escaped) <= MAX_MESSAGE_LENGTH else escaped[: MAX_MESSAGE_LENGTH - 3] + "..."


class ConvoyError(Exception):
    """Base of all errors that a caller may be told about. `str(error)` is the sentence to tell, made by `one_line`."""

    reason: ClassVar[Reason]
    """Every class that is raised has one."""
    code: ClassVar[str] = ""
    """For programs: why the server turned the request away, although there is nothing wrong with it."""
    for_logs: str = ""
    """What logs and traces say instead of `str(error)`, where that has words of the runtime: they may quote tensors."""

    def __str__(self) -> str:
        return one_line(super().__str__())

    def logged_as(self, text: str) -> Self:
        """The same, with `for_logs`."""
        self.for_logs = one_line(text)
        return self

    def within(self, where: str) -> Self:
        """The same error, told by something around what it happened in: `where` goes in front of its sentences."""
        told = copy(self)
        told.args = (where + str(self), *self.args[1:])
        if self.for_logs:
            told.for_logs = where + self.for_logs
        return told


class InvalidRequest(ConvoyError):
    """The request can never succeed as it stands."""

    reason = Reason.INVALID


class WrongShape(InvalidRequest):
    """Its tensors have shapes that the model does not take, or other sizes than their shapes say."""

    reason = Reason.SHAPE


class TooLarge(InvalidRequest):
    """It asks for more rows, elements or pixels than the model ever takes."""

    reason = Reason.OVERSIZE


class SequenceNotStarted(InvalidRequest):
    """It goes on with a sequence that nobody has started, or that was silent for too long."""


class NotFound(ConvoyError):
    """No such model or version is known here."""

    reason = Reason.UNKNOWN_MODEL


class Unauthenticated(ConvoyError):
    """The caller has shown no credential, or none that is valid here."""

    reason = Reason.UNAUTHENTICATED
    code = "unauthenticated"

    def __init__(self, message: str, *, shown: bool = False) -> None:
        super().__init__(message)
        self.shown = shown
        """Whether the caller has shown one."""


class Forbidden(ConvoyError):
    """The caller may not do this here. Whether what it asks for exists is not said."""

    reason = Reason.FORBIDDEN
    code = "forbidden"


class AlreadyExists(InvalidRequest):
    """The name that the caller gives is taken."""


class RegionNotFound(NotFound):
    """No shared memory of this name is registered."""

    reason = Reason.INVALID


class SharedMemoryFailed(ConvoyError):
    """Shared memory of the caller cannot be opened, read or written to, or is too small for an output."""

    reason = Reason.INVALID


class Unsupported(ConvoyError):
    """A known operation that this server, or this model, does not offer."""

    reason = Reason.INVALID


class Unavailable(ConvoyError):
    """The same request may succeed later, or on another server."""

    reason = Reason.NOT_READY


class NotReady(Unavailable):
    """The version, or the whole server, is not serving yet or any more."""

    code = "not_ready"


class ShuttingDown(NotReady):
    """The server is going down: another one may answer."""

    reason = Reason.SHUTDOWN


class QueueFull(Unavailable):
    """The model's queue has no room now."""

    reason = Reason.QUEUE_FULL
    code = "queue_full"


class MemoryFull(Unavailable):
    """The server's memory budget has no room for the request now, or none for its answer."""

    reason = Reason.MEMORY
    code = "memory_full"


class RateLimited(Unavailable):
    """The caller asks more often, or for more bytes, than its limits allow."""

    reason = Reason.RATE_LIMITED
    code = "rate_limited"

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds after which the same request would be within the limits, if the caller asked nothing else."""


class Overloaded(Unavailable):
    """The latency objective cannot be kept behind the work that is already accepted."""

    reason = Reason.OVERLOADED
    code = "overloaded"

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds after which the request would be accepted, if nothing else came."""


class ObjectiveMissed(Unavailable):
    """The request was accepted, and can no longer be answered within the latency objective."""

    reason = Reason.TOO_LATE
    code = "objective_missed"


class QueueTimeout(Unavailable):
    """The time that the request may spend in the queue ran out."""

    reason = Reason.TOO_LATE
    code = "queue_timeout"


class OutOfMemory(Unavailable):
    """The run found no memory. What is free changes with what else runs, here and elsewhere."""

    reason = Reason.OUT_OF_MEMORY
    code = "out_of_memory"


class DeadlineExceeded(ConvoyError):
    """The caller's deadline passed before its batch ran."""

    reason = Reason.TOO_LATE


class RequestTooLarge(TooLarge):
    """Its message, or its head, is larger than this server reads."""


class AnswersUnread(ConvoyError):
    """The caller leaves so many answers of its connection unread that there is no room for another one."""

    reason = Reason.MEMORY
    code = "answers_unread"


class Cancelled(ConvoyError):
    """The caller went away before its answer was ready."""

    reason = Reason.CANCELLED


class ExecutionFailed(ConvoyError):
    """The backend raised, or returned something impossible."""

    reason = Reason.BACKEND


class RunTimedOut(ExecutionFailed):
    """The run took longer than a run of the model may. Another try would hold the model up as long."""


class LoadFailed(ConvoyError):
    """A version cannot be loaded. The message names the file and what to do, and is short whatever it quotes."""

    reason = Reason.NOT_READY

    def __init__(self, message: str = "") -> None:
        super().__init__(_shortened(message))


MOST_CHARACTERS = 2000
"""Of a message that may quote names and numbers from files: it is logged, and told to every caller of the model."""


def _shortened(message: str) -> str:
    """The message without its middle, where it is too long."""
    left_out = len(message) - MOST_CHARACTERS
    if left_out <= 0:
        return message
    end = MOST_CHARACTERS // 4
    return f"{message[: MOST_CHARACTERS - end]} [{left_out} characters left out] {message[-end:]}"


class ConfigInvalid(LoadFailed):
    """A model's configuration asks for the unknown or the impossible. The message names file and field."""


class LoadTimedOut(LoadFailed):
    """The load, or a run of it, took longer than it may. Another try would take as long."""


class ChecksumWrong(LoadFailed):
    """A repository at a distance has a file that is not what its maker meant: it need not be fetched again."""
