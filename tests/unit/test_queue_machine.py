"""The queue against a slow and obviously right model, in any order of events; and proof that it would notice bugs.

`waiting_list` has the rules of the queue in the fewest words. The state machine drives both. Then every planted bug
in `MUTATIONS`, one replaced expression in the real source, must be caught by the same machine: see `mutating`.
"""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from server.errors import QueueFull
from server.scheduling import budget as budget_module
from server.scheduling import deadlines as deadlines_module
from server.scheduling import policy as policy_module
from server.scheduling import queue as queue_module
from tests.unit.mutating import module_from, play_programs
from tests.unit.waiting_list import WaitingList, level_of, oldest, rows_of

ARRIVAL = st.tuples(
    st.sampled_from([1, 1, 1, 2, 2, 3, 4, 8]),  # rows
    st.sampled_from("xxxyz"),  # signature
    st.sampled_from([inf, inf, inf, 0, 1, 3, 6, 1000]),  # until its deadline
    st.sampled_from([1, 2, 3, 3]),  # level
    st.sampled_from([inf, inf, 0, 1, 2, 4, 6]),  # until it is delayed
    st.sampled_from([0, 1, 5]),  # bytes
)

BOUNDS = st.tuples(st.integers(0, 24).map(lambda below: 24 - below), st.sampled_from([100, 100, 4, 1]))
"""Of one level: rows beyond a full batch, and requests."""


