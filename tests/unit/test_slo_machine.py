"""The queue of an objective against a slow and obviously right model, in any order of events.

`promises` has the rules in the fewest words; the machine drives both. What it would notice: test_slo_mutations.py.
"""

from __future__ import annotations

from math import inf, nextafter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from server.errors import Overloaded, QueueFull
from server.scheduling import slo as slo_module
from server.scheduling import slo_queue as queue_module
from server.scheduling.budget import ByteBudget
from server.scheduling.costs import CostTable, bucket_sizes
from server.scheduling.policy import LevelPolicy
from server.scheduling.queue import Ticket
from tests.unit.costing import Seconds, flat, linear, measure, stepped
from tests.unit.promises import Promises
from tests.unit.waiting_list import level_of, rows_of

ARRIVAL = st.tuples(
    st.sampled_from([1, 1, 1, 1, 2, 3, 8]),  # rows
    st.sampled_from("xxxxyz"),  # signature
    st.sampled_from([inf, inf, inf, 1000, 0, 2, 5, 9]),  # until its deadline
    st.sampled_from([1, 1, 2]),  # level
    st.sampled_from([0, 1, 5]),  # bytes
)

# All times are multiples of a small power of two: sums and differences are exact, so that moments can be compared.
SECONDS: list[tuple[Seconds, float]] = [
    (linear(2, 0.5), 1.0),
    (linear(0.25, 0.125), 2.0),
    (flat(2), 1.5),
    (linear(0, 1), 1.0),
    (stepped(1, 4), 2.0),
    (stepped(1.5, 2), 1.0),
]


