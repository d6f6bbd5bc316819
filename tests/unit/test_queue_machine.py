"""The queue against a slow and obviously right model, in any order of events; and proof that it would notice bugs.

`WaitingList` is the rules of the queue in the fewest words. The state machine drives both. Then every planted bug in
`MUTATIONS`, one replaced expression in the real source, must be caught by the same machine.
"""

from __future__ import annotations

from math import inf
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from server.errors import QueueFull
from server.scheduling import policy as policy_module
from server.scheduling import queue as queue_module


class WaitingList:
    """All requests that wait, in order of arrival, and what the rules say about them."""

    def __init__(self, policy: dict[str, Any]) -> None:
        self.policy = policy
        self.tickets: list[Any] = []

    def rows(self) -> int:
        return sum(ticket.rows for ticket in self.tickets)

    def has_room_for(self, rows: int) -> bool:
        fits = self.rows() + rows <= self.policy["max_queued_rows"]
        return bool(fits and len(self.tickets) + 1 <= self.policy["max_queued_requests"])

    def lines(self) -> dict[object, list[Any]]:
        """By signature."""
        return {
            signature: [ticket for ticket in self.tickets if ticket.signature == signature]
            for signature in {ticket.signature for ticket in self.tickets}
        }

    def worth_running(self, line: list[Any], now: float) -> list[Any]:
        """The batch that this line should run now, or []."""
        policy = self.policy
        prefixes = [line[:n] for n in range(1, len(line) + 1)]
        possible = [p for p in prefixes if rows_of(p) <= policy["max_rows"] and len(p) <= policy["max_requests"]]
        longest = possible[-1]
        full = rows_of(longest) == policy["max_rows"] or len(longest) == policy["max_requests"]
        blocked = len(longest) < len(line)
        due = now >= line[0].arrived + policy["max_delay"]
        if full or blocked or due:
            return longest
        preferred = [p for p in possible if rows_of(p) in policy["preferred_rows"]]
        return preferred[-1] if preferred else []

    def batches(self, now: float) -> list[list[Any]]:
        """Every batch that may go first: of the runnable ones, those whose oldest request is the oldest."""
        runnable = [batch for line in self.lines().values() if (batch := self.worth_running(line, now))]
        first = min((batch[0].arrived for batch in runnable), default=0)
        return [batch for batch in runnable if batch[0].arrived == first]

    def remove(self, tickets: list[Any]) -> None:
        self.tickets = [ticket for ticket in self.tickets if ticket not in tickets]


def rows_of(tickets: list[Any]) -> int:
    return sum(ticket.rows for ticket in tickets)


ARRIVAL = st.tuples(
    st.sampled_from([1, 1, 1, 2, 2, 3, 4, 8]),  # rows
    st.sampled_from("xxxyz"),  # signature
    st.sampled_from([inf, inf, 0, 1, 3, 6, 1000]),  # patience
)


class QueueMachine(RuleBasedStateMachine):
    """Arrivals, departures, deadlines and the passing of time, in any order."""

    queue: Any = queue_module
    policy: Any = policy_module

    @initialize(
        max_rows=st.integers(1, 8).map(lambda below: 9 - below),
        max_requests=st.sampled_from([100, 3, 2, 1]),
        preferred=st.sampled_from([(), (2,), (2, 3), (4, 2), (3, 6), (1, 8)]),
        max_delay=st.sampled_from([5, 3, 1, 0]),
        room=st.integers(0, 24).map(lambda below: 24 - below),
        max_queued_requests=st.sampled_from([100, 4, 1]),
    )
    def start(
        self,
        max_rows: int,
        max_requests: int,
        preferred: tuple[int, ...],
        max_delay: int,
        room: int,
        max_queued_requests: int,
    ) -> None:
        numbers = {
            "max_rows": max_rows,
            "max_requests": max_requests,
            "preferred_rows": tuple(size for size in preferred if size <= max_rows),
            "max_delay": max_delay,
            "max_queued_rows": max_rows + room,
            "max_queued_requests": max_queued_requests,
        }
        self.q = self.queue.BatchQueue(self.policy.WindowPolicy(**numbers))
        self.waiting = WaitingList(numbers)
        self.all: list[Any] = []
        self.left: list[Any] = []
        self.now = 0

    @rule(arrivals=st.lists(ARRIVAL, min_size=1, max_size=6), then_take=st.booleans())
    def put(self, arrivals: list[tuple[int, str, float]], then_take: bool) -> None:
        for rows, signature, patience in arrivals:
            self.put_one(self.queue.Ticket(rows, signature, self.now, self.now + patience))
        if then_take:
            self.take()

    @rule(seconds=st.integers(1, 4))
    def tick(self, seconds: int) -> None:
        self.now += seconds

    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        if self.all:
            ticket = data.draw(st.sampled_from(self.all))
            waits = ticket in self.waiting.tickets
            assert self.q.discard(ticket) is waits
            if waits:
                self.leaves([ticket])

    @rule()
    def come_and_go(self) -> None:
        """Enough of them to make the queue tidy its deadlines."""
        if self.waiting.has_room_for(1):
            for _ in range(80):
                ticket = self.queue.Ticket(1, "w", self.now, self.now + 500)
                self.q.put(ticket)
                assert self.q.discard(ticket)

    @rule()
    def expire(self) -> None:
        late = self.q.expire(self.now)
        assert set(late) == {ticket for ticket in self.waiting.tickets if ticket.deadline <= self.now}
        assert [ticket.deadline for ticket in late] == sorted(ticket.deadline for ticket in late)
        self.leaves(late)

    @rule()
    def take(self) -> None:
        self.check_batch(self.q.take(self.now), self.now)

    @rule()
    def take_everything(self) -> None:
        while batch := self.q.take(inf):
            self.check_batch(batch, inf)
        assert not self.waiting.tickets

    @rule()
    def look_ahead(self) -> None:
        heads = [line[0].arrived + self.waiting.policy["max_delay"] for line in self.waiting.lines().values()]
        assert self.q.next_due() == min(heads, default=inf)
        assert self.q.next_deadline() == min((t.deadline for t in self.waiting.tickets), default=inf)

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "q"):
            assert len(self.q) == len(self.waiting.tickets)
            assert self.q.rows == self.waiting.rows()
            assert [ticket for ticket in self.all if ticket.waiting] == self.waiting.tickets

    def put_one(self, ticket: Any) -> None:
        self.all.append(ticket)
        try:
            self.q.put(ticket)
        except ValueError:
            assert ticket.rows > self.waiting.policy["max_rows"]
        except QueueFull:
            assert not self.waiting.has_room_for(ticket.rows)
        else:
            assert ticket.rows <= self.waiting.policy["max_rows"]
            assert self.waiting.has_room_for(ticket.rows)
            self.waiting.tickets.append(ticket)

    def check_batch(self, batch: list[Any], now: float) -> None:
        """The properties that matter one by one, for their names; then that it is exactly the right batch."""
        policy = self.waiting.policy
        assert len({ticket.signature for ticket in batch}) <= 1, "mixed signatures"
        assert rows_of(batch) <= policy["max_rows"], "too many rows"
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


