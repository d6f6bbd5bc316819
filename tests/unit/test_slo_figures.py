"""Figures that only some moments show: what admission and patience reckon with, in a queue with an objective."""

from __future__ import annotations

from math import inf

import pytest

from server.errors import Overloaded
from tests.fakes import NamedTicket, names
from tests.unit.costing import linear, measure
from tests.unit.slo_queues import BY_ROWS, PAYING, end, occupy, put, queue, uncalibrated


def test_a_batch_that_nobody_knows_the_cost_of_holds_nobody_up() -> None:
    q, costs = uncalibrated(objective=3)
    occupy(q)
    measure(costs, BY_ROWS)
    q.limit_rows(4, None)
    put(q, NamedTicket("a"), NamedTicket("b"), NamedTicket("c"))
    with pytest.raises(Overloaded):
        put(q, NamedTicket("d"))


def test_an_idle_lane_lets_in_one_that_typically_is_just_in_time() -> None:
    q = queue(lanes=2, worst=2.0)
    occupy(q)
    put(q, NamedTicket("a", deadline=1))
    assert len(q) == 1


def test_work_that_waits_for_an_idle_lane_is_reckoned_in_seconds_for_each_batch() -> None:
    q = queue(linear(fixed=0, per_row=2), objective=5)
    put(q, NamedTicket("a"), NamedTicket("b"))
    with pytest.raises(Overloaded) as caught:
        put(q, NamedTicket("c"))
    assert caught.value.retry_after == 1


def test_of_several_lanes_that_take_longer_than_expected_each_is_expected_to_end_now() -> None:
    q = queue(lanes=2)
    for _ in range(2):
        occupy(q)
    with pytest.raises(Overloaded):
        put(q, NamedTicket("a", arrived=10, deadline=10.5))
    put(q, NamedTicket("b", arrived=10, deadline=11))


def test_those_who_are_expected_to_join_are_reckoned_until_a_lane_is_free_whatever_the_time_of_day() -> None:
    q = queue(PAYING)
    for second in (800, 900):
        end(q, occupy(q, second), second)
    occupy(q, 1000)
    put(q, NamedTicket("alone", arrived=1001, deadline=1011))
    assert len(q) == 1


def test_all_of_a_more_urgent_level_is_work_ahead_even_what_is_due_later() -> None:
    q = queue(levels=2)
    put(q, *(NamedTicket(i) for i in range(3)))
    with pytest.raises(Overloaded):
        put(q, NamedTicket("a", deadline=3.5, level=2))
    put(q, NamedTicket("b", deadline=4, level=2))


def test_what_runs_and_all_that_is_left_is_work_ahead() -> None:
    q = queue(objective=3.5)
    put(q, *(NamedTicket(i) for i in range(3)))
    assert names(q.take(0)) == [0]
    with pytest.raises(Overloaded):
        put(q, NamedTicket("a"))


def test_where_arrivals_are_regular_the_expected_gap_stays_as_it_is() -> None:
    q = queue(PAYING)
    for second in range(100):
        end(q, occupy(q, second), second)
    put(q, NamedTicket("a", arrived=100))
    assert q.next_due() == 104  # a second row, expected in a second, is worth 4


def test_those_whose_deadline_has_come_and_those_who_are_hopeless_leave_together() -> None:
    q = queue()
    occupy(q)
    put(q, NamedTicket("late", deadline=50), NamedTicket("hopeless", deadline=51))
    assert names(q.expire(50.5)) == ["late", "hopeless"]


def test_who_leaves_is_of_its_own_signature() -> None:
    q = queue()
    ticket, other = NamedTicket("a", signature="x"), NamedTicket("b")
    put(q, ticket, other)
    assert q.discard(ticket)
    assert (ticket.waiting, other.waiting, q.clear()) == (False, True, [other])


def test_the_oldest_arrival_may_be_of_any_level_and_signature() -> None:
    q = queue(levels=2)
    assert q.oldest_arrival() == inf
    put(q, NamedTicket("a", arrived=2), NamedTicket("b", arrived=3, deadline=50), NamedTicket("c", arrived=4, level=2))
    assert q.oldest_arrival() == 2
    put(q, NamedTicket("d", arrived=1, signature="x", level=2))
    assert q.oldest_arrival() == 1


def test_a_table_that_was_full_from_the_beginning_is_planned_with_anew() -> None:
    q = queue(objective=10)
    for _ in range(3):
        measure(q._costs, linear(fixed=0, per_row=8))
    end(q, occupy(q))
    put(q, NamedTicket("a"))
    with pytest.raises(Overloaded):
        put(q, NamedTicket("b"))


def test_of_those_who_would_wait_for_the_next_batch_only_they_and_newcomers_until_then_count() -> None:
    q = queue(PAYING)
    for second in (800, 900):
        end(q, occupy(q, second), second)
    put(q, *(NamedTicket(name, arrived=1000, deadline=due) for name, due in (("a", 1005.5), ("b", 1012), ("c", 1012))))
    assert q.expire(1000) == []  # alone, "a" takes until 1005; the others then take 6 s
    assert names(q.take(1000)) == ["a"]


def test_who_becomes_hopeless_in_this_moment_is_not_taken() -> None:
    q = queue(lanes=2)
    occupy(q)
    put(q, NamedTicket("a", deadline=5))
    assert q.take(4) == []
    assert names(q.expire(4)) == ["a"]


@pytest.mark.parametrize(("deadline", "together"), [(6, ["a", "b"]), (5.5, ["a"])])
def test_a_batch_is_cut_where_it_would_be_late_and_not_where_it_would_be_just_in_time(
    deadline: float, together: list[str]
) -> None:
    q = queue(PAYING)
    for _ in range(50):
        end(q, occupy(q))
    put(q, NamedTicket("a", deadline=deadline), NamedTicket("b"))
    assert names(q.take(0)) == together
