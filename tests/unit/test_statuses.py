"""The table from errors to statuses is total."""

from __future__ import annotations

import pytest

from server.errors import ConvoyError, InvalidRequest, ObjectiveMissed, Overloaded, QueueFull, QueueTimeout
from server.frontends.calls import StatusCode
from server.frontends.statuses import AS_TRITON, DISTINCT, STATUSES
from tests.fakes import FakeCall
from tests.unit.error_classes import every


def test_every_error_has_a_status() -> None:
    assert set(STATUSES) == set(every(ConvoyError))


@pytest.mark.parametrize("kind", every(ConvoyError), ids=lambda kind: kind.__name__)
def test_no_error_is_ok_or_unknown(kind: type[ConvoyError]) -> None:
    assert STATUSES[kind] not in (StatusCode.OK, StatusCode.UNKNOWN)


EXPECTED = {
    "InvalidRequest": StatusCode.INVALID_ARGUMENT,
    "NotFound": StatusCode.NOT_FOUND,
    "Unsupported": StatusCode.UNIMPLEMENTED,
    "NotReady": StatusCode.UNAVAILABLE,
    "QueueFull": StatusCode.UNAVAILABLE,
    "QueueTimeout": StatusCode.UNAVAILABLE,
    "Overloaded": StatusCode.UNAVAILABLE,
    "ObjectiveMissed": StatusCode.UNAVAILABLE,
    "OutOfMemory": StatusCode.UNAVAILABLE,
    "DeadlineExceeded": StatusCode.DEADLINE_EXCEEDED,
    "Cancelled": StatusCode.CANCELLED,
    "ExecutionFailed": StatusCode.INTERNAL,
}
"""As Triton has them; OutOfMemory is INTERNAL there, which nobody tries again."""


@pytest.mark.parametrize(("name", "status"), EXPECTED.items())
def test_requests_fail_with_tritons_statuses(name: str, status: StatusCode) -> None:
    [kind] = [kind for kind in every(ConvoyError) if kind.__name__ == name]
    assert STATUSES[kind] is status


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (QueueFull, StatusCode.RESOURCE_EXHAUSTED),
        (Overloaded, StatusCode.RESOURCE_EXHAUSTED),
        (ObjectiveMissed, StatusCode.DEADLINE_EXCEEDED),
        (QueueTimeout, StatusCode.DEADLINE_EXCEEDED),
    ],
)
def test_overload_and_lateness_have_statuses_of_their_own_where_that_is_asked_for(
    kind: type[ConvoyError], status: StatusCode
) -> None:
    call = FakeCall()
    DISTINCT.fail(call, kind("why"))
    assert (call.status, call.message) == (status, "why")


@pytest.mark.parametrize("kind", [kind for kind in every(ConvoyError) if kind.code], ids=lambda kind: kind.__name__)
def test_whoever_is_turned_away_hears_why_in_a_word(kind: type[ConvoyError]) -> None:
    call = FakeCall()
    AS_TRITON.fail(call, kind("why"))
    assert call.trailing["convoy-reason"] == kind.code


def test_an_overloaded_server_says_when_to_come_again() -> None:
    call = FakeCall()
    AS_TRITON.fail(call, Overloaded("why", retry_after=0.0121))
    assert call.trailing == {"convoy-reason": "overloaded", "grpc-retry-pushback-ms": "13"}


def test_a_wrong_request_gets_no_metadata() -> None:
    call = FakeCall()
    AS_TRITON.fail(call, InvalidRequest("why"))
    assert call.trailing == {}