class SloMachine(RuleBasedStateMachine):
    """Arrivals, departures, batches that end whenever they like, and the passing of time, in any order."""

    queue: Any = queue_module
    slo: Any = slo_module

    @initialize(
        max_rows=st.sampled_from([8, 6, 4, 2, 1]),
        seconds=st.sampled_from(SECONDS),
        objective=st.sampled_from([8, 16, 4, 1]),
        lanes=st.sampled_from([1, 1, 2, 3]),
        bounds=st.lists(st.tuples(st.sampled_from([50, 50, 3]), st.sampled_from([50, 50, 3])), min_size=1, max_size=2),
        max_bytes=st.sampled_from([1000, 1000, 12]),
        calibrated=st.sampled_from([True, True, False]),
    )
    def start(
        self,
        max_rows: int,
        seconds: tuple[Seconds, float],
        objective: int,
        lanes: int,
        bounds: list[tuple[int, int]],
        max_bytes: int,
        calibrated: bool,
    ) -> None:
        levels = [{"max_queued_rows": max_rows + room, "max_queued_requests": size} for room, size in bounds]
        numbers = {"max_rows": max_rows, "objective": objective}
        policy = self.slo.SloPolicy(levels=tuple(LevelPolicy(**level) for level in levels), **numbers)
        self.costs = CostTable(bucket_sizes(max_rows))
        self.seconds = seconds
        self.bytes = ByteBudget(max_bytes)
        self.waiting = Promises({"levels": levels, **numbers}, lanes, max_bytes, self.costs)
        if calibrated:
            measure(self.costs, *seconds)
            self.waiting.replan()
        self.q = self.queue.SloQueue(policy, self.costs, lanes, self.bytes)
        self.all: list[Any] = []
        self.left: list[Any] = []
        self.running: list[list[Any]] = []
        self.now = 0.0

    @rule(arrivals=st.lists(ARRIVAL, min_size=1, max_size=6), gap=st.sampled_from([0, 0, 0.25]), pump=st.booleans())
    def put(self, arrivals: list[tuple[int, str, float, int, int]], gap: float, pump: bool) -> None:
        for rows, signature, patience, level, size in arrivals:
            at = min(level, len(self.waiting.policy["levels"]))
            self.put_one(Ticket(rows, signature, self.now, self.now + patience, at, size=size))
            self.now += gap
        if pump:
            self.pump()

    @rule(count=st.integers(2, 6), rows=st.sampled_from([1, 1, 2]), pump=st.booleans())
    def put_alike(self, count: int, rows: int, pump: bool) -> None:
        for _ in range(count):
            self.put_one(Ticket(rows, "x", self.now))
        if pump:
            self.pump()

    @rule(short=st.integers(1, 3), others=st.integers(2, 8), seconds=st.sampled_from([0.25, 0.5, 1]))
    def press(self, short: int, others: int, seconds: float) -> None:
        """Some who must run soon, and others who might run with them."""
        time = self.costs.worst(self.waiting.plan) if self.waiting.plan else 1
        for i in range(short + others):
            self.put_one(Ticket(1, "x", self.now, self.now + time + (0.25 if i < short else 2)))
        self.now += seconds
        self.expire(self.now)

    @rule(seconds=st.sampled_from([0.25, 0.5, 1, 2, 5]), pump=st.booleans())
    def tick(self, seconds: float, pump: bool) -> None:
        self.now += seconds
        if pump:
            self.pump()

    @rule(pump=st.booleans())
    def until_next_moment(self, pump: bool) -> None:
        """To when something must happen, if that is soon; nothing may happen just before."""
        lane_idle = len(self.running) < self.waiting.lanes
        when = min(self.q.next_deadline(), self.q.next_due() if lane_idle else inf)
        if not self.now < when < self.now + 20:
            return
        before = nextafter(when, -inf)
        self.expire(before)
        if lane_idle and min(self.q.next_deadline(), self.q.next_due()) >= when:
            assert self.q.take(before) == []
        self.now = when
        if pump and self.waiting.tickets:
            count = len(self.left)
            self.pump()
            assert len(self.left) > count or self.q.next_deadline() > when, "nothing happened when something had to"

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
        for _ in range(40):
            if self.waiting.tickets or self.running or not self.waiting.has_bytes_for(0):
                return
            ticket = Ticket(1, "w", self.now, self.now + 500)
            self.put_one(ticket)
            assert self.q.discard(ticket)
            self.leaves([ticket])

    @rule(data=st.data(), pump=st.booleans())
    def end(self, data: st.DataObject, pump: bool) -> None:
        if self.running:
            batch = data.draw(st.sampled_from(self.running))
            self.running.remove(batch)
            self.q.ended(batch, self.now)
            del self.waiting.running[batch[0]]
            if pump:
                self.pump()
            self.q.answered(batch, self.now)
            if self.costs.calibrated:
                self.waiting.replan()

    @rule()
    def calibrate(self) -> None:
        if not self.costs.calibrated:
            measure(self.costs, *self.seconds)

    @rule()
    def pump(self) -> None:
        """As the batcher does it."""
        self.expire(self.now)
        while len(self.running) < self.waiting.lanes and self.take():
            self.expire(self.now)

    @rule()
    def take_in_a_hurry(self) -> None:
        if len(self.running) < self.waiting.lanes:
            self.take(hurry=True)

    @rule()
    def look_ahead(self) -> None:
        assert self.q.next_deadline() == self.waiting.next_deadline()
        assert self.q.next_due() == self.waiting.next_due()

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "q"):
            assert len(self.q) == len(self.waiting.tickets)
            assert self.q.rows == rows_of(self.waiting.tickets)
            assert self.bytes.used == self.waiting.bytes()
            assert self.q.oldest_arrival() == min((ticket.arrived for ticket in self.waiting.tickets), default=inf)
            assert [ticket for ticket in self.all if ticket.waiting] == self.waiting.tickets

    def put_one(self, ticket: Any) -> None:
        waiting = self.waiting
        self.all.append(ticket)
        has_room = waiting.has_room_for(ticket.rows, level_of(ticket))
        late: float | None = -inf
        if waiting.plan and not waiting.lets_in_at_once(ticket, self.now):
            late = waiting.lateness(ticket, self.q.guard.share, self.now)
        try:
            self.q.put(ticket)
        except ValueError:
            assert ticket.rows > waiting.policy["max_rows"]
        except QueueFull:
            assert not has_room or not waiting.has_bytes_for(ticket.size)
        except Overloaded as refusal:
            again = refusal.retry_after
            assert has_room
            assert 0 < again < inf
            assert late is None or again == pytest.approx(late)
        else:
            assert ticket.rows <= waiting.policy["max_rows"]
            assert has_room and waiting.has_bytes_for(ticket.size)
            assert late is None or late < 1e-9
            waiting.accept(ticket)
            assert ticket.expires == waiting.last_start(ticket)

    def expire(self, now: float) -> None:
        waiting, gone = self.waiting, self.q.expire(now)
        for rule_of_leaving in (waiting.past_deadline, waiting.hopeless, waiting.given_up):
            expected = rule_of_leaving(now)
            assert set(expected) <= set(gone), f"{expected} should leave: {rule_of_leaving.__name__}"
            gone = [ticket for ticket in gone if ticket not in expected]
            self.leaves(expected)
        assert not gone, "somebody left without a reason"
        assert self.q.next_deadline() > now

    def take(self, hurry: bool = False) -> bool:
        """The properties that matter one by one, for their names; then that it is exactly the right batch."""
        waiting, batch = self.waiting, self.q.take(self.now, hurry)
        assert len({ticket.signature for ticket in batch}) <= 1, "mixed signatures"
        assert rows_of(batch) <= waiting.policy["max_rows"], "too many rows"
        assert len(batch) <= 1 or not waiting.plan or rows_of(batch) <= waiting.plan, "more rows than planned"
        time_to_run = hurry or (waiting.next_due() <= self.now and not waiting.hopeless(self.now))
        assert batch == (waiting.batch(self.now, hurry) if time_to_run else [])
        self.leaves(batch)
        if batch:
            self.running.append(batch)
            typical = self.costs.typical(rows_of(batch))
            waiting.running[batch[0]] = self.now + typical if typical < inf else self.now
        return bool(batch)

    def leaves(self, tickets: list[Any]) -> None:
        assert not set(tickets) & set(self.left), "left twice"
        self.left += tickets
        self.waiting.remove(tickets)


TestSloMachine = SloMachine.TestCase
TestSloMachine.settings = settings(max_examples=150, stateful_step_count=40)
