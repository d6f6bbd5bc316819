"""From domain errors to gRPC statuses, in one table. A test proves that it covers every error there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from server import errors
from server.errors import ConvoyError
from server.frontends.calls import Call, StatusCode

REASON_KEY = "convoy-reason"
"""Trailing metadata: the error's `code`."""
PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Trailing metadata: when to come again. gRPC's own retries obey it (gRPC proposal A6)."""

CHALLENGE_KEY = "www-authenticate"
"""What a caller should show (RFC 9110, 11.6.1; RFC 6750, 3). A header over HTTP, trailing metadata over gRPC."""
CHALLENGE = 'Bearer realm="convoy"'
CHALLENGE_WRONG = f'{CHALLENGE}, error="invalid_token"'

STATUSES: dict[type[ConvoyError], StatusCode] = {
    errors.InvalidRequest: StatusCode.INVALID_ARGUMENT,
    errors.WrongShape: StatusCode.INVALID_ARGUMENT,
    errors.TooLarge: StatusCode.INVALID_ARGUMENT,
    errors.RequestTooLarge: StatusCode.RESOURCE_EXHAUSTED,
    errors.AlreadyExists: StatusCode.ALREADY_EXISTS,
    errors.SequenceNotStarted: StatusCode.INVALID_ARGUMENT,
    errors.NotFound: StatusCode.NOT_FOUND,
    errors.RegionNotFound: StatusCode.NOT_FOUND,
    errors.SharedMemoryFailed: StatusCode.INTERNAL,  # the caller's doing, but Triton says so
    errors.Unsupported: StatusCode.UNIMPLEMENTED,
    errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
    errors.Forbidden: StatusCode.PERMISSION_DENIED,
    errors.RateLimited: StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: StatusCode.UNAVAILABLE,
    errors.NotReady: StatusCode.UNAVAILABLE,
    errors.ShuttingDown: StatusCode.UNAVAILABLE,
    errors.QueueFull: StatusCode.UNAVAILABLE,
    errors.MemoryFull: StatusCode.UNAVAILABLE,
    errors.Overloaded: StatusCode.UNAVAILABLE,
    errors.ObjectiveMissed: StatusCode.UNAVAILABLE,
    errors.QueueTimeout: StatusCode.UNAVAILABLE,
    errors.OutOfMemory: StatusCode.UNAVAILABLE,  # not RESOURCE_EXHAUSTED: that is said of too large messages, for good
    errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    errors.AnswersUnread: StatusCode.RESOURCE_EXHAUSTED,
    errors.Cancelled: StatusCode.CANCELLED,
    errors.ExecutionFailed: StatusCode.INTERNAL,
    errors.RunTimedOut: StatusCode.INTERNAL,
    errors.LoadFailed: StatusCode.INVALID_ARGUMENT,
    errors.LoadTimedOut: StatusCode.INVALID_ARGUMENT,
    errors.ConfigInvalid: StatusCode.INVALID_ARGUMENT,
    errors.ChecksumWrong: StatusCode.INVALID_ARGUMENT,
}
"""As Triton has them. Triton says UNAVAILABLE for overload and for lateness, and many clients retry that at once."""

DISTINCT_STATUSES = STATUSES | {
    errors.QueueFull: StatusCode.RESOURCE_EXHAUSTED,
    errors.MemoryFull: StatusCode.RESOURCE_EXHAUSTED,
    errors.Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    errors.ObjectiveMissed: StatusCode.DEADLINE_EXCEEDED,
    errors.QueueTimeout: StatusCode.DEADLINE_EXCEEDED,
}
"""As gRPC's own guide has them: overload, lateness and a server that is not there are three things."""


@dataclass(frozen=True, slots=True)
class Failures:
    """How calls fail."""

    statuses: Mapping[type[ConvoyError], StatusCode]

    def fail(self, call: Call, error: ConvoyError) -> None:
        """End a call with an error; where the server turned it away, with why and when to come again."""
        if error.code:
            metadata: dict[str, str | bytes] = {REASON_KEY: error.code}
            if isinstance(error, errors.Overloaded | errors.RateLimited):
                metadata[PUSHBACK_KEY] = str(max(1, ceil(error.retry_after * 1000)))
            elif isinstance(error, errors.Unauthenticated):
                metadata[CHALLENGE_KEY] = CHALLENGE_WRONG if error.shown else CHALLENGE
            call.set_trailing_metadata(metadata)
        call.fail(self.statuses[type(error)], str(error), error.reason)


AS_TRITON = Failures(STATUSES)
DISTINCT = Failures(DISTINCT_STATUSES)
