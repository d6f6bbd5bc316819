"""The queue, one rule at a time. All of them together, in any order: test_queue_machine.py."""

from __future__ import annotations

import gc
import weakref
from math import inf
from typing import Any

import pytest

from server.errors import QueueFull
from server.scheduling.policy import WindowPolicy
from server.scheduling.queue import REMEMBERED_LIMITS, BatchQueue, Ticket
from tests.fakes import NamedTicket, names
from tests.unit.batching import window_policy


def queue(max_rows: int = 4, **policy: Any) -> BatchQueue[NamedTicket]:
    return BatchQueue(window_policy(**{"max_rows": max_rows, "max_delay": 10, **policy}))


def put(q: BatchQueue[NamedTicket], *tickets: NamedTicket) -> None:
    for ticket in tickets:
        q.put(ticket)


def test_an_empty_queue_has_nothing_to_run_and_nothing_to_wait_for() -> None:
    q = queue()
    assert q.take(now=0) == []
    assert q.expire(now=0) == []
    assert (q.next_due(), q.next_deadline(), len(q), q.rows) == (inf, inf, 0, 0)


def test_an_underfull_batch_runs_when_its_oldest_request_has_waited_long_enough() -> None:
    q = queue()
    put(q, NamedTicket("a", arrived=0), NamedTicket("b", arrived=9))
    assert q.take(now=9.99) == []
    assert q.next_due() == 10
    assert names(q.take(now=10)) == ["a", "b"]


def test_a_full_batch_does_not_wait() -> None:
    q = queue(max_rows=2)
    put(q, NamedTicket("a"), NamedTicket("b"), NamedTicket("c"))
    assert names(q.take(now=0)) == ["a", "b"]
    assert q.take(now=0) == []


def test_a_batch_that_nothing_can_join_does_not_wait() -> None:
    q = queue()
    put(q, NamedTicket("small", rows=3), NamedTicket("big", rows=2))
    assert names(q.take(now=0)) == ["small"]


def test_a_request_that_does_not_fit_is_not_overtaken() -> None:
    q = queue()
    put(q, NamedTicket("a", rows=3), NamedTicket("b", rows=2), NamedTicket("c", rows=1))
    assert names(q.take(now=0)) == ["a"]
    assert names(q.take(now=10)) == ["b", "c"]


def test_max_requests_of_one_runs_requests_one_by_one() -> None:
    q = queue(max_requests=1)
    put(q, NamedTicket("a"), NamedTicket("b"))
    assert [names(q.take(now=0)), names(q.take(now=0)), q.take(now=0)] == [["a"], ["b"], []]


def test_a_preferred_size_does_not_wait() -> None:
    q = queue(preferred_rows=(2,))
    put(q, NamedTicket("a"))
    assert q.take(now=0) == []
    put(q, NamedTicket("b"))
    assert names(q.take(now=0)) == ["a", "b"]


def test_what_exceeds_a_preferred_size_stays() -> None:
    q = queue(preferred_rows=(2,))
    put(q, NamedTicket("a"), NamedTicket("b"), NamedTicket("c"))
    assert names(q.take(now=0)) == ["a", "b"]
    assert q.take(now=0) == []


def test_unlike_signatures_never_share_a_batch() -> None:
    q = queue()
    put(q, NamedTicket("a", signature="x"), NamedTicket("b", signature="y"), NamedTicket("c", signature="x"))
    assert names(q.take(now=10)) == ["a", "c"]
    assert names(q.take(now=10)) == ["b"]


def test_equal_signatures_share_a_batch_even_as_two_objects() -> None:
    q = queue()
    put(q, NamedTicket("a", signature=("x", 1)), NamedTicket("b", signature=("x", int("1"))))
    assert names(q.take(now=10)) == ["a", "b"]


def test_an_odd_signature_neither_closes_nor_delays_another_ones_batch() -> None:
    q = queue(max_rows=2)
    put(q, NamedTicket("a", signature="x"), NamedTicket("odd", signature="y"))
    assert q.take(now=0) == []
    put(q, NamedTicket("b", signature="x"))
    assert names(q.take(now=0)) == ["a", "b"]


