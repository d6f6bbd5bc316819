"""The queue of sequences against a slow and obviously right model, in any order of events; and proof that it would
notice bugs.

`sequence_list` has the rules in the fewest words. The state machine drives both. Then every planted bug in `MUTATIONS`,
one replaced expression in the real source, must be caught by the same machine: see `mutating`.
"""

from __future__ import annotations

import sys
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from server.errors import ConvoyError, QueueFull, SequenceNotStarted
from server.scheduling import sequence_policy as policy_module
from server.scheduling import sequences as sequences_module
from server.scheduling.budget import ByteBudget
from server.scheduling.policy import LevelPolicy
from server.scheduling.queue import Ticket
from tests.unit.mutating import module_from, play_programs
from tests.unit.sequence_list import SequenceList
from tests.unit.sequence_mutations import MUTATIONS

ARRIVAL = st.tuples(
    st.sampled_from("aabbcde"),  # the sequence
    st.sampled_from([True, True, False]),  # it starts
    st.sampled_from([False, False, False, True]),  # it ends
    st.sampled_from("xxxy"),  # signature
    st.sampled_from([inf, inf, inf, 0, 1, 3]),  # until its deadline
    st.sampled_from([0, 1, 5]),  # bytes
)

TICK = 2.0**-10
"""No two events are at the same time."""