CAUGHT = (AssertionError, LookupError, TypeError, StopIteration, RuntimeError, QueueFull)

MUTATIONS = {
    # in queue.py
    "a batch of one row too many": ("rows > policy.max_rows or", "rows > policy.max_rows + 1 or"),
    "a batch of one request too many": ("len(batch) == policy.max_requests:", "len(batch) > policy.max_requests:"),
    "mixed signatures": ("ticket.signature", "None"),
    "newest first": ("return next(iter(self.tickets))", "return next(reversed(self.tickets))"),
    "youngest signature first": (".arrived >= best[0].arrived", ".arrived <= best[0].arrived"),
    "first signature first": ("if best and line.oldest().arrived >= best[0].arrived:", "if best:"),
    "a blocked batch waits": ("len(batch) < len(line.tickets)", "False"),
    "one request above the bound": ("requests >= policy.max_queued_requests", "requests > policy.max_queued_requests"),
    "the last row is refused": ("+ ticket.rows > policy.max_queued_rows", "+ ticket.rows >= policy.max_queued_rows"),
    "the row bound is forgotten": ("or self._rows + ticket.rows > policy.max_queued_rows", ""),
    "a full-sized request is refused": ("if ticket.rows > policy.max_rows:", "if ticket.rows >= policy.max_rows:"),
    "requests of a line are counted as rows": ("line.rows += ticket.rows", "line.rows += 1"),
    "rows are not given back": ("        self._rows -= ticket.rows\n", ""),
    "requests are not given back": ("        self._requests -= 1\n", ""),
    "a request leaves twice": ("        ticket.waiting = False\n        if not", "        if not"),
    "an empty line stays": ("if not line.tickets:", "if False:"),
    "a deadline one moment late": ("self.next_deadline() <= now and", "self.next_deadline() < now and"),
    "an expired request stays": ("            self._remove(ticket)\n            late", "            late"),
    "departed requests expire": ("while heap and not heap[0][2].waiting:", "while False:"),
    "tidying forgets those that wait": ("for entry in heap if entry[2].waiting]", "for entry in heap if False]"),
    "deadlines in order of arrival": ("(ticket.deadline, next(self._serial)", "(next(self._serial), ticket.deadline"),
    # in policy.py
    "twice the delay": ("return oldest_arrived + self.max_delay", "return oldest_arrived + 2 * self.max_delay"),
    "no delay": ("return oldest_arrived + self.max_delay", "return oldest_arrived"),
    "due one moment late": ("if full or now >= self.due", "if full or now > self.due"),
    "a full batch is not looked at": ("rows >= self.max_rows\n", "rows > self.max_rows\n"),
    "a full batch waits": ("more_wait or prefix_rows[-1] == self.max_rows or", "more_wait or"),
    "enough requests are not looked at": ("or requests >= self.max_requests", "or requests > self.max_requests"),
    "enough requests wait": (" or len(prefix_rows) == self.max_requests", ""),
    "the smallest preferred size": ("range(len(prefix_rows), 0, -1)", "range(1, len(prefix_rows) + 1)"),
    "preferred sizes are forgotten": ("if prefix_rows[count - 1] in self.preferred_rows:", "if False:"),
    "the preferred size is not cut": ("                return count", "                return len(prefix_rows)"),
    "only the largest preferred size": ("rows >= min(self.preferred_rows)", "rows >= max(self.preferred_rows)"),
}


@pytest.mark.parametrize(("right", "wrong"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_planted_bug_is_caught(right: str, wrong: str) -> None:
    sources = {module: Path(str(module.__file__)).read_text() for module in (queue_module, policy_module)}
    assert sum(right in source for source in sources.values()) == 1, "the mutation names no expression, or several"

    class MutatedMachine(QueueMachine):
        queue = _module(queue_module.__name__, sources[queue_module].replace(right, wrong))
        policy = _module(policy_module.__name__, sources[policy_module].replace(right, wrong))

    with pytest.raises(CAUGHT):
        run_state_machine_as_test(
            MutatedMachine,
            settings=settings(
                max_examples=600,
                stateful_step_count=30,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                report_multiple_bugs=False,
                print_blob=False,
            ),
        )


def _module(name: str, source: str) -> ModuleType:
    module = ModuleType(name)
    exec(compile(source, f"<mutated {name}>", "exec"), module.__dict__)
    return module
