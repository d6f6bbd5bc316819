"""Who is let in to the queue of a model with an objective, and when an objective does not count."""

from __future__ import annotations

from math import inf

import pytest

from server.errors import Overloaded
from server.scheduling.slo import LEAST_SHARE
from server.scheduling.slo_queue import PLAN_SECONDS
from tests.fakes import NamedTicket, names
from tests.unit.costing import Seconds, flat, linear, measure
from tests.unit.slo_queues import (
    BY_ROWS,
    PAYING,
    end,
    last,
    occupy,
    put,
    queue,
    uncalibrated,
)

# Admission.


def test_behind_too_much_work_a_request_is_refused() -> None:
    q = queue(objective=3)
    put(q, *(NamedTicket(i) for i in range(3)))  # the third is answered after 3 s
    with pytest.raises(Overloaded, match=r"^too much work is ahead of it$"):
        put(q, NamedTicket("d"))
    assert (len(q), q.rows) == (3, 3)


def test_who_is_refused_waits_nowhere() -> None:
    q = queue(objective=1)
    put(q, NamedTicket("a"))
    refused = NamedTicket("b", signature="other")
    with pytest.raises(Overloaded):
        q.put(refused)
    assert not refused.waiting
    assert not q.discard(refused)
    assert names(q.take(0)) == ["a"]
    assert q.take(0, hurry=True) == []


def test_a_running_batch_is_work_ahead_until_it_is_expected_to_end() -> None:
    q = queue(objective=4)
    occupy(q, rows=4)
    with pytest.raises(Overloaded):
        put(q, NamedTicket("a", arrived=0.5))
    put(q, NamedTicket("b", arrived=1))


def test_a_batch_that_takes_longer_than_expected_is_expected_to_end_now() -> None:
    q = queue(objective=2)
    occupy(q)
    put(q, NamedTicket("a", arrived=50))
    with pytest.raises(Overloaded):
        put(q, NamedTicket("b", rows=2, arrived=50))


def test_a_batch_that_has_ended_is_no_work_ahead() -> None:
    q = queue(objective=4)
    end(q, occupy(q, rows=4))
    put(q, NamedTicket("a", rows=3), NamedTicket("b"))


def test_who_finds_room_in_a_batch_that_waits_costs_no_batch_of_its_own() -> None:
    q = queue(flat(1), objective=2)
    occupy(q)
    put(q, *(NamedTicket(i) for i in range(4)))
    with pytest.raises(Overloaded):
        put(q, NamedTicket("the fifth"))


def test_who_does_not_fit_into_the_last_batch_waits_for_one_more() -> None:
    q = queue(flat(1), objective=2)
    occupy(q)
    put(q, NamedTicket("a", rows=3))
    with pytest.raises(Overloaded):
        put(q, NamedTicket("b", rows=2))
    put(q, NamedTicket("c", rows=1))


def test_a_request_of_a_whole_batch_waits_for_no_more_than_the_full_ones() -> None:
    q = queue(flat(1), objective=3)
    occupy(q)
    put(q, NamedTicket("a", rows=4), NamedTicket("b", rows=4))
    with pytest.raises(Overloaded):
        put(q, NamedTicket("c", rows=4))


def test_work_ahead_counts_with_medians_and_the_own_batch_with_the_99th_percentile() -> None:
    q = queue(flat(1), objective=4, worst=3)  # half of 1 s, and 3 s
    occupy(q)
    put(q, *(NamedTicket(i) for i in range(4)))  # 1 s and 3 s
    with pytest.raises(Overloaded) as refusal:
        put(q, NamedTicket("next"))
    assert refusal.value.retry_after == 1  # 2 s and 3 s, in 4 s


def test_a_request_larger_than_the_planned_batch_counts_with_its_own_time() -> None:
    q = queue(objective=4)
    occupy(q)
    with pytest.raises(Overloaded) as refusal:
        put(q, NamedTicket("large", rows=4))
    assert refusal.value.retry_after == 1


def test_those_who_are_expected_to_join_count() -> None:
    q = queue(linear(fixed=2, per_row=1))
    occupy(q, rows=4)  # until 6
    put(q, NamedTicket("a", arrived=1))
    q.discard(last(q))  # one a second is expected from here on: four until 6
    with pytest.raises(Overloaded):
        put(q, NamedTicket("b", arrived=1, deadline=11.9))
    put(q, NamedTicket("c", arrived=1, deadline=12))