def test_of_several_runnable_batches_the_one_with_the_oldest_request_goes_first() -> None:
    q = queue()
    put(q, NamedTicket("a", signature="x", arrived=0), NamedTicket("b", signature="y", arrived=1))
    put(q, NamedTicket("c", signature="x", arrived=2))
    assert names(q.take(now=20)) == ["a", "c"]
    put(q, NamedTicket("d", signature="x", arrived=3))
    assert names(q.take(now=20)) == ["b"]


def test_a_full_batch_does_not_wait_for_an_older_request_of_another_signature() -> None:
    q = queue(max_rows=2)
    put(q, NamedTicket("old", signature="x", arrived=0))
    put(q, NamedTicket("a", signature="y", arrived=1), NamedTicket("b", signature="y", arrived=1))
    assert names(q.take(now=1)) == ["a", "b"]


def test_an_infinite_now_runs_whatever_waits() -> None:
    q = queue()
    put(q, NamedTicket("a", arrived=5))
    assert names(q.take(now=inf)) == ["a"]


def test_more_rows_than_a_batch_can_hold_are_the_callers_mistake() -> None:
    q = queue()
    with pytest.raises(ValueError, match="5 rows never fit into a batch of 4"):
        q.put(NamedTicket("a", rows=5))
    assert len(q) == 0


def test_a_queue_full_of_rows_turns_away_what_does_not_fit_and_takes_what_does() -> None:
    q = queue(max_queued_rows=6)
    put(q, NamedTicket("a", rows=4))
    with pytest.raises(QueueFull, match=r"^Exceeds maximum queue size$"):
        q.put(NamedTicket("b", rows=3))
    put(q, NamedTicket("c", rows=2))
    assert (len(q), q.rows) == (2, 6)


def test_a_queue_full_of_requests_turns_the_next_away() -> None:
    q = queue(max_queued_requests=1)
    put(q, NamedTicket("a"))
    refused = NamedTicket("b")
    with pytest.raises(QueueFull):
        q.put(refused)
    assert not refused.waiting


@pytest.mark.parametrize("leave", ["take", "discard", "expire"])
def test_every_way_of_leaving_frees_room(leave: str) -> None:
    q = queue(max_rows=1, max_queued_rows=1)
    ticket = NamedTicket("a", deadline=1)
    q.put(ticket)
    match leave:
        case "take":
            q.take(1)
        case "discard":
            q.discard(ticket)
        case "expire":
            q.expire(1)
    assert not ticket.waiting
    assert (len(q), q.rows, q.next_due(), q.next_deadline()) == (0, 0, inf, inf)
    q.put(NamedTicket("b"))


def test_a_discarded_request_is_not_in_the_next_batch() -> None:
    q = queue()
    gone = NamedTicket("gone")
    put(q, NamedTicket("a"), gone, NamedTicket("b"))
    assert q.discard(gone)
    assert names(q.take(now=10)) == ["a", "b"]


def test_discarding_twice_says_so() -> None:
    q = queue()
    ticket = NamedTicket("a")
    q.put(ticket)
    assert [q.discard(ticket), q.discard(ticket)] == [True, False]


def test_discarding_what_was_taken_says_so() -> None:
    q = queue(max_rows=1)
    ticket = NamedTicket("a")
    q.put(ticket)
    q.take(now=0)
    assert not q.discard(ticket)


def test_the_window_starts_anew_when_its_oldest_request_leaves() -> None:
    q = queue()
    oldest = NamedTicket("oldest", arrived=0)
    put(q, oldest, NamedTicket("next", arrived=4))
    q.discard(oldest)
    assert q.next_due() == 14


def test_a_request_expires_at_its_deadline_and_not_before() -> None:
    q = queue()
    put(q, NamedTicket("a", deadline=3))
    assert q.next_deadline() == 3
    assert q.expire(now=2.99) == []
    assert names(q.expire(now=3)) == ["a"]
    assert q.take(now=inf) == []