class SequenceMachine(RuleBasedStateMachine):
    """Arrivals, departures, runs and the passing of time, in any order."""

    module: Any = sequences_module
    policies: Any = policy_module

    @initialize(
        slots=st.sampled_from([1, 2, 3, 3, 4]),
        instances=st.sampled_from([1, 1, 2]),
        max_rows=st.sampled_from([1, 2, 3, 4]),
        strategy=st.sampled_from(["direct", "oldest", "oldest in order"]),
        min_ready=st.sampled_from([1, 2, 3]),
        preferred=st.sampled_from([(), (2,), (1, 3)]),
        max_delay=st.sampled_from([0, 2, 5]),
        max_queued=st.sampled_from([100, 100, 4]),
        max_bytes=st.sampled_from([1000, 1000, 6]),
        crowd=st.sampled_from(["", "xyyy", "xyxx", "xxyy"]),
    )
    def start(
        self,
        slots: int,
        instances: int,
        max_rows: int,
        strategy: str,
        min_ready: int,
        preferred: tuple[int, ...],
        max_delay: int,
        max_queued: int,
        max_bytes: int,
        crowd: str,
    ) -> None:
        direct = strategy == "direct"
        max_rows = slots if direct else max_rows
        numbers = {
            "max_rows": max_rows,
            "max_delay": max_delay,
            "slots": slots,
            "max_idle": 4.0,
            "min_ready": min_ready if direct else sys.maxsize,
            "in_order": strategy == "oldest in order",
        }
        preferred = () if direct else tuple(size for size in preferred if size <= max_rows)
        policy = self.policies.SequencePolicy(
            levels=(LevelPolicy(max_queued_requests=max_queued),), preferred_rows=preferred, **numbers
        )
        self.budget = ByteBudget(max_bytes)
        self.steps: dict[Any, Any] = {}
        self.released: list[tuple[int, int]] = []
        self.q = self.module.SequenceQueue(
            policy,
            instances,
            self.steps.__getitem__,
            self.budget,
            lambda *place: self.released.append(place),
            lambda: self.reclaimed.append(None),
        )
        self.reclaimed: list[None] = []
        self.q.when_empty = lambda: self.active_when_empty.append(self.q.counts().active)
        self.active_when_empty: list[int] = []
        self.list = SequenceList({"preferred": preferred, "max_queued": max_queued, **numbers}, instances, max_bytes)
        self.left: list[Any] = []
        self.now = 0.0
        self.crowd(crowd)

    @rule(arrivals=st.lists(ARRIVAL, min_size=1, max_size=6))
    def put(self, arrivals: list[tuple[str, bool, bool, str, float, int]]) -> None:
        for key, starts, ends, signature, patience, size in arrivals:
            self.put_one(key, starts, ends, signature, patience, size)

    @rule(key=st.sampled_from("abcde"), requests=st.integers(1, 3), ends=st.booleans(), runs=st.booleans())
    def talk(self, key: str, requests: int, ends: bool, runs: bool) -> None:
        """As most clients do: start, go on, and perhaps end."""
        for i in range(requests):
            self.put_one(key, i == 0, ends and i == requests - 1, "x", inf, 0)
        if runs:
            self.take()
            self.end_all()

    @rule(ticks=st.sampled_from([1, 2, 4]))
    def tick(self, ticks: int) -> None:
        self.now += ticks

    @rule()
    def sweep(self) -> None:
        """Whoever is silent is so for long enough."""
        self.now += 4
        self.expire()

    @rule(nth=st.integers(0, 2**16))
    def discard(self, nth: int) -> None:
        known = list(self.list.flags)
        if known:
            self.cancel(known[nth % len(known)])

    @rule(key=st.sampled_from("abc"), before=st.booleans(), more=st.integers(1, 2))
    def start_is_cancelled(self, key: str, before: bool, more: int) -> None:
        """The first of several requests leaves, before or after the others come."""
        first = self.put_one(key, True, False, "x", inf, 0)
        if before:
            self.cancel(first)
        later = [self.put_one(key, False, False, "x", inf, 0) for _ in range(more)]
        for ticket in (first, *later[:-1]):
            self.cancel(ticket)
        self.take()
        self.end_all()
        self.put_one(key, False, False, "x", inf, 0)
        self.take()

    @rule(key=st.sampled_from("abc"), runs=st.booleans(), more=st.booleans())
    def another_is_cancelled(self, key: str, runs: bool, more: bool) -> None:
        """A later request leaves, while the first runs or after it has."""
        self.put_one(key, True, False, "x", inf, 0)
        self.take()
        if not runs:
            self.end_all()
        second = self.put_one(key, False, False, "x", inf, 0)
        if more:
            self.put_one(key, False, False, "x", inf, 0)
        self.cancel(second)
        self.end_all()
        self.take()

    @rule(keys=st.sampled_from(["a", "ab", "abc"]), ends=st.booleans())
    def those_behind_a_run_are_cancelled(self, keys: str, ends: bool) -> None:
        """Requests leave which waited already when those before them began to run."""
        self.end_all()
        for key in keys:
            self.put_one(key, True, False, "x", inf, 0)
        behind = [self.put_one(key, False, ends, "x", inf, 0) for key in keys]
        self.take()
        for ticket in behind:
            self.cancel(ticket)

    @rule(key=st.sampled_from("abc"), late=st.sampled_from([-TICK, 0, TICK]))
    def come_back(self, key: str, late: float) -> None:
        """Someone goes on just when the sequence has been silent for too long."""
        self.end_all()
        self.put_one(key, True, False, "x", inf, 0)
        self.take()
        self.end_all()
        self.now += 4 + late - TICK
        self.put_one(key, False, False, "x", inf, 0)

    @rule(key=st.sampled_from("abc"))
    def end_from_outside(self, key: str) -> None:
        life = self.list.open(key)
        assert self.q.has(key) is (life is not None)
        self.q.end(key)
        if life is not None:
            life.closed = True
            self.list.settle()

    @rule()
    def come_and_go(self) -> None:
        """Enough of them to make the queue tidy its timers."""
        if self.list.free() and self.list.has_room_for(0):
            for _ in range(60):
                self.now += TICK
                for starts, ends in ((True, False), (False, True)):
                    ticket = Ticket(1, "x", self.now)
                    self.steps[ticket] = self.module.Step("w", starts, ends)
                    self.q.put(ticket)
                    assert self.q.discard(ticket)
            self.released.clear()
            self.active_when_empty.clear()

    def crowd(self, signatures: str) -> None:
        """A request of each of several sequences, at the same time."""
        for key, signature in zip("fghi", signatures, strict=False):
            self.put_one(key, True, False, signature, inf, 0)
        self.take()

    @rule()
    def expire(self) -> None:
        self.now += TICK
        late = self.q.expire(self.now)
        assert set(late) == set(self.list.expire(self.now))
        assert [ticket.deadline for ticket in late] == sorted(ticket.deadline for ticket in late)
        self.leaves(late)

    @rule()
    def take(self) -> None:
        while self.take_one():
            pass

    @rule()
    def end_all(self) -> None:
        for instance in tuple(self.list.busy):
            self.end_one(instance)

    @rule(instance=st.integers(0, 1))
    def end_one(self, instance: int) -> None:
        if instance in self.list.busy:
            self.now += TICK
            self.q.ended(self.list.busy[instance], self.now)
            self.list.end(instance, self.now)

    @rule(max_rows=st.integers(1, 3), signature=st.sampled_from("xy"))
    def limit_rows(self, max_rows: int, signature: str) -> None:
        self.q.limit_rows(max_rows, signature)
        self.list.limits[signature] = min(max_rows, self.list.limits.get(signature, max_rows))

    @rule()
    def clear(self) -> None:
        waiting = self.list.waiting()
        assert self.q.clear() == waiting
        self.list.skip(waiting)
        self.leaves(waiting)

    @rule()
    def drain(self) -> None:
        """In a hurry, everything that waits runs, whoever holds the slots."""
        for _ in range(1000):
            if not self.take_one(hurry=True):
                if not self.list.busy:
                    break
                self.end_all()
        assert not self.list.waiting()

    @rule()
    def look_ahead(self) -> None:
        assert self.q.next_due() == self.list.next_due()

    @invariant()
    def books_balance(self) -> None:
        if not hasattr(self, "q"):
            return
        waiting = self.list.waiting()
        assert len(self.q) == len(waiting)
        assert self.budget.used == self.list.bytes()
        assert self.q.oldest_arrival() == min((ticket.arrived for ticket in waiting), default=inf)
        assert self.q.next_deadline() == self.list.next_deadline()
        assert [ticket for ticket in self.list.flags if ticket.waiting] == waiting
        placed = self.list.placed()
        slots = self.list.policy["slots"] * self.list.instances
        timed = [sequence for _, _, sequence in self.q._timers]
        assert len(set(timed)) == len(timed) <= 2 * slots + 33
        assert self.q.counts() == (slots, len(placed), len(self.list.backlog()))
        assert len(self.reclaimed) == self.list.reclaimed

    @invariant()
    def slots_stay(self) -> None:
        if not hasattr(self, "q"):
            return
        places = [life.place for life in self.list.placed()]
        assert len(set(places)) == len(places), "two sequences in one slot"
        assert sorted(slot for _, slot in self.released) == sorted(self.list.gone)
        assert set(self.active_when_empty) <= {0}
        assert bool(self.active_when_empty) >= bool(self.released and not places)
        assert len(self.active_when_empty) <= len(self.released)
        self.active_when_empty.clear()
        self.released.clear()
        self.list.gone.clear()

    def put_one(self, key: str, starts: bool, ends: bool, signature: str, patience: float, size: int) -> Any:
        self.now += TICK
        ticket = Ticket(1, signature, self.now, self.now + patience, size=size)
        self.steps[ticket] = self.module.Step(key, starts, ends)
        life, has_room, free = self.list.open(key), self.list.has_room_for(size), self.list.free()
        silent = self.list.silent_too_long(key, self.now)
        known = life is not None and not silent
        problem = self.attempt(ticket)
        if silent and life is not None:
            self.list.reclaimed += 1
            self.list.over(life)
        if not known and not starts:
            assert isinstance(problem, SequenceNotStarted)
        elif not has_room:
            assert isinstance(problem, QueueFull)
        else:
            assert problem is None
            self.list.put(ticket, key, (starts, ends), self.now)
            if not known and free and not silent:
                assert self.list.life_of(ticket).place == min(free), "not the lowest slot"
        return ticket

    def cancel(self, ticket: Any) -> None:
        waits = ticket in self.list.waiting()
        assert self.q.discard(ticket) is waits
        if waits:
            self.list.skip([ticket])
            self.leaves([ticket])

    def attempt(self, ticket: Any) -> Exception | None:
        try:
            self.q.put(ticket)
        except (SequenceNotStarted, QueueFull) as problem:
            return problem
        return None

    def take_one(self, *, hurry: bool = False) -> list[Any]:
        self.now += TICK
        batch = self.q.take(self.now, hurry)
        if hurry:
            self.make_room()
        expected = self.list.batch(inf if hurry else self.now)
        assert batch == expected, f"took {batch}, not {expected}"
        for ticket in batch:
            assert ticket.step.starts is self.list.starts(ticket)
            assert (ticket.step.slot, ticket.step.instance) == self.list.life_of(ticket).place
        if batch:
            self.list.take(batch)
            self.leaves(batch)
        return batch

    def make_room(self) -> None:
        """What a queue in a hurry does first: those that were idle for longest go, for the backlog's sake."""
        while self.list.backlog() and self.list.idle():
            longest = min(when for when, _ in self.list.idle())
            rivals = [life for when, life in self.list.idle() if when == longest]  # touched by the same run: whichever
            self.list.over(next(life for life in rivals if life.all[0].step.sequence.instance < 0))

    def leaves(self, tickets: list[Any]) -> None:
        assert not set(tickets) & set(self.left), "left twice"
        self.left += tickets


TestSequenceMachine = SequenceMachine.TestCase
TestSequenceMachine.settings = settings(max_examples=60, stateful_step_count=30)


CAUGHT = (
    AssertionError,
    LookupError,
    TypeError,
    ValueError,
    StopIteration,
    RuntimeError,
    AttributeError,
    ConvoyError,
)


def mutated(right: str, wrong: str) -> type[SequenceMachine]:
    """A machine of the code with one expression replaced."""
    sources = {each: Path(str(each.__file__)).read_text() for each in (sequences_module, policy_module)}
    assert sum(source.count(right) for source in sources.values()) == 1, "it names no expression, or several"
    modules = {
        each: module_from(each.__name__, source.replace(right, wrong)) if right in source else each
        for each, source in sources.items()
    }

    class MutatedMachine(SequenceMachine):
        module = modules[sequences_module]
        policies = modules[policy_module]

    return MutatedMachine


@pytest.mark.parametrize(("right", "wrong"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_planted_bug_is_caught(right: str, wrong: str) -> None:
    machine = mutated(right, wrong)
    with pytest.raises(CAUGHT):
        play_programs("sequences", machine)


def test_the_programs_find_nothing_where_no_bug_is_planted() -> None:
    play_programs("sequences", SequenceMachine)
