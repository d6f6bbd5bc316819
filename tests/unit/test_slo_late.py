"""Who leaves the queue of a model with an objective without an answer, one rule at a time."""

from __future__ import annotations

from math import inf

import pytest

from server.errors import Overloaded
from server.scheduling.budget import ByteBudget
from server.scheduling.slo import MOST_SHARE
from tests.fakes import NamedTicket, names
from tests.unit.costing import flat
from tests.unit.slo_queues import (
    PAYING,
    Q,
    before,
    end,
    lenient,
    occupy,
    put,
    queue,
    uncalibrated,
)

# Leaving without having run.


def test_a_hopeless_request_leaves_when_a_run_begun_then_would_just_be_in_time() -> None:
    q = queue(objective=10)
    occupy(q)
    put(q, NamedTicket("a", rows=2), NamedTicket("b", rows=2, deadline=4.5))
    assert q.next_deadline() == 2.5
    assert q.expire(before(2.5)) == []
    assert names(q.expire(2.5)) == ["b"]
    assert q.next_deadline() == 8
    assert names(q.expire(8)) == ["a"]
    assert (len(q), q.rows, q.next_deadline()) == (0, 0, inf)


def test_a_ticket_says_when_it_will_be_too_late() -> None:
    q, (knows_nothing, _) = queue(objective=10), uncalibrated()
    a, b, c = NamedTicket("a", rows=2), NamedTicket("b", deadline=4), NamedTicket("c", deadline=60)
    put(q, a, b)
    put(knows_nothing, c)
    assert (a.expires, b.expires, c.expires) == (8, 3, 60)
    assert NamedTicket("nowhere", deadline=5).expires == 5


def test_a_batch_that_leaves_a_hopeless_request_at_the_head_is_not_followed_by_it() -> None:
    q = queue(objective=10, lanes=2)
    put(q, NamedTicket("first", deadline=9), NamedTicket("large", rows=4, deadline=9.5))
    assert names(q.take(6)) == ["first"]
    assert q.take(6) == []
    assert names(q.expire(6)) == ["large"]


def test_what_is_larger_than_the_planned_batch_has_its_own_time_to_begin() -> None:
    q = queue(objective=10)
    occupy(q)
    put(q, NamedTicket("large", rows=4))
    assert q.next_deadline() == 6


def test_all_that_are_hopeless_leave_together_whatever_their_level_and_signature() -> None:
    q = queue(objective=10, levels=2)
    occupy(q)
    put(q, NamedTicket("a", signature="x"), NamedTicket("b", signature="y"), NamedTicket("c", level=2))
    put(q, NamedTicket("d", level=2, signature="y"), NamedTicket("later", arrived=5, signature="x"))
    assert sorted(map(str, names(q.expire(9)))) == ["a", "b", "c", "d"]
    assert len(q) == 1


def test_a_hopeless_request_that_is_alone_stays() -> None:
    q = queue(objective=10)
    put(q, NamedTicket("a"))
    assert (q.expire(50), q.next_deadline()) == ([], inf)
    assert names(q.take(50)) == ["a"]


def test_a_callers_own_deadline_ends_the_wait_even_of_who_is_alone() -> None:
    q = queue(objective=10)
    put(q, NamedTicket("a", deadline=5))
    assert q.next_deadline() == 5
    assert names(q.expire(5)) == ["a"]


def test_hopeless_requests_are_broken_promises() -> None:
    q = queue(objective=10)
    occupy(q)
    put(q, NamedTicket("a"))
    q.expire(9)
    assert q.guard.share == pytest.approx(0.9)


def test_late_answers_are_broken_promises_and_others_are_kept_ones() -> None:
    q = queue(flat(1), objective=10)
    put(q, NamedTicket("a", deadline=5), NamedTicket("b"))
    batch = q.take(0, hurry=True)
    q.ended(batch, 0.0)
    q.answered(batch, 5)
    assert q.guard.share == pytest.approx(1.001)
    q.answered(batch, 5.5)
    assert q.guard.share == pytest.approx(1.001 * 0.9 + 0.0005)
    q.answered(batch, 11)
    assert q.guard.share == pytest.approx((1.001 * 0.9 + 0.0005) * 0.8)


