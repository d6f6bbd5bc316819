"""How often a peer may ping."""

from __future__ import annotations

import pytest

from server.frontends.grpc.pings import QUIET_INTERVAL, PingGuard


def guard(max_strikes: int = 2, *, permit_without_calls: bool = False) -> PingGuard:
    return PingGuard(300.0, max_strikes, permit_without_calls=permit_without_calls)


def verdicts(pings: PingGuard, *times: float, open_calls: int = 1) -> list[bool]:
    return [pings.allow(now, open_calls=open_calls) for now in times]


def test_a_peer_that_keeps_the_interval_may_ping_for_ever() -> None:
    assert all(verdicts(guard(), *(300.0 * i for i in range(100))))


def test_a_peer_may_ping_too_often_as_often_as_it_has_strikes() -> None:
    assert verdicts(guard(2), 0, 1, 2, 3) == [True, True, True, False]


def test_without_an_open_call_the_interval_is_hours() -> None:
    assert verdicts(guard(1), 0, 301, 602, open_calls=0) == [True, True, False]
    assert all(verdicts(guard(1), 0, QUIET_INTERVAL, 2 * QUIET_INTERVAL, open_calls=0))


def test_pings_without_calls_can_be_permitted() -> None:
    assert all(verdicts(guard(1, permit_without_calls=True), 0, 301, 602, open_calls=0))


def test_data_that_was_sent_forgives_everything() -> None:
    pings = guard(1)
    assert verdicts(pings, 0, 1) == [True, True]
    pings.data_sent()
    assert verdicts(pings, 2, 3, 4) == [True, True, False]


@pytest.mark.parametrize("count", [10, 1000])
def test_no_strikes_means_no_limit(count: int) -> None:
    assert all(verdicts(guard(0), *([0.0] * count)))
