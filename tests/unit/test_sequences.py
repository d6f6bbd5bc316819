"""The life of sequences, one rule at a time. In any order of events: `test_sequences_machine`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import count
from math import inf
from typing import Any

import pytest

from server.errors import QueueFull, SequenceNotStarted
from server.scheduling.budget import ByteBudget
from server.scheduling.policy import LevelPolicy
from server.scheduling.queue import REMEMBERED_LIMITS
from server.scheduling.sequence_policy import SequencePolicy
from server.scheduling.sequences import SequenceQueue, Step
from tests.fakes import NamedTicket, names


class Bench:
    """A queue, and what it reported. A request is named by its sequence, its number, and "s" or "e" where it starts or
    ends it: "a1s", "a2", "a3e"."""

    def __init__(self, slots: int = 1, instances: int = 1, budget: ByteBudget | None = None, **policy: Any) -> None:
        self.released: list[tuple[int, int]] = []
        self.reclaimed = 0
        self.empty = 0
        self.q: SequenceQueue[NamedTicket] = SequenceQueue(
            SequencePolicy(slots, slots=slots, **{"max_idle": 10.0, "min_ready": 1, **policy}),
            instances,
            self._step,
            budget,
            lambda *place: self.released.append(place),
            self._reclaim,
        )
        self.q.when_empty = self._when_empty

    def put(self, *names: str, **ticket: Any) -> list[NamedTicket]:
        tickets = [NamedTicket(name, **ticket) for name in names]
        for each in tickets:
            self.q.put(each)
        return tickets

    def run(self, now: float = 0.0) -> list[object]:
        """The names of one batch, which begins and ends at once."""
        batch = self.q.take(now)
        if batch:
            self.q.ended(batch, now)
        return names(batch)

    def _step(self, ticket: NamedTicket) -> Step:
        name = str(ticket.name)
        return Step(name[0], "s" in name, "e" in name)

    def _reclaim(self) -> None:
        self.reclaimed += 1

    def _when_empty(self) -> None:
        self.empty += 1


def places(tickets: Sequence[NamedTicket]) -> list[tuple[int, int]]:
    return [(ticket.step.instance, ticket.step.slot) for ticket in tickets]


def test_sequences_have_slots_and_those_for_whom_there_is_none_stand_in_the_backlog() -> None:
    bench = Bench(slots=2, instances=2)
    bench.put("a1s", "b1s", "c1s", "d1s", "f1s")
    assert bench.q.counts() == (4, 4, 1)
    assert [bench.q.has(key) for key in "afz"] == [True, True, False]


def test_instances_are_filled_evenly_the_lowest_slots_first() -> None:
    bench = Bench(slots=2, instances=2)
    a, b, c, d = bench.put("a1s", "b1s", "c1s", "d1s")
    assert [bench.q.take(0), bench.q.take(0), bench.q.take(0)] == [[a, c], [b, d], []]
    assert places([a, b, c, d]) == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_the_slot_of_a_sequence_that_is_over_is_the_backlogs_first() -> None:
    bench = Bench(instances=2)
    bench.put("a1s", "b1se", "c1s", "d1s")
    assert [bench.run(), bench.run()] == [["a1s"], ["b1se"]]
    assert (bench.released, bench.q.counts()) == ([(1, 0)], (2, 2, 1))
    assert names(batch := bench.q.take(0)) == ["c1s"]
    assert places(batch) == [(1, 0)]


def test_when_the_last_sequence_is_over_that_is_told() -> None:
    bench = Bench(slots=2)
    bench.put("a1se", "b1s")
    bench.run()
    assert (bench.empty, bench.q.counts()) == (0, (2, 1, 0))
    bench.put("b2e")
    bench.run()
    assert (bench.empty, bench.q.counts()) == (1, (2, 0, 0))


def test_a_slot_that_was_free_is_taken_again() -> None:
    bench = Bench(slots=2)
    bench.put("a1s", "b1se")
    bench.run()
    (c,) = bench.put("c1s")
    bench.run()
    assert (places([c]), bench.q.counts()) == ([(0, 1)], (2, 2, 0))


def test_a_sequence_that_is_ended_from_outside_is_over_once_what_waits_has_run() -> None:
    bench = Bench()
    bench.put("a1s")
    bench.q.end("z")
    bench.q.end("a")
    assert (bench.q.has("a"), bench.q.counts().active) == (False, 1)
    assert bench.run() == ["a1s"]
    assert (bench.q.counts().active, bench.released) == (0, [(0, 0)])


def test_a_sequence_of_which_nothing_waits_is_over_when_it_is_ended_from_outside() -> None:
    bench = Bench()
    bench.put("a1s")
    bench.run()
    bench.q.end("a")
    assert (bench.q.has("a"), bench.q.counts().active) == (False, 0)


def test_a_sequence_that_runs_is_neither_over_nor_silent_before_its_batch_has_ended() -> None:
    bench = Bench()
    _, second = bench.put("a1s", "a2")
    batch = bench.q.take(0)
    bench.q.discard(second)
    assert bench.q.next_deadline() == inf
    bench.q.end("a")
    assert (bench.q.counts().active, bench.released) == (1, [])
    bench.q.ended(batch, 3)
    assert (bench.q.counts().active, bench.released) == (0, [(0, 0)])


def test_who_leaves_never_was_and_passes_its_start_on_to_the_next() -> None:
    bench = Bench()
    first, second, third = bench.put("a1s", "a2", "a3")
    assert bench.q.discard(second)
    assert not third.step.starts
    assert [bench.q.discard(first), bench.q.discard(first)] == [True, False]
    assert (third.step.starts, len(bench.q), bench.q.rows) == (True, 1, 1)
    assert bench.run() == ["a3"]


def test_who_starts_a_sequence_and_leaves_alone_passes_its_start_on_to_the_next_that_comes() -> None:
    bench = Bench()
    (first,) = bench.put("a1s")
    bench.q.discard(first)
    second, third = bench.put("a2", "a3")
    assert [second.step.starts, third.step.starts] == [True, False]


def test_a_sequence_in_the_backlog_of_which_nothing_waits_is_forgotten() -> None:
    bench = Bench()
    _, second = bench.put("a1s", "b1s")
    bench.q.discard(second)
    assert (bench.q.counts(), bench.q.has("b"), bench.released) == ((1, 1, 0), False, [])


def test_the_end_of_who_leaves_ends_its_sequence_all_the_same() -> None:
    bench = Bench()
    _, last = bench.put("a1s", "a2e")
    bench.q.discard(last)
    assert bench.run() == ["a1s"]
    assert bench.q.counts().active == 0


def test_whoever_has_come_too_late_leaves_soonest_first() -> None:
    bench = Bench(slots=2)
    bench.put("a1s", deadline=5)
    bench.put("b1s", deadline=3)
    assert (bench.q.next_deadline(), names(bench.q.expire(2.9))) == (3, [])
    assert names(bench.q.expire(5)) == ["b1s", "a1s"]
    assert (len(bench.q), bench.q.oldest_arrival()) == (0, inf)


def test_however_many_have_deadlines_they_leave_in_time() -> None:
    bench = Bench()
    bench.put("a1s", *["a2"] * 40, deadline=1)
    assert len(bench.q.expire(1)) == 41


def test_everything_that_waits_leaves_together_oldest_first() -> None:
    bench = Bench()
    bench.put("a1s", arrived=1)
    bench.put("b1s", arrived=2)
    bench.put("a2", arrived=3)
    assert bench.q.oldest_arrival() == 1
    assert names(bench.q.clear()) == ["a1s", "b1s", "a2"]
    assert (len(bench.q), bench.q.rows, bench.q.counts()) == (0, 0, (1, 1, 0))


@pytest.mark.parametrize("bound", [{"max_queued_requests": 2}, {"max_queued_rows": 2}])
def test_no_more_wait_than_may(bound: dict[str, int]) -> None:
    bench = Bench(levels=(LevelPolicy(**bound),))
    first, _ = bench.put("a1s", "a2")
    with pytest.raises(QueueFull):
        bench.put("a3")
    bench.q.discard(first)
    bench.put("a3")
    with pytest.raises(QueueFull):
        bench.put("a4")
    assert [bench.run(), bench.run(), bench.run()] == [["a2"], ["a3"], []]


def test_what_waits_takes_bytes_and_gives_them_back() -> None:
    budget = ByteBudget(10)
    bench = Bench(budget=budget)
    first, _ = bench.put("a1s", "a2", size=4)
    with pytest.raises(QueueFull):
        bench.put("a3", size=4)
    assert budget.used == 8
    bench.q.discard(first)
    assert budget.used == 4
    bench.run()
    assert budget.used == 0


def test_a_sequence_is_over_when_it_was_silent_for_too_long() -> None:
    bench = Bench()
    bench.put("a1s", "b1s")
    bench.run(5)
    assert (bench.q.next_deadline(), bench.run(14)) == (15, [])
    bench.q.expire(14.9)
    assert (bench.reclaimed, bench.q.has("a")) == (0, True)
    bench.q.expire(15)
    assert (bench.reclaimed, bench.q.has("a"), bench.released) == (1, False, [(0, 0)])
    assert bench.run(15) == ["b1s"]
    assert bench.q.next_deadline() == 25


@pytest.mark.parametrize("looked_at", [True, False])
def test_whoever_says_something_is_silent_from_then_on(looked_at: bool) -> None:
    bench = Bench()
    bench.put("a1s")
    bench.run(0)
    bench.put("a2", arrived=4)
    if looked_at:
        assert bench.q.next_deadline() == inf
    bench.run(6)
    assert bench.q.next_deadline() == 16


def test_who_goes_on_when_it_was_silent_for_too_long_must_start_again() -> None:
    bench = Bench()
    bench.put("a1s")
    bench.run(0)
    with pytest.raises(SequenceNotStarted):
        bench.put("a2", arrived=10)
    assert (bench.reclaimed, bench.q.counts()) == (1, (1, 0, 0))
    bench.put("a3s", arrived=10)
    assert bench.run(10) == ["a3s"]


def test_in_a_hurry_those_who_are_silent_make_room() -> None:
    bench = Bench()
    bench.put("a1s", "b1s")
    bench.run(0)
    assert bench.q.take(1) == []
    assert names(bench.q.take(1, hurry=True)) == ["b1s"]
    assert bench.q.has("a") is False


def test_an_instance_runs_one_batch_at_a_time_with_one_request_of_each_sequence() -> None:
    bench = Bench(slots=2)
    bench.put("a1s", "a2", "b1s")
    batch = bench.q.take(0)
    assert (names(batch), bench.q.take(0), bench.q.next_due()) == (["a1s", "b1s"], [], inf)
    bench.q.ended(batch, 0)
    assert bench.q.next_due() == 0
    assert bench.run() == ["a2"]


def test_who_may_not_overtake_ends_a_batch_of_others() -> None:
    bench = Bench(slots=4, in_order=True, max_delay=5.0, min_ready=4)
    bench.put("a1s", signature="x")
    assert bench.run(0) == []
    bench.put("b1s", signature="y")
    bench.put("c1s", signature="x")
    assert [bench.run(0), bench.run(0), bench.run(0)] == [["a1s"], ["b1s"], []]
    assert bench.run(5) == ["c1s"]


def test_who_may_overtake_waits_for_nobody_of_another_signature() -> None:
    bench = Bench(slots=4, max_delay=5.0, min_ready=2)
    bench.put("a1s", signature="x")
    bench.put("b1s", "c1s", signature="y")
    assert [bench.run(0), bench.run(0)] == [["b1s", "c1s"], []]
    assert (bench.q.next_due(), bench.run(5)) == (5, ["a1s"])


def test_the_instance_whose_first_request_came_first_goes_first() -> None:
    bench = Bench(instances=2)
    first, _ = bench.put("a1s", "b1s")
    bench.q.discard(first)
    bench.put("a2")
    assert [bench.run(), bench.run()] == [["b1s"], ["a2"]]


IMPOSSIBLE = {
    "no slot": ({"slots": 0}, "slots and min_ready must be at least 1, not 0 and 1"),
    "nothing is worth running": ({"min_ready": 0}, "slots and min_ready must be at least 1, not 1 and 0"),
    "over at once": ({"max_idle": 0.0}, "max_idle must be above 0, not 0.0"),
    "a negative delay": ({"max_delay": -1.0}, "max_delay and aging must not be negative"),
}


@pytest.mark.parametrize(("numbers", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_the_impossible_is_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        SequencePolicy(1, **{"min_ready": 1, **numbers})


def test_a_sequence_that_nobody_has_started_is_refused() -> None:
    q: SequenceQueue[NamedTicket] = SequenceQueue(SequencePolicy(1), 1, lambda _: Step("a", starts=False, ends=False))
    with pytest.raises(SequenceNotStarted, match=r"^the first request of a sequence must start it$"):
        q.put(NamedTicket("a"))
    assert (len(q), q.rows, q.counts()) == (0, 0, (1, 0, 0))


def test_a_model_is_told_the_id_of_a_sequence_or_0() -> None:
    assert Step("key", starts=True, ends=False).correlation_id == 0
    assert Step("key", starts=True, ends=False, correlation_id="id").correlation_id == "id"


def test_what_would_be_worth_running_is_left_to_the_window_below_so_many() -> None:
    policy = SequencePolicy(8, slots=8, min_ready=3, max_delay=1.0)
    assert [policy.choose([*range(1, rows + 1)], False, 0.0, 0.5) for rows in (1, 2, 3, 4)] == [0, 0, 3, 4]
    assert policy.choose([1, 2], True, 0.0, 0.5) == 2, "full"


def limited_queue() -> SequenceQueue[NamedTicket]:
    """Every request is a sequence of its own; up to 4 run together."""
    keys = count()
    return SequenceQueue(SequencePolicy(4, slots=4, min_ready=1), 1, lambda _: Step(next(keys), starts=True, ends=True))


def together(q: SequenceQueue[NamedTicket], signature: Hashable) -> int:
    """How many of four requests of this signature run at once."""
    for name in "abcd":
        q.put(NamedTicket(name, signature=signature))
    batch = q.take(now=0.0)
    q.ended(batch, now=0.0)
    q.clear()
    return len(batch)


def test_a_limit_is_never_raised() -> None:
    q = limited_queue()
    q.limit_rows(2, "x")
    q.limit_rows(3, "x")
    assert [together(q, signature) for signature in "xy"] == [2, 4]


def test_the_latest_limits_are_remembered() -> None:
    q = limited_queue()
    for signature in range(REMEMBERED_LIMITS + 1):
        q.limit_rows(1, signature)
    assert [together(q, signature) for signature in (0, 1, REMEMBERED_LIMITS)] == [4, 1, 1]
