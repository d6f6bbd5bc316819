"""The queue's priority levels, delays, aging and bytes, one rule at a time. In any order: test_queue_machine.py."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from server.errors import QueueFull
from server.memory_budget import MemoryBudget
from server.scheduling.budget import ByteBudget
from server.scheduling.policy import LevelPolicy, WindowPolicy
from server.scheduling.queue import BatchQueue
from tests.fakes import NamedTicket, names

THREE = (LevelPolicy(), LevelPolicy(), LevelPolicy())


def queue(max_rows: int = 2, levels: tuple[LevelPolicy, ...] = THREE, **policy: Any) -> BatchQueue[NamedTicket]:
    return BatchQueue(WindowPolicy(**{"max_rows": max_rows, "max_delay": 10, "levels": levels, **policy}))


def put(q: BatchQueue[NamedTicket], *tickets: NamedTicket) -> None:
    for ticket in tickets:
        q.put(ticket)


def everything(q: BatchQueue[NamedTicket], now: float = inf) -> list[list[object]]:
    batches = []
    while batch := q.take(now):
        batches.append(names(batch))
    return batches


def test_the_most_urgent_go_first_and_may_share_a_batch_with_others() -> None:
    q = queue()
    put(q, NamedTicket("c", level=3), NamedTicket("b1", level=2), NamedTicket("a", level=1), NamedTicket("b2", level=2))
    assert everything(q) == [["a", "b1"], ["b2", "c"]]


def test_of_two_signatures_the_one_with_the_most_urgent_request_goes_first() -> None:
    q = queue()
    put(q, NamedTicket("old", signature="x", level=2), NamedTicket("urgent", signature="y", arrived=5, level=1))
    assert everything(q) == [["urgent"], ["old"]]


def test_the_window_ends_with_the_oldest_request_of_any_level() -> None:
    q = queue(max_rows=9)
    put(q, NamedTicket("old", level=3, arrived=0), NamedTicket("urgent", level=1, arrived=8))
    assert q.next_due() == 10
    assert names(q.take(now=10)) == ["urgent", "old"]


def test_levels_are_strict_without_aging() -> None:
    q = queue(max_rows=1)
    put(q, NamedTicket("old", level=2, arrived=0), NamedTicket("urgent", level=1, arrived=1e6))
    assert everything(q) == [["urgent"], ["old"]]


def test_with_aging_who_has_waited_long_enough_is_as_urgent_as_the_next_level() -> None:
    q = queue(max_rows=1, aging=100)
    put(q, NamedTicket("old", level=2, arrived=0))
    put(q, NamedTicket("urgent", level=1, arrived=99))
    assert names(q.take(now=99.9)) == ["urgent"]
    put(q, NamedTicket("urgent too", level=1, arrived=100))
    assert everything(q, now=111) == [["old"], ["urgent too"]]


def test_a_delayed_request_goes_behind_its_level_but_before_the_next() -> None:
    q = queue(max_rows=1)
    put(q, NamedTicket("late", level=1, delay_at=3), NamedTicket("next", level=2))
    assert q.next_deadline() == 3
    assert q.expire(now=3) == []
    put(q, NamedTicket("new", level=1, arrived=4))
    assert everything(q) == [["new"], ["late"], ["next"]]


def test_a_delayed_request_still_has_its_callers_deadline() -> None:
    q = queue()
    put(q, NamedTicket("a", delay_at=1, deadline=5))
    assert q.expire(now=1) == []
    assert q.next_deadline() == 5
    assert names(q.expire(now=5)) == ["a"]


def test_the_delayed_are_served_in_order_of_arrival() -> None:
    q = queue(max_rows=1)
    arrivals = {"a": 30, "b": 20, "c": 10, "d": 40}
    put(q, *(NamedTicket(name, arrived=i, delay_at=at) for i, (name, at) in enumerate(arrivals.items())))
    for now in (10, 20, 30, 40):
        assert q.expire(now) == []
    assert everything(q) == [["a"], ["b"], ["c"], ["d"]]


def test_a_full_level_turns_away_its_own_and_nobody_else() -> None:
    q = queue(levels=(LevelPolicy(max_queued_requests=1), LevelPolicy(max_queued_rows=2)))
    put(q, NamedTicket("a", level=1), NamedTicket("b", level=2, rows=2))
    for level in (1, 2):
        with pytest.raises(QueueFull):
            q.put(NamedTicket("no room", level=level))
    assert names(q.take(inf)) == ["a"]
    put(q, NamedTicket("c", level=1))


def test_however_many_are_delayed_each_keeps_its_deadline() -> None:
    q = queue()
    put(q, *(NamedTicket(i, delay_at=1, deadline=2) for i in range(40)))
    assert (q.expire(now=1), len(q)) == ([], 40)
    assert names(q.expire(now=2)) == [*range(40)]


def test_delaying_frees_no_room() -> None:
    q = queue(levels=(LevelPolicy(max_queued_requests=1),))
    put(q, NamedTicket("a", delay_at=1))
    q.expire(now=1)
    with pytest.raises(QueueFull):
        q.put(NamedTicket("b"))
    assert everything(q) == [["a"]]
    put(q, NamedTicket("b"))


@pytest.mark.parametrize("leave", ["take", "discard", "expire"])
def test_queues_share_a_budget_of_bytes_and_every_way_of_leaving_gives_them_back(leave: str) -> None:
    budget = ByteBudget(10)
    one, other = (BatchQueue[NamedTicket](WindowPolicy(max_rows=1), budget) for _ in range(2))
    ticket = NamedTicket("a", size=6, deadline=1)
    one.put(ticket)
    with pytest.raises(QueueFull, match="of the server: 6 of 10 bytes wait, 5 more came"):
        other.put(NamedTicket("b", size=5))
    assert (len(other), other.rows, budget.used) == (0, 0, 6)
    match leave:
        case "take":
            one.take(0)
        case "discard":
            one.discard(ticket)
        case "expire":
            one.expire(1)
    assert budget.used == 0
    other.put(NamedTicket("b", size=5))
    one.put(NamedTicket("c", size=5))


def test_a_request_alone_is_let_in_however_large_it_is() -> None:
    budget = ByteBudget(10)
    q = BatchQueue[NamedTicket](WindowPolicy(max_rows=1), budget)
    q.put(NamedTicket("a", size=11))
    with pytest.raises(QueueFull):
        q.put(NamedTicket("b", size=1))


def test_a_request_that_says_nothing_of_its_bytes_has_none() -> None:
    budget = ByteBudget(10)
    BatchQueue[NamedTicket](WindowPolicy(max_rows=1), budget).put(NamedTicket("a"))
    assert budget.used == 0


def test_a_budget_of_what_waits_knows_the_one_of_what_is_held_or_holds_as_much_as_comes() -> None:
    memory = MemoryBudget(100)
    assert ByteBudget(10, memory).memory is memory
    assert ByteBudget(10).memory.room > 1 << 50
