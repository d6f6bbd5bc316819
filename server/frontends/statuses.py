"""The one table from domain errors to gRPC statuses. A test proves that it covers every error there is."""

from __future__ import annotations

from server import errors
from server.errors import ConvoyError
from server.frontends.calls import StatusCode

STATUSES: dict[type[ConvoyError], StatusCode] = {
    errors.InvalidRequest: StatusCode.INVALID_ARGUMENT,
    errors.NotFound: StatusCode.NOT_FOUND,
    errors.Unsupported: StatusCode.UNIMPLEMENTED,
    errors.Unavailable: StatusCode.UNAVAILABLE,
    errors.NotReady: StatusCode.UNAVAILABLE,
    errors.QueueFull: StatusCode.UNAVAILABLE,
    errors.QueueTimeout: StatusCode.UNAVAILABLE,
    errors.OutOfMemory: StatusCode.UNAVAILABLE,  # not RESOURCE_EXHAUSTED: that is said of too large messages, for good
    errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: StatusCode.CANCELLED,
    errors.ExecutionFailed: StatusCode.INTERNAL,
    errors.LoadFailed: StatusCode.INVALID_ARGUMENT,
    errors.ConfigInvalid: StatusCode.INVALID_ARGUMENT,
}


def status_of(error: ConvoyError) -> StatusCode:
    """The status that a caller is told for this error."""
    return STATUSES[type(error)]