def test_the_soonest_deadline_expires_first() -> None:
    q = queue()
    put(q, NamedTicket("late", deadline=3), NamedTicket("soon", deadline=1), NamedTicket("never"))
    assert names(q.expire(now=5)) == ["soon", "late"]


def test_equal_deadlines_expire_in_order_of_arrival() -> None:
    q = queue()
    put(q, *(NamedTicket(name, deadline=1) for name in "abc"))
    assert names(q.expire(now=1)) == ["a", "b", "c"]


def test_without_deadlines_nothing_expires_at_the_end_of_time() -> None:
    q = queue()
    put(q, NamedTicket("a"))
    assert q.expire(now=inf) == []
    assert len(q) == 1


def test_a_request_that_left_has_no_deadline_any_more() -> None:
    q = queue()
    gone = NamedTicket("gone", deadline=1)
    put(q, gone, NamedTicket("b", deadline=2))
    q.discard(gone)
    assert q.next_deadline() == 2
    assert names(q.expire(now=9)) == ["b"]


class RememberedTicket(Ticket):
    """A ticket that a weak reference can follow."""


def test_far_deadlines_do_not_keep_requests_alive() -> None:
    q: BatchQueue[RememberedTicket] = BatchQueue(WindowPolicy(max_rows=1))
    alive: weakref.WeakSet[RememberedTicket] = weakref.WeakSet()
    most = 0
    q.put(RememberedTicket(1, "first", 0, deadline=1))  # at the heap's top: nothing behind it is popped
    for _ in range(2_000):
        ticket = RememberedTicket(1, None, 1, deadline=1e9)
        alive.add(ticket)
        q.put(ticket)
        q.discard(ticket)
        most = max(most, len(alive))
    del ticket
    gc.collect()
    assert most < 100


def test_forgetting_departed_requests_keeps_the_deadlines_of_those_that_wait() -> None:
    q = queue(max_rows=1)
    put(q, *(NamedTicket(i, deadline=1000 + i) for i in range(10)))
    for _ in range(500):
        ticket = NamedTicket("gone", deadline=2000)
        q.put(ticket)
        q.discard(ticket)
    assert names(q.expire(now=3000)) == list(range(10))


def test_a_limit_holds_for_its_own_signature_whether_it_waits_already_or_not() -> None:
    q = queue(max_rows=8)
    put(q, *[NamedTicket(name, signature="x") for name in "abc"])
    q.limit_rows(2, "x")
    q.limit_rows(1, "y")
    put(q, *[NamedTicket(name, signature="y") for name in "de"], NamedTicket("f", signature="z"))
    assert [names(q.take(inf)) for _ in range(5)] == [["a", "b"], ["c"], ["d"], ["e"], ["f"]]


def test_a_request_larger_than_the_limit_runs_alone_at_once() -> None:
    q = queue(max_rows=8)
    q.limit_rows(4, None)
    put(q, NamedTicket("a", rows=6), NamedTicket("b"))
    assert names(q.take(now=0)) == ["a"]
    assert q.take(now=0) == []


def test_a_limit_is_never_raised() -> None:
    q = queue(max_rows=8)
    q.limit_rows(2, None)
    q.limit_rows(4, None)
    put(q, *[NamedTicket(name) for name in "abc"])
    assert names(q.take(now=0)) == ["a", "b"]


def test_the_latest_limits_are_remembered() -> None:
    q = queue(max_rows=2)
    for signature in range(REMEMBERED_LIMITS + 1):
        q.limit_rows(1, signature)
    for signature, together in ((0, 2), (1, 1)):
        put(q, *[NamedTicket(name, signature=signature) for name in "ab"])
        assert len(q.take(now=0)) == together
        q.clear()


def test_clearing_leaves_nothing_oldest_first() -> None:
    q = queue()
    put(
        q,
        NamedTicket("b", arrived=1),
        NamedTicket("c", signature="x", arrived=2),
        NamedTicket("a", arrived=0, deadline=9),
    )
    assert names(q.clear()) == ["a", "b", "c"]
    assert (q.clear(), len(q), q.rows, q.next_due(), q.next_deadline()) == ([], 0, 0, inf, inf)
