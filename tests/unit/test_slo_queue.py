"""The queue of a model with a latency objective, one rule at a time. In any order: test_slo_machine.py."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nextafter

import pytest

from server.errors import Overloaded, QueueFull
from server.scheduling.budget import ByteBudget
from server.scheduling.costs import CostTable, bucket_sizes
from server.scheduling.policy import LevelPolicy
from server.scheduling.slo import LEAST_SHARE, MOST_SHARE, SloPolicy
from server.scheduling.slo_queue import BATCHES_PER_PLAN, SloQueue
from tests.fakes import NamedTicket, names
from tests.unit.costing import Seconds, cost_table, flat, linear, measure

Q = SloQueue[NamedTicket]
BY_ROWS = linear(fixed=0, per_row=1)
"""One second a row: batches do not pay, and the plan is single rows."""
PAYING = linear(fixed=4, per_row=1)
"""Batches pay: a second row is worth waiting 4 s for, a third one 2 s."""


def queue(
    seconds: Seconds = BY_ROWS,
    objective: float = 100.0,
    max_rows: int = 4,
    lanes: int = 1,
    worst: float = 1.0,
    levels: int | tuple[LevelPolicy, ...] = 1,
    budget: ByteBudget | None = None,
) -> Q:
    bounds = levels if isinstance(levels, tuple) else (LevelPolicy(),) * levels
    policy = SloPolicy(max_rows, bounds, objective=objective)
    return SloQueue(policy, cost_table(max_rows, seconds, worst), lanes, budget)


def uncalibrated(objective: float = 100.0, max_rows: int = 4) -> tuple[Q, CostTable]:
    costs = CostTable(bucket_sizes(max_rows))
    return SloQueue(SloPolicy(max_rows, objective=objective), costs, 1), costs


def put(q: Q, *tickets: NamedTicket) -> None:
    for ticket in tickets:
        q.put(ticket)


def occupy(q: Q, now: float = 0.0, rows: int = 1) -> Sequence[NamedTicket]:
    """Make a lane busy; returns its batch."""
    put(q, NamedTicket("busy", rows, arrived=now))
    batch = q.take(now, hurry=True)
    assert names(batch) == ["busy"]
    return batch


def end(q: Q, batch: Sequence[NamedTicket], now: float = 0.0) -> None:
    q.ended(batch)
    q.answered(batch, now)


def one_by_one(q: Q, now: float = 0.0) -> list[object]:
    """Names in order of service, each batch ending before the next begins."""
    order: list[object] = []
    while batch := q.take(now, hurry=True):
        order += names(batch)
        end(q, batch, now)
    return order


def lenient(q: Q) -> Q:
    """Let it admit half as much again."""
    q.guard.share = MOST_SHARE
    return q


def last(q: Q) -> NamedTicket:
    """The request that goes last of a queue with one signature and level."""
    (line,) = q._lines.values()
    (rank,) = line.values()
    return rank.entries[-1][2]


def before(when: float) -> float:
    return nextafter(when, -inf)


# Who goes first.


def test_an_empty_queue_has_nothing_to_run_and_nothing_to_wait_for() -> None:
    q = queue()
    assert (q.take(0), q.take(0, hurry=True), q.expire(0)) == ([], [], [])
    assert (q.next_due(), q.next_deadline(), len(q), q.rows) == (inf, inf, 0, 0)


def test_who_is_due_first_goes_first() -> None:
    q = queue()
    put(
        q, NamedTicket("c", deadline=50), NamedTicket("d"), NamedTicket("a", deadline=20), NamedTicket("b", deadline=30)
    )
    assert one_by_one(q) == ["a", "b", "c", "d"]


def test_those_due_together_go_in_order_of_arrival() -> None:
    q = queue()
    put(q, *(NamedTicket(name, deadline=50) for name in "abc"))
    put(q, NamedTicket("z", deadline=60), NamedTicket("d", deadline=50))
    assert one_by_one(q) == ["a", "b", "c", "d", "z"]


def test_a_far_deadline_is_cut_by_the_objective() -> None:
    q = queue(objective=10)
    put(q, NamedTicket("a", deadline=1000), NamedTicket("b", arrived=1))
    assert one_by_one(q, 1) == ["a", "b"]


def test_levels_are_strict() -> None:
    q = queue(levels=3)
    put(q, NamedTicket("c", deadline=20, level=3), NamedTicket("b", deadline=30, level=2), NamedTicket("a", level=1))
    assert one_by_one(q) == ["a", "b", "c"]


def test_levels_may_share_a_batch() -> None:
    q = queue(flat(1), levels=2)
    put(q, NamedTicket("c", level=2), NamedTicket("a"), NamedTicket("b"), NamedTicket("d", level=2, deadline=90))
    assert names(q.take(0)) == ["a", "b", "d", "c"]
    assert (len(q), q.rows) == (0, 0)


def test_unlike_signatures_never_share_a_batch() -> None:
    q = queue(flat(1))
    put(q, *(NamedTicket(name, signature=signature) for name, signature in (("a", 1), ("b", 2), ("c", 1), ("d", 2))))
    first = q.take(0, hurry=True)
    assert (names(first), names(q.take(0, hurry=True))) == (["a", "c"], ["b", "d"])


def test_of_two_signatures_the_one_with_the_first_request_due_goes_first() -> None:
    q = queue(flat(1), levels=2)
    put(q, NamedTicket("later", signature="x"), NamedTicket("urgent", signature="y", deadline=50))
    assert names(q.take(0, hurry=True)) == ["urgent"]
    put(q, NamedTicket("lower", signature="z", deadline=10, level=2))
    assert names(q.take(0, hurry=True)) == ["later"]


def test_a_batch_ends_at_the_planned_rows() -> None:
    q = lenient(queue(PAYING, objective=9.5))  # a batch and a half of 2 rows: 9
    put(q, *(NamedTicket(i) for i in range(3)))
    assert names(q.take(0)) == [0, 1]


def test_a_request_larger_than_the_planned_batch_runs_alone() -> None:
    q = queue()  # plans single rows
    put(q, NamedTicket("small"), NamedTicket("large", rows=3, deadline=50), NamedTicket("other", deadline=60))
    assert [names(q.take(0)), names(q.take(0)), names(q.take(0))] == [["large"], ["other"], ["small"]]


def test_a_request_that_does_not_fit_is_not_overtaken() -> None:
    q = queue(flat(1))
    put(q, NamedTicket("a", rows=3), NamedTicket("b", rows=2), NamedTicket("c", rows=1))
    assert names(q.take(0)) == ["a"]
    assert names(q.take(0, hurry=True)) == ["b", "c"]


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
    put(q, NamedTicket("a", deadline=1))
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
    put(q, NamedTicket("a"), NamedTicket("b"))
    measure(costs, BY_ROWS)
    q.ended(batch)
    assert q.next_deadline() == inf
    q.answered(batch, 1)
    assert q.next_deadline() == 1
    with pytest.raises(Overloaded):
        put(q, NamedTicket("c", arrived=1, rows=2))


def test_a_plan_is_made_anew_from_time_to_time() -> None:
    costs = cost_table(4, BY_ROWS)
    q: Q = SloQueue(SloPolicy(4, objective=100), costs, 1)
    for _ in range(200):
        measure(costs, flat(1))
    for i in range(BATCHES_PER_PLAN):
        put(q, NamedTicket(i, arrived=i), NamedTicket(-i, arrived=i))
        running = q.take(i)
        assert len(running) == 1
        assert q.discard(last(q))
        end(q, running, i)
    put(q, NamedTicket("a"), NamedTicket("b"))
    assert names(q.take(0, hurry=True)) == ["a", "b"]


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


def test_put_says_when_it_will_be_too_late() -> None:
    q = queue(objective=10)
    assert q.put(NamedTicket("a", rows=2)) == 8
    assert q.put(NamedTicket("b", deadline=4)) == 3
    knows_nothing, _ = uncalibrated()
    assert knows_nothing.put(NamedTicket("c", deadline=60)) == 60


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
    q.ended(batch)
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


# Waiting for company.


def test_a_batch_waits_while_one_more_row_is_expected_to_pay() -> None:
    q = queue(PAYING)
    put(q, NamedTicket("a"), NamedTicket("b", arrived=1))  # one comes every second
    assert (q.next_due(), q.take(before(3))) == (3, [])  # a third is worth 2 s
    assert names(q.take(3)) == ["a", "b"]


def test_a_batch_waits_no_longer_than_it_would_be_in_time_with_one_row_more() -> None:
    q = queue(PAYING, worst=2)
    put(q, NamedTicket("a", deadline=16), NamedTicket("b", arrived=1))
    assert (q.next_due(), q.take(before(2))) == (2, [])  # three rows take 14 s in the worst case
    assert names(q.take(2)) == ["a", "b"]


def test_every_arrival_renews_the_patience() -> None:
    q = queue(PAYING)
    put(q, NamedTicket("a"), NamedTicket("b", arrived=1), NamedTicket("c", arrived=2))
    assert q.next_due() == pytest.approx(2 + 4 / 3)


def test_the_first_request_ever_does_not_wait() -> None:
    q = queue(PAYING)
    put(q, NamedTicket("a"))
    assert q.next_due() == -inf
    assert names(q.take(0)) == ["a"]


def test_where_arrivals_are_rare_nobody_waits() -> None:
    q = queue(PAYING)
    put(q, NamedTicket("a"), NamedTicket("b", arrived=2))  # one every 2 s, and a third is worth 2 s
    assert names(q.take(2)) == ["a", "b"]


def test_the_expected_gap_moves_slowly() -> None:
    q = queue(PAYING, objective=1000)
    put(q, NamedTicket("a"), NamedTicket("b", arrived=1))
    end(q, q.take(3), 9)
    put(q, NamedTicket("c", arrived=65))  # 1 s, and a 32nd of 63 s more: 3 s
    assert q.next_due() == 69  # a second row is worth 4 s
    end(q, q.take(69), 69)
    put(q, NamedTicket("d", arrived=129))  # nearly 5 s
    assert names(q.take(129)) == ["d"]


def test_where_batches_do_not_pay_nobody_waits() -> None:
    q = queue()
    put(q, NamedTicket("a"), NamedTicket("b"))
    assert names(q.take(0)) == ["a"]


def test_a_full_batch_does_not_wait() -> None:
    q = queue(PAYING)
    put(q, *(NamedTicket(i) for i in range(5)))
    assert names(q.take(0)) == [0, 1, 2, 3]
    assert q.take(0) == []


def test_a_batch_that_the_next_request_does_not_fit_into_does_not_wait() -> None:
    q = queue(PAYING)
    put(q, NamedTicket("a"), NamedTicket("b"), NamedTicket("large", rows=3))
    assert names(q.take(0)) == ["a", "b"]


def test_nobody_waits_while_the_batch_of_another_signature_is_ready_and_the_first_due_goes_first() -> None:
    q = queue(PAYING)
    put(q, NamedTicket("odd", signature="x"), *(NamedTicket(i) for i in range(4)))
    assert q.next_due() == -inf
    assert names(q.take(0)) == ["odd"]
    assert names(q.take(0)) == [0, 1, 2, 3]


def test_in_a_hurry_nobody_waits() -> None:
    q = queue(PAYING)
    put(q, NamedTicket("a"), NamedTicket("b"))
    assert q.take(0) == []
    assert names(q.take(0, hurry=True)) == ["a", "b"]


def test_in_a_hurry_a_batch_is_not_cut_short() -> None:
    q = pressed(1, 7)
    assert len(q.take(2.5, hurry=True)) == 8


def test_a_batch_is_cut_where_one_more_row_would_make_somebody_late() -> None:
    q = lenient(queue(linear(fixed=4, per_row=1)))
    put(q, NamedTicket("a", deadline=6.5), *(NamedTicket(i) for i in range(3)))
    assert names(q.take(0)) == ["a", 0]  # 6 s with two rows


def test_a_batch_is_cut_for_whoever_has_the_least_time_whatever_the_level() -> None:
    q = lenient(queue(linear(fixed=4, per_row=1), levels=2))
    put(q, NamedTicket("a"), NamedTicket("b", deadline=6.5, level=2), NamedTicket("c", level=2))
    put(q, NamedTicket("d", level=2))
    assert names(q.take(0)) == ["a", "b"]


# Bounds, bytes, and departures.


@pytest.mark.parametrize("bound", [{"max_queued_rows": 6}, {"max_queued_requests": 2}])
def test_every_level_has_bounds_of_its_own(bound: dict[str, int]) -> None:
    q = queue(levels=(LevelPolicy(**bound), LevelPolicy(**bound)))
    for level in (1, 2):
        put(q, NamedTicket("a", rows=4, level=level), NamedTicket("b", rows=2, level=level))
        with pytest.raises(QueueFull, match=r"^Exceeds maximum queue size$"):
            put(q, NamedTicket("c", level=level))


def test_more_rows_than_a_batch_can_hold_are_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="5 rows never fit into a batch of 4"):
        put(queue(), NamedTicket("a", rows=5))
    put(queue(), NamedTicket("a", rows=4))


WAYS_OUT = ["take", "take in a hurry", "discard", "expire", "be hopeless", "be given up"]


@pytest.mark.parametrize("way", WAYS_OUT)
def test_every_way_out_frees_room_and_bytes(way: str) -> None:
    budget = ByteBudget(100)
    bounds = LevelPolicy(max_queued_rows=9, max_queued_requests=9)
    q = lenient(queue(flat(4), objective=20, max_rows=8, worst=1.25, levels=(bounds,), budget=budget))
    deadline = 0.5 if way == "expire" else 7
    tickets = [NamedTicket(i, size=11, deadline=deadline if i == 0 else 11) for i in range(9)]
    put(q, *tickets)
    assert budget.used == 99
    with pytest.raises(QueueFull):
        put(q, NamedTicket("no room"))
    match way:
        case "take":
            gone = q.take(0)
        case "take in a hurry":
            gone = q.take(2.5, hurry=True)
        case "discard":
            gone = [tickets[0]]
            assert q.discard(tickets[0])
        case "expire":
            gone = q.expire(0.5)
        case "be hopeless":
            gone = q.expire(3)
        case _:
            gone = q.expire(2.5)
    assert gone == tickets[: 8 if way.startswith("take") else 1]
    assert not any(ticket.waiting for ticket in gone)
    assert (len(q), q.rows, budget.used) == (9 - len(gone), 9 - len(gone), 99 - 11 * len(gone))


def test_who_is_refused_holds_no_bytes() -> None:
    budget = ByteBudget(100)
    q = queue(objective=1, budget=budget)
    put(q, NamedTicket("a", size=10))
    with pytest.raises(Overloaded):
        put(q, NamedTicket("b", size=10))
    assert budget.used == 10


def test_who_brings_too_many_bytes_is_turned_away_and_waits_nowhere() -> None:
    budget = ByteBudget(15)
    q = queue(budget=budget)
    put(q, NamedTicket("a", size=10))
    with pytest.raises(QueueFull, match="bytes"):
        put(q, NamedTicket("b", size=10, signature="other"))
    assert (len(q), q.rows, budget.used) == (1, 1, 10)
    assert one_by_one(q) == ["a"]


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_whoever_leaves_may_be_anywhere_in_the_queue(index: int) -> None:
    q = queue()
    tickets = [NamedTicket(0, deadline=30), NamedTicket(1), NamedTicket(2), NamedTicket(3, rows=2)]
    put(q, *tickets)
    assert [q.discard(tickets[index]), q.discard(tickets[index])] == [True, False]
    assert q.rows == 5 - tickets[index].rows
    assert one_by_one(q) == [i for i in range(4) if i != index]


def test_what_was_taken_cannot_be_discarded() -> None:
    q = queue()
    (ticket,) = occupy(q)
    assert not q.discard(ticket)


def test_a_request_that_left_has_no_deadline_any_more() -> None:
    q = queue()
    gone = NamedTicket("gone", deadline=1)
    put(q, gone, NamedTicket("b", deadline=20), NamedTicket("c"))
    q.discard(gone)
    assert q.next_deadline() == 19


def test_forgetting_departed_requests_keeps_the_deadlines_of_those_that_wait() -> None:
    q, _ = uncalibrated()
    put(q, *(NamedTicket(i, deadline=1000 + i) for i in range(10)))
    for _ in range(500):
        ticket = NamedTicket("gone", deadline=2000)
        q.put(ticket)
        q.discard(ticket)
    assert names(q.expire(3000)) == list(range(10))
