"""The table from errors to statuses is total."""

from __future__ import annotations

import pytest

from server.errors import ConvoyError
from server.frontends.calls import StatusCode
from server.frontends.statuses import STATUSES, status_of


def every(error: type[ConvoyError]) -> list[type[ConvoyError]]:
    """All classes below this one."""
    return [kind for child in error.__subclasses__() for kind in (child, *every(child))]


def test_every_error_has_a_status() -> None:
    assert set(STATUSES) == set(every(ConvoyError))


@pytest.mark.parametrize("kind", every(ConvoyError), ids=lambda kind: kind.__name__)
def test_no_error_is_ok_or_unknown(kind: type[ConvoyError]) -> None:
    assert status_of(kind("why")) not in (StatusCode.OK, StatusCode.UNKNOWN)


EXPECTED = {
    "InvalidRequest": StatusCode.INVALID_ARGUMENT,
    "NotFound": StatusCode.NOT_FOUND,
    "Unsupported": StatusCode.UNIMPLEMENTED,
    "NotReady": StatusCode.UNAVAILABLE,
    "QueueFull": StatusCode.UNAVAILABLE,
    "QueueTimeout": StatusCode.UNAVAILABLE,
    "OutOfMemory": StatusCode.UNAVAILABLE,
    "DeadlineExceeded": StatusCode.DEADLINE_EXCEEDED,
    "Cancelled": StatusCode.CANCELLED,
    "ExecutionFailed": StatusCode.INTERNAL,
}
"""As Triton has them; OutOfMemory is INTERNAL there, which nobody tries again."""


@pytest.mark.parametrize(("name", "status"), EXPECTED.items())
def test_requests_fail_with_tritons_statuses(name: str, status: StatusCode) -> None:
    [kind] = [kind for kind in every(ConvoyError) if kind.__name__ == name]
    assert status_of(kind("why")) is status