def test_a_deadline_shorter_than_the_objective_is_what_counts() -> None:
    q = queue(objective=100)
    put(q, *(NamedTicket(i) for i in range(3)))
    with pytest.raises(Overloaded):
        put(q, NamedTicket("d", rows=2, deadline=1.5))


def test_whoever_goes_behind_is_no_work_ahead() -> None:
    q = queue(objective=100)
    put(q, *(NamedTicket(i) for i in range(10)))
    put(q, NamedTicket("a", deadline=1.25))
    with pytest.raises(Overloaded):
        put(q, NamedTicket("b", deadline=1.5))
    assert names(q.take(0)) == ["a"]


def test_a_place_in_the_middle_counts_a_share_of_the_rows() -> None:
    q = queue(objective=100)
    put(q, *(NamedTicket(i, deadline=20 + i) for i in range(4)), NamedTicket("last"))
    put(q, NamedTicket("a", arrived=0, deadline=21.5))  # two before it, three of five in rows
    with pytest.raises(Overloaded) as refusal:
        put(q, NamedTicket("b", arrived=19.5, deadline=22))  # 3 before it: 4 s in 2.5 s
    assert refusal.value.retry_after == 1.5


def test_less_urgent_levels_are_no_work_ahead() -> None:
    q = queue(objective=3, levels=3)
    put(q, *(NamedTicket(i, level=2) for i in range(3)))
    put(q, NamedTicket("urgent"))
    with pytest.raises(Overloaded):
        put(q, NamedTicket("low", level=3))


def test_other_signatures_are_work_ahead() -> None:
    q = queue(objective=2)
    put(q, NamedTicket("a", signature="x"), NamedTicket("b", signature="y"))
    for signature in "xz":
        with pytest.raises(Overloaded):
            put(q, NamedTicket("c", signature=signature))


def test_a_newcomer_with_less_time_may_not_break_the_promise_to_whom_it_pushes_back() -> None:
    q = queue(objective=3)
    put(q, *(NamedTicket(i) for i in range(3)))
    with pytest.raises(Overloaded) as refusal:
        put(q, NamedTicket("urgent", deadline=2))
    assert refusal.value.retry_after == 1
    assert len(q) == 3


def test_less_urgent_levels_are_no_reason_to_protect_whom_a_newcomer_pushes_back() -> None:
    q = queue(objective=10, levels=2)
    put(q, *(NamedTicket(i, level=2) for i in range(9)))
    put(q, NamedTicket("a"), NamedTicket("b", deadline=5))
    assert names(q.take(0)) == ["b"]


def test_two_lanes_serve_twice_as_much() -> None:
    q = queue(objective=3, lanes=2)
    put(q, *(NamedTicket(i) for i in range(6)))
    with pytest.raises(Overloaded):
        put(q, NamedTicket("next"))


def test_an_idle_lane_beside_a_busy_one_begins_at_once() -> None:
    q = queue(objective=2, lanes=2)
    occupy(q)  # until 1
    put(q, *(NamedTicket(i, arrived=0.5) for i in range(3)))  # these begin at 0.5, 1 and 1.5
    with pytest.raises(Overloaded) as refusal:
        put(q, NamedTicket("next", arrived=0.5))
    assert refusal.value.retry_after == 0.5


def test_of_two_busy_lanes_the_one_that_ends_first_comes_first() -> None:
    q = queue(flat(2), objective=4, lanes=2)
    occupy(q, now=0)
    put(q, NamedTicket("and", arrived=0.5))
    assert len(q.take(0.5, hurry=True)) == 1
    put(q, *(NamedTicket(i, rows=4, arrived=0.5) for i in range(2)))  # these begin at 2 and 2.5
    with pytest.raises(Overloaded) as refusal:
        put(q, NamedTicket("next", rows=4, arrived=0.5))
    assert refusal.value.retry_after == 1.5


@pytest.mark.parametrize("seconds", [BY_ROWS, flat(1), PAYING])
def test_who_comes_again_when_told_to_is_let_in(seconds: Seconds) -> None:
    q = queue(seconds, objective=3 * seconds(4))
    running = occupy(q)
    ends = seconds(1)
    with pytest.raises(Overloaded) as refusal:
        put(q, *(NamedTicket(i, rows=1 + i % 2) for i in range(100)))
    again = refusal.value.retry_after + 1e-9
    assert again > 1e-6
    while ends <= again:  # meanwhile, the lane works as expected
        end(q, running, ends)
        assert q.expire(ends) == []
        running = q.take(ends, hurry=True)
        ends += seconds(sum(ticket.rows for ticket in running))
    put(q, NamedTicket("again", arrived=again))