def test_before_all_sizes_have_run_no_promise_is_broken() -> None:
    q, _ = uncalibrated(objective=1)
    end(q, occupy(q), 100)
    assert q.guard.share == 1


# Early drop: a batch takes 4 s, or 5 in the worst case, whatever its rows.


def pressed(short: int, others: int, *, due: float = 11, level: int = 1, busy: bool = False) -> Q:
    """Some whom only a single row's batch would serve in time, and others who would wait for the next one."""
    q = lenient(queue(flat(4), objective=20, max_rows=8, worst=1.25, levels=2))
    if busy:
        occupy(q)
    put(q, *(NamedTicket(f"short{i}", deadline=7) for i in range(short)))
    put(q, *(NamedTicket(f"other{i}", deadline=due, level=level) for i in range(others)))
    return q


def test_who_has_little_time_is_given_up_where_a_full_batch_of_others_would_be_late() -> None:
    q = pressed(1, 8)
    assert q.expire(2) == []  # until here, all fit into one batch
    assert names(q.expire(2.5)) == ["short0"]
    assert names(q.take(2.5)) == [f"other{i}" for i in range(8)]


def test_all_who_have_little_time_are_given_up_together_and_nobody_else() -> None:
    q = pressed(3, 6)
    assert names(q.expire(2.5)) == ["short0", "short1", "short2"]
    assert q.expire(2.5) == []
    assert q.rows == 6


def test_nobody_is_given_up_for_no_more_others() -> None:
    q = pressed(7, 1)
    assert q.expire(2.5) == []
    assert names(q.take(2.5)) == ["short0"]


def test_nobody_is_given_up_where_the_others_can_wait_for_the_next_batch() -> None:
    q = pressed(1, 8, due=11.5)  # 4 s, and 5 s, from 2.5 on
    assert q.expire(2.5) == []
    assert names(q.take(2.5)) == ["short0"]
    assert q.rows == 8


def test_nobody_is_given_up_while_no_lane_is_idle() -> None:
    q = pressed(1, 8, busy=True)
    assert q.expire(2.5) == []
    assert names(q.expire(3)) == ["short0"]


def test_nobody_is_given_up_for_a_less_urgent_level() -> None:
    q = pressed(1, 8, level=2)
    assert q.expire(2.5) == []
    assert names(q.take(2.5)) == ["short0"]


def test_who_is_given_up_is_a_broken_promise() -> None:
    q = pressed(1, 8)
    q.expire(2.5)
    assert q.guard.share == pytest.approx(MOST_SHARE * 0.9)


def test_a_request_larger_than_the_planned_batch_is_given_up_for_nobody() -> None:
    q = lenient(queue(objective=20))
    put(q, NamedTicket("large", rows=3, deadline=4), NamedTicket("a", deadline=5), NamedTicket("b", deadline=5))
    assert q.expire(0.5) == []
    assert names(q.take(0.5)) == ["large"]


def test_in_a_hurry_a_batch_is_not_cut_short() -> None:
    q = pressed(1, 7)
    assert len(q.take(2.5, hurry=True)) == 8


# Batches that were limited, and a queue that is emptied.


def test_emptied_it_gives_back_everything_that_waited_oldest_first() -> None:
    budget = ByteBudget(100)
    q = queue(levels=2, budget=budget)
    put(q, NamedTicket("a", arrived=0, level=2, size=7), NamedTicket("b", arrived=1, signature="y", size=5))
    assert names(q.clear()) == ["a", "b"]
    assert (len(q), q.rows, budget.used, q.take(1, hurry=True)) == (0, 0, 0, [])


def test_limited_batches_are_smaller_and_a_larger_request_runs_alone() -> None:
    q = queue(PAYING, max_rows=4)
    q.limit_rows(2, None)
    put(q, NamedTicket("large", 3), *(NamedTicket(i) for i in range(3)))
    assert [names(q.take(0, hurry=True)), names(q.take(0, hurry=True))] == [["large"], [0, 1]]


def test_who_comes_later_than_it_arrived_is_judged_by_the_time_that_is_left() -> None:
    q = queue(objective=5)
    batch = occupy(q)
    q.expire(3)
    end(q, batch, 3)
    occupy(q, 3)
    put(q, NamedTicket("in time", arrived=0))  # done at 5, and due then
    with pytest.raises(Overloaded):
        put(q, NamedTicket("too late", arrived=0))