class QueueMachine(RuleBasedStateMachine):
    """Arrivals, departures, deadlines and the passing of time, in any order."""

    queue: Any = queue_module
    policy: Any = policy_module
    budget: Any = budget_module

    @initialize(
        max_rows=st.integers(1, 8).map(lambda below: 9 - below),
        max_requests=st.sampled_from([100, 3, 2, 1]),
        preferred=st.sampled_from([(), (2,), (2, 3), (4, 2), (3, 6), (1, 8)]),
        max_delay=st.sampled_from([5, 9, 3, 1, 0]),
        levels=st.sampled_from([3, 2, 1]),
        bounds=st.tuples(BOUNDS, BOUNDS, BOUNDS),
        aging=st.sampled_from([0, 2, 4]),
        max_bytes=st.sampled_from([1000, 1000, 1000, 12, 3]),
    )
    def start(
        self,
        max_rows: int,
        max_requests: int,
        preferred: tuple[int, ...],
        max_delay: int,
        levels: int,
        bounds: tuple[tuple[int, int], ...],
        aging: int,
        max_bytes: int,
    ) -> None:
        numbers_of_levels = [
            {"max_queued_rows": max_rows + room, "max_queued_requests": size} for room, size in bounds[:levels]
        ]
        numbers = {
            "max_rows": max_rows,
            "max_requests": max_requests,
            "preferred_rows": tuple(size for size in preferred if size <= max_rows),
            "max_delay": max_delay,
            "aging": aging,
        }
        policies = tuple(self.policy.LevelPolicy(**level) for level in numbers_of_levels)
        self.bytes = self.budget.ByteBudget(max_bytes)
        self.q = self.queue.BatchQueue(self.policy.WindowPolicy(levels=policies, **numbers), self.bytes)
        self.waiting = WaitingList({"levels": numbers_of_levels, **numbers}, max_bytes)
        self.all: list[Any] = []
        self.left: list[Any] = []
        self.now = 0

    @rule(arrivals=st.lists(ARRIVAL, min_size=1, max_size=6), then_take=st.booleans())
    def put(self, arrivals: list[tuple[int, str, float, int, float, int]], then_take: bool) -> None:
        for rows, signature, patience, urgency, delay, size in arrivals:
            level = min(urgency, len(self.waiting.policy["levels"]))
            self.put_one(
                self.queue.Ticket(rows, signature, self.now, self.now + patience, level, self.now + delay, size)
            )
        if then_take:
            self.take()

    @rule(seconds=st.integers(1, 4), then_expire=st.booleans())
    def tick(self, seconds: int, then_expire: bool) -> None:
        self.now += seconds
        if then_expire:
            self.expire()

    @rule(nth=st.integers(0, 2**16))
    def discard(self, nth: int) -> None:
        if self.all:
            ticket = self.all[nth % len(self.all)]
            waits = ticket in self.waiting.tickets
            assert self.q.discard(ticket) is waits
            if waits:
                self.leaves([ticket])

    @rule()
    def delays_cross(self) -> None:
        """Who came later is delayed earlier."""
        self.put_one(self.queue.Ticket(1, "x", self.now, delay_at=self.now + 3))
        self.now += 1
        self.put_one(self.queue.Ticket(1, "x", self.now, delay_at=self.now + 1))
        for _ in range(2):
            self.now += 1
            self.expire()

    @rule()
    def climb(self) -> None:
        """The old of the last level beside the new of the one above."""
        last = len(self.waiting.policy["levels"])
        self.put_one(self.queue.Ticket(1, "x", self.now, level=last))
        self.now += self.waiting.policy["aging"]
        self.put_one(self.queue.Ticket(1, "x", self.now, level=max(1, last - 1)))
        self.take()

    @rule()
    def come_and_go(self) -> None:
        """Enough of them to make the queue tidy its deadlines."""
        if self.waiting.has_room_for(1, 1, 0):
            for _ in range(80):
                ticket = self.queue.Ticket(1, "w", self.now, self.now + 500)
                self.q.put(ticket)
                assert self.q.discard(ticket)

    @rule()
    def expire(self) -> None:
        late = self.q.expire(self.now)
        assert set(late) == set(self.waiting.expire(self.now))
        assert [ticket.deadline for ticket in late] == sorted(ticket.deadline for ticket in late)
        self.leaves(late)

    @rule()
    def take(self) -> None:
        self.check_batch(self.q.take(self.now), self.now)

    @rule(max_rows=st.sampled_from([3, 6, 1, 2, 4, 20]), signature=st.sampled_from("yzx"), clear_first=st.booleans())
    def limit_rows(self, max_rows: int, signature: str, clear_first: bool) -> None:
        if clear_first:
            cleared = self.q.clear()
            assert set(cleared) == set(self.waiting.tickets)
            assert [ticket.arrived for ticket in cleared] == sorted(ticket.arrived for ticket in cleared)
            self.leaves(cleared)
        self.q.limit_rows(max_rows, signature)
        self.waiting.limits[signature] = min(max_rows, self.waiting.max_rows(signature))

    @rule()
    def take_everything(self) -> None:
        while batch := self.q.take(inf):
            self.check_batch(batch, inf)
        assert not self.waiting.tickets

    @rule()
    def look_ahead(self) -> None:
        due = [oldest(line) + self.waiting.policy["max_delay"] for line in self.waiting.lines(self.now).values()]
        assert self.q.next_due() == min(due, default=inf)
        assert self.q.next_deadline() == self.waiting.next_deadline()

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "q"):
            assert len(self.q) == len(self.waiting.tickets)
            assert self.q.rows == self.waiting.rows()
            assert self.bytes.used == self.waiting.bytes()
            assert self.q.oldest_arrival() == min((ticket.arrived for ticket in self.waiting.tickets), default=inf)
            assert [ticket for ticket in self.all if ticket.waiting] == self.waiting.tickets

    def put_one(self, ticket: Any) -> None:
        self.all.append(ticket)
        has_room = self.waiting.has_room_for(ticket.rows, level_of(ticket), ticket.size)
        try:
            self.q.put(ticket)
        except ValueError:
            assert ticket.rows > self.waiting.policy["max_rows"]
        except QueueFull:
            assert not has_room
        else:
            assert ticket.rows <= self.waiting.policy["max_rows"]
            assert has_room
            self.waiting.tickets.append(ticket)

    def check_batch(self, batch: list[Any], now: float) -> None:
        """The properties that matter one by one, for their names; then that it is exactly the right batch."""
        policy = self.waiting.policy
        assert len({ticket.signature for ticket in batch}) <= 1, "mixed signatures"
        assert rows_of(batch) <= policy["max_rows"], "too many rows"
        assert len(batch) < 2 or rows_of(batch) <= self.waiting.max_rows(batch[0].signature), "more than the limit"
        assert len(batch) <= policy["max_requests"], "too many requests"
        allowed = self.waiting.batches(now)
        assert batch in allowed if batch else not allowed, f"took {batch}, not one of {allowed}"
        self.leaves(batch)

    def leaves(self, tickets: list[Any]) -> None:
        assert not set(tickets) & set(self.left), "left twice"
        self.left += tickets
        self.waiting.remove(tickets)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=150, stateful_step_count=40)