def test_a_guard_that_has_seen_broken_promises_lets_in_less() -> None:
    q = queue(objective=4)
    q.guard.share = LEAST_SHARE
    put(q, NamedTicket("a"), NamedTicket("b"))
    with pytest.raises(Overloaded) as refusal:
        put(q, NamedTicket("c"))
    assert refusal.value.retry_after == 1


def test_a_guard_that_has_seen_none_lets_in_more() -> None:
    q = queue(objective=4)
    q.guard.observe(10_000, 0)
    put(q, *(NamedTicket(i) for i in range(6)))
    with pytest.raises(Overloaded):
        put(q, NamedTicket("next"))


def test_two_that_come_first_in_one_moment_are_taken_for_a_burst() -> None:
    q = queue(flat(1), objective=5)
    put(q, *(NamedTicket(i) for i in range(4)))
    put(q, NamedTicket("fifth"))  # behind a batch, and others may join it
    assert len(q) == 5


# An idle server, and one that knows nothing yet.


def test_an_idle_server_lets_in_and_runs_what_cannot_be_in_time() -> None:
    q = queue(objective=0.5)
    put(q, NamedTicket("a"))
    assert (q.expire(0.25), q.next_deadline()) == ([], inf)
    assert names(q.take(0.25)) == ["a"]
    assert not len(q)


def test_beside_what_runs_what_cannot_be_in_time_is_refused() -> None:
    q = queue(objective=0.5, lanes=2)
    occupy(q)
    with pytest.raises(Overloaded):
        put(q, NamedTicket("a"))


def test_an_idle_lane_lets_in_one_that_typically_is_in_time() -> None:
    q = queue(objective=1.5, lanes=2, worst=2.0)
    occupy(q)
    put(q, NamedTicket("a"))
    with pytest.raises(Overloaded):
        put(q, NamedTicket("b"))
    assert names(q.take(0.0)) == ["a"]
    with pytest.raises(Overloaded):
        put(q, NamedTicket("c"))


def test_before_all_sizes_have_run_the_objective_refuses_and_drops_nothing() -> None:
    q, costs = uncalibrated(objective=1)
    for size in (1, 2):
        costs.observe(size, 100)
    put(q, *(NamedTicket(i) for i in range(50)))
    assert (q.next_deadline(), q.expire(1000), len(q)) == (inf, [], 50)


def test_before_all_sizes_have_run_batches_are_as_large_as_they_may_be_and_wait_for_nothing() -> None:
    q, _ = uncalibrated()
    put(q, *(NamedTicket(i) for i in range(5)))
    assert q.next_due() == -inf
    assert [names(q.take(0)), names(q.take(0)), q.take(0)] == [[0, 1, 2, 3], [4], []]
    assert q.next_due() == inf


def test_before_all_sizes_have_run_a_callers_own_deadline_holds() -> None:
    q, _ = uncalibrated()
    put(q, NamedTicket("a", deadline=3), NamedTicket("b"))
    assert q.next_deadline() == 3
    assert names(q.expire(3)) == ["a"]


def test_the_objective_holds_once_all_sizes_have_run() -> None:
    q, costs = uncalibrated(objective=2)
    batch = occupy(q)
    put(q, NamedTicket("before"), NamedTicket("before"))
    measure(costs, BY_ROWS)
    end(q, batch, 1)
    assert (q.next_deadline(), q.expire(100)) == (inf, [])  # nothing was promised to those
    with pytest.raises(Overloaded):
        put(q, NamedTicket("c", arrived=1))


def test_a_plan_is_made_anew_from_time_to_time() -> None:
    q, costs = uncalibrated()
    measure(costs, BY_ROWS)
    end(q, occupy(q))
    for _ in range(200):
        measure(costs, flat(1))
    for now in (PLAN_SECONDS / 2, PLAN_SECONDS):
        put(q, NamedTicket("a", arrived=now), NamedTicket("b", arrived=now))
        running = q.take(now)
        assert names(running) == ["a"]
        assert q.discard(last(q))
        end(q, running, now)
    put(q, NamedTicket("a"), NamedTicket("b"))
    assert names(q.take(PLAN_SECONDS, hurry=True)) == ["a", "b"]
