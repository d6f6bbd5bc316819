"""Every way a request or a load can fail, named for what happened.

This room knows nothing of gRPC or HTTP: `frontends` owns the one table from these classes to wire statuses.
Messages follow Triton's wording wherever Triton has the case, because clients match on it.

    ConvoyError
    ├── InvalidRequest          the caller must change the request
    ├── NotFound                no such model or version here
    ├── Unsupported             a known operation that this server or model does not offer
    ├── Unavailable             the same request may succeed later, or elsewhere
    │   ├── NotReady            the version, or the server, is not serving yet or any more
    │   ├── QueueFull           the model's queue has no room now
    │   ├── Overloaded          the latency objective cannot be kept behind the work that is already accepted
    │   ├── ObjectiveMissed     the latency objective can no longer be kept
    │   ├── QueueTimeout        the request's own time in the queue ran out
    │   └── OutOfMemory         the run found no memory
    ├── DeadlineExceeded        the caller's deadline passed before the batch ran
    ├── Cancelled               the caller went away
    ├── ExecutionFailed         the backend raised, or returned something impossible
    └── LoadFailed              a version cannot be loaded
        └── ConfigInvalid       its config.pbtxt asks for the unknown or the impossible
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Self


class FailureReason(StrEnum):
    """The `reason` label of `nv_inference_request_failure`, spelled as Triton spells it."""

    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    BACKEND = "BACKEND"
    OTHER = "OTHER"


class ConvoyError(Exception):
    """Base of all errors that a caller may be told about. `str(error)` is the sentence to tell."""

    reason: ClassVar[FailureReason] = FailureReason.OTHER
    code: ClassVar[str] = ""
    """For programs: why the server turned the request away, although there is nothing wrong with it."""
    for_logs: str = ""
    """What logs and traces say instead of `str(error)`, where that has words of the runtime: they may quote tensors."""

    def logged_as(self, text: str) -> Self:
        """The same, with `for_logs`."""
        self.for_logs = text
        return self


class InvalidRequest(ConvoyError):
    """The request can never succeed as it stands."""


class NotFound(ConvoyError):
    """No such model or version is known here."""


class Unsupported(ConvoyError):
    """A known operation that this server, or this model, does not offer."""


class Unavailable(ConvoyError):
    """The same request may succeed later, or on another server."""

    reason = FailureReason.REJECTED


class NotReady(Unavailable):
    """The version, or the whole server, is not serving yet or any more."""

    code = "not_ready"


class QueueFull(Unavailable):
    """The model's queue has no room now."""

    code = "queue_full"


class Overloaded(Unavailable):
    """The latency objective cannot be kept behind the work that is already accepted."""

    code = "overloaded"

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds after which the request would be accepted, if nothing else came."""


class ObjectiveMissed(Unavailable):
    """The request was accepted, and can no longer be answered within the latency objective."""

    code = "objective_missed"


class QueueTimeout(Unavailable):
    """The time that the request may spend in the queue ran out."""

    code = "queue_timeout"


class OutOfMemory(Unavailable):
    """The run found no memory. What is free changes with what else runs, here and elsewhere."""

    reason = FailureReason.BACKEND
    code = "out_of_memory"


class DeadlineExceeded(ConvoyError):
    """The caller's deadline passed before its batch ran."""

    reason = FailureReason.REJECTED


class Cancelled(ConvoyError):
    """The caller went away before its answer was ready."""

    reason = FailureReason.CANCELED


class ExecutionFailed(ConvoyError):
    """The backend raised, or returned something impossible."""

    reason = FailureReason.BACKEND


class LoadFailed(ConvoyError):
    """A version cannot be loaded. The message names the file and what to do."""


class ConfigInvalid(LoadFailed):
    """A model's configuration asks for the unknown or the impossible. The message names file and field."""
