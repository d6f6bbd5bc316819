"""The queue of a model with an objective, one rule at a time: who goes first, with whom, and when.

Who is let in: test_slo_admission.py. Who leaves without an answer: test_slo_late.py. In any order: test_slo_machine.py.
"""

from __future__ import annotations

from math import inf

import pytest

from server.errors import Overloaded, QueueFull
from server.scheduling.budget import ByteBudget
from server.scheduling.policy import LevelPolicy
from tests.fakes import NamedTicket, names
from tests.unit.costing import flat, linear
from tests.unit.slo_queues import (
    PAYING,
    before,
    end,
    lenient,
    occupy,
    one_by_one,
    put,
    queue,
    uncalibrated,
)

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