CAUGHT = (AssertionError, LookupError, TypeError, ValueError, StopIteration, RuntimeError, OverflowError, QueueFull)

MUTATIONS = {
    # in queue.py
    "a batch of one row too many": ("bisect_right(prefix_rows, policy.max_rows)", "1 + bisect_right(prefix_rows, 8)"),
    "a batch of one request too many": ("min(policy.max_requests, policy.max_rows)", "policy.max_rows"),
    "mixed signatures": ("ticket.signature", "None"),
    "newest first": ("return next(iter(places.values()))", "return reversed(next(iter(places.values())))"),
    "youngest signature first": (", now) >= self._rank(best[0], now)", ", now) <= self._rank(best[0], now)"),
    "first signature first": (
        "if best and self._rank(next(iter(self._in_order(line, now))), now) >=",
        "if best or 0 >=",
    ),
    "a blocked batch waits": ("more_wait = len(prefix_rows) < line.requests()", "more_wait = False"),
    "one request above the bound": ("self.requests >= self.max_requests", "self.requests > self.max_requests"),
    "the last row is refused": ("self.rows + rows > self.max_rows", "self.rows + rows >= self.max_rows"),
    "the row bound is forgotten": ("or self.rows + rows > self.max_rows", ""),
    "a full-sized request is refused": ("if rows > self._max_rows:", "if rows >= self._max_rows:"),
    "requests of a line are counted as rows": ("line.rows += rows", "line.rows += 1"),
    "rows are not given back": ("            load.rows -= ticket.rows\n", ""),
    "requests are not given back": ("            load.requests -= 1\n", ""),
    "rows stay in a line": ("        line.rows -= rows\n", ""),
    "a request leaves twice": ("            ticket.waiting = False\n", ""),
    "an empty line stays": ("if not line.places:", "if False:"),
    "an empty place stays": ("            if not in_place:", "            if False:"),
    "a batch of two places is removed from one": ("if ticket.place != place:", "if not place:"),
    "an expired request stays": (
        "                self._remove((ticket,))\n                late",
        "                late",
    ),
    "nobody is delayed": ("if when < ticket.deadline:", "if False:"),
    "delay_at is not looked at": ("if ticket.deadline < ticket.delay_at else ticket.delay_at", ""),
    "the deadline is forgotten where there is a delay_at": (
        "when = ticket.deadline if ticket.deadline",
        "when = inf if inf",
    ),
    "whoever is delayed has no deadline any more": ("self._deadlines.add(ticket.deadline, ticket, len(self))", "pass"),
    "the delayed go before the others": ("ticket.place += 1", "ticket.place -= 1"),
    "the delayed stay where they are": ("        ticket.place += 1\n", ""),
    "the delayed in order of delay": ("            tickets.move_to_end(other)", "            pass"),
    "the delayed leave an empty place": ("if not places[ticket.place]:", "if False:"),
    "the least urgent first": ("sorted(places)", "sorted(places, reverse=True)"),
    "levels in order of arrival": (
        "in_turn = [places[place] for place in sorted(places)]",
        "in_turn = list(places.values())",
    ),
    "aging is forgotten": ("if self._policy.aging:", "if False:"),
    "levels do not rank signatures": (
        "return level, ticket.place & 1, ticket.arrived",
        "return 1, ticket.place & 1, ticket.arrived",
    ),
    "being delayed does not rank": (
        "return level, ticket.place & 1, ticket.arrived",
        "return level, 0, ticket.arrived",
    ),
    "due by the first and not the oldest": (
        "return min([next(iter(tickets)).arrived for",
        "return max([next(iter(tickets)).arrived for",
    ),
    "all levels share the first one's room": ("load = self._load_at[place]", "load = self._load_at[2]"),
    "a limit is forgotten where none waits": ("self._limited.get(ticket.signature, self._policy)", "self._policy"),
    "a limit does not hold for those that wait": ("            line.policy = policy\n", "            pass\n"),
    "a limit for everybody": ("policy = line.policy\n", "policy = next(iter(self._limited.values()), line.policy)\n"),
    "a limit holds up whoever is larger": ("[max(1, bisect_right(", "[max(0, bisect_right("),
    "a limit is lifted by a larger one": ("self._limited.pop(signature, self._policy).limited", "self._policy.limited"),
    "clearing in no order": ("return sorted(tickets, key=lambda ticket: ticket.arrived)", "return tickets[::-1]"),
    "clearing forgets what is delayed": (
        "for in_place in line.places.values() for ticket in in_place]",
        "for place, in_place in line.places.items() if place % 2 == 0 for ticket in in_place]",
    ),
    "bytes are not given back": ("self._budget.give_back(", "int("),
    "bytes are not counted": ("self._budget.take(ticket.size)", "pass"),
    # in deadlines.py
    "a deadline one moment late": ("if self.next() > now or", "if self.next() >= now or"),
    "departed requests expire": ("while heap and not heap[0][2].waiting:", "while False:"),
    "tidying forgets those that wait": ("for entry in heap if entry[2].waiting]", "for entry in heap if False]"),
    "deadlines in order of arrival": ("(when, serial, ticket)", "(serial, when, ticket)"),
    # in budget.py
    "a byte above the bound": ("if used > self.limit and", "if used > self.limit + 1 and"),
    "the last byte is refused": ("if used > self.limit and", "if used >= self.limit and"),
    "the largest request is never let in": ("if used > self.limit and self.used:", "if used > self.limit:"),
    # in policy.py
    "larger batches by a limit": ("max_rows=min(max_rows, self.max_rows)", "max_rows=max_rows"),
    "a limit forgets preferred sizes": ("preferred_rows=preferred)", "preferred_rows=())"),
    "whoever is larger than a limit waits": (
        "prefix_rows[-1] >= self.max_rows or",
        "prefix_rows[-1] == self.max_rows or",
    ),
    "twice the delay": ("return oldest_arrived + self.max_delay", "return oldest_arrived + 2 * self.max_delay"),
    "no delay": ("return oldest_arrived + self.max_delay", "return oldest_arrived"),
    "due one moment late": ("if full or now >= self.due", "if full or now > self.due"),
    "a full batch is not looked at": ("rows >= self.max_rows\n", "rows > self.max_rows\n"),
    "a full batch waits": ("more_wait or prefix_rows[-1] >= self.max_rows or", "more_wait or"),
    "enough requests are not looked at": ("or requests >= self.max_requests", "or requests > self.max_requests"),
    "enough requests wait": (" or len(prefix_rows) == self.max_requests", ""),
    "the smallest preferred size": ("range(len(prefix_rows), 0, -1)", "range(1, len(prefix_rows) + 1)"),
    "preferred sizes are forgotten": ("if prefix_rows[count - 1] in self.preferred_rows:", "if False:"),
    "the preferred size is not cut": ("                return count", "                return len(prefix_rows)"),
    "climbing without end": ("return 1 if waited >= (level - 1) * self.aging else level", "return level"),
    "climbing to the top at once": ("else level - int(waited / self.aging)", "else 1"),
    "climbing never": ("else level - int(waited / self.aging)", "else level"),
    "only the largest preferred size": ("rows >= min(self.preferred_rows)", "rows >= max(self.preferred_rows)"),
}


def mutated(right: str, wrong: str) -> type[QueueMachine]:
    """A machine of the code with one expression replaced."""
    modules = (queue_module, policy_module, budget_module, deadlines_module)
    sources = {module: Path(str(module.__file__)).read_text() for module in modules}
    assert sum(right in source for source in sources.values()) == 1, "the mutation names no expression, or several"

    class MutatedMachine(QueueMachine):
        queue = module_from(queue_module.__name__, sources[queue_module].replace(right, wrong))
        policy = module_from(policy_module.__name__, sources[policy_module].replace(right, wrong))
        budget = module_from(budget_module.__name__, sources[budget_module].replace(right, wrong))
        vars(queue)["Deadlines"] = module_from("deadlines", sources[deadlines_module].replace(right, wrong)).Deadlines

    return MutatedMachine


@pytest.mark.parametrize(("right", "wrong"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_planted_bug_is_caught(right: str, wrong: str) -> None:
    machine = mutated(right, wrong)
    with pytest.raises(CAUGHT):
        play_programs("queue", machine)


def test_the_programs_find_nothing_where_no_bug_is_planted() -> None:
    play_programs("queue", QueueMachine)
