"""The queue of an objective against a slow and obviously right model, in any order of events; and proof that this and
the tests of one rule at a time would notice bugs.

`promises` has the rules in the fewest words. The state machine drives both. Then every planted bug in `MUTATIONS`, one
replaced expression in the real source, must be caught by the tests of test_slo and test_slo_queue, or by the machine.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import inf, nextafter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from server.errors import Overloaded, QueueFull
from server.scheduling import deadlines as deadlines_module
from server.scheduling import slo as slo_module
from server.scheduling import slo_queue as queue_module
from server.scheduling.budget import ByteBudget
from server.scheduling.costs import CostTable, bucket_sizes
from server.scheduling.policy import LevelPolicy
from server.scheduling.queue import Ticket
from tests.unit import test_slo, test_slo_queue
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
            self.q.ended(batch)
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
            assert [ticket for ticket in self.all if ticket.waiting] == self.waiting.tickets

    def put_one(self, ticket: Any) -> None:
        waiting = self.waiting
        self.all.append(ticket)
        has_room = waiting.has_room_for(ticket.rows, level_of(ticket))
        late: float | None = -inf
        if waiting.plan and (waiting.tickets or waiting.running):
            late = waiting.lateness(ticket, self.q.guard.share, self.now)
        try:
            last_start = self.q.put(ticket)
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
            assert last_start == (waiting.last_start(ticket) if waiting.plan else ticket.deadline)
            waiting.accept(ticket)

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
        time_to_run = hurry or waiting.next_due() <= self.now
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

CAUGHT = (Exception, pytest.fail.Exception)

MUTATIONS = {
    # in slo.py
    "no time to wait for the batch before": ("return EXPECTED_WAIT * costs.typical(rows) +", "return"),
    "time to wait for a whole batch": ("return EXPECTED_WAIT * costs", "return costs"),
    "the plan trusts in medians": ("+ costs.worst(rows)\n", "+ costs.typical(rows)\n"),
    "the largest batch in time": ("rows = max(candidates, key=lambda size: size / costs.typical(size))", "rows = most"),
    "sizes between buckets are forgotten": ("[*fitting, largest + ", "[*fitting, largest or "),
    "a stall hides larger batches": ("largest = max(fitting, default=1)", "largest = min(fitting, default=1)"),
    "patience of one row less": ("(rows + 1) * self.typical[rows] / rows", "self.typical[rows]"),
    "patience beyond the plan": ("if rows < self.rows else 0.0", "if rows < self.rows else 1.0"),
    "a guard that grows too fast": ("CUT * LATE_SHARE * (settled - late)", "CUT * (settled - late)"),
    "a guard that never grows": ("self.share + CUT * LATE_SHARE", "self.share + 0 * LATE_SHARE"),
    "a guard that never cuts": ("self.share * (1 - min(DEEPEST_CUT, CUT * late))", "self.share"),
    "a guard that cuts without end": ("max(LEAST_SHARE, ", "max(0, "),
    "a guard that trusts without end": ("min(MOST_SHARE, ", "min(99, "),
    # in slo_queue.py: admission
    "nobody is refused": ("if late > 0:", "if False:"),
    "an idle server refuses": ("if not self._running and not self._lines:\n            return", ""),
    "the lanes count as idle": ("if not self._running and not self._lines", "if not self._lines"),
    "the guard is not asked": ("self.guard.share * (due - now)", "(due - now)"),
    "the caller's deadline is not looked at": (
        "due = min(ticket.deadline, now + self._policy.objective)",
        "due = now + self._policy.objective",
    ),
    "whoever is pushed back is forgotten": ("if rank is not None and rank.entries[-1][0] > due", "if False"),
    "the newcomer is no work ahead of whom it pushes back": (" - last.rows + rows", " - last.rows"),
    "whoever is pushed back is ahead of itself": (" - last.rows + rows", " + rows"),
    "less urgent levels are ahead": ("if at <= place\n", "if at <= place + 2\n"),
    "more urgent levels are not ahead": ("if at <= place\n", "if at == place\n"),
    "all of a level is ahead": ("if at == place else rank.rows", "if False else rank.rows"),
    "a place in the middle is the last": ("self.rows * bisect_left(entries, (due,)) // len(entries)", "self.rows"),
    "other signatures are not ahead": ("len(self._lines) == len(self._loads) == 1", "len(self._loads) == 1"),
    "no lane is busy": ("return (end if end > now else now) + batches * seconds", "return now + batches * seconds"),
    "an overdue batch has ended": ("return (end if end > now else now) + batches", "return end + batches"),
    "lanes do not share the work": ("rounds, lane = divmod(batches, self._lanes)", "rounds, lane = batches, 0"),
    "the last lane first": ("free = sorted([end if end > now", "free = sorted([-end if end > now"),
    "no lane is idle": ("if lane < idle else", "if False else"),
    "room in a batch is not looked for": ("        together += rows\n", "        together = plan.rows + 1\n"),
    "an extra batch where the last is full": ("batches += together > rows", "batches += 1"),
    "no extra batch where the last has no room": ("batches += together > rows", "batches += 0"),
    "nobody joins": ("if start > now and together < plan.rows:", "if False:"),
    "a large request takes what the plan takes": (
        "return start + self._costs.worst(together)",
        "return start + plan.worst[-1]",
    ),
    "a batch takes what it typically takes": (
        "return start + plan.worst[together]",
        "return start + plan.typical[together]",
    ),
    "two in one moment": (
        "self._gap = LEAST_GAP + (gap if self._gap == inf else ",
        "self._gap = (gap if self._gap == inf else ",
    ),
    "the gap is the newest": ("GAP_WEIGHT * (gap - self._gap)", "(gap - self._gap)"),
    "the first gap never ends": ("gap = now - self._last_arrival", "gap = now"),
    # in slo_queue.py: order, and books
    "in order of arrival": ("entry = (due, next(self._serial), ticket)", "entry = (now, next(self._serial), ticket)"),
    "the last due is the newest": ("rank.entries[-1] < entry", "rank.entries[-1] > entry"),
    "the youngest first of those due together": ("next(self._serial), ticket)", "-next(self._serial), ticket)"),
    "any signature first": ("return min(self._lines.items(), key=", "return max(self._lines.items(), key="),
    "levels do not rank signatures": ("return place, due, serial", "return 1, due, serial"),
    "levels in order of arrival": ("for place in sorted(line):", "for place in line:"),
    "mixed signatures": ("line = self._lines[ticket.signature] = {}", "line = self._lines[None] = {}"),
    "a batch as large as it may be": ("plan.rows if plan else self._policy.max_rows)", "self._policy.max_rows)"),
    "a row above the plan": ("if batch and rows + more > limit:", "if batch and rows + more > limit + 1:"),
    "the large are never run": ("if batch and rows + more > limit:", "if rows + more > limit:"),
    "a full-sized request is refused": ("if rows > self._policy.max_rows:", "if rows >= self._policy.max_rows:"),
    "no bounds": ("        load.check(rows)\n", ""),
    "the first level's bounds for all": (
        "load = self._loads[place]\n        load.check",
        "load = self._loads[2]\n        load.check",
    ),
    "bytes are not counted": ("self._budget.take(ticket.size)", "pass"),
    "bytes are not given back": ("self._budget.give_back(", "int("),
    "rows are not given back": ("        load.rows -= rows\n", ""),
    "requests are not given back": ("        load.requests -= len(tickets)\n", ""),
    "rows stay in a rank": ("        rank.rows -= rows\n", ""),
    "a request leaves twice": ("            ticket.waiting = False\n", ""),
    "an empty rank stays": ("        if not rank.entries:\n", "        if False:\n"),
    "an empty line stays": ("            if not line:\n", "            if False:\n"),
    "the wrong one leaves": ("if entry[2] is ticket)", "if entry[2].rows == ticket.rows)"),
    "a batch of two levels is removed from one": ("places.get(ticket.place, 0) + 1", "1"),
    # in slo_queue.py: waiting, and being late
    "nobody waits for company": ("if not hurry and now < self.next_due():", "if False:"),
    "a hurry is not minded": ("if not hurry and now < self.next_due():", "if now < self.next_due():"),
    "only the most urgent line is looked at": (
        "return min([self._start_by(self._plan, line)",
        "return max([self._start_by(self._plan, line)",
    ),
    "a blocked batch waits": ("if rows >= plan.rows or len(batch) < sum(", "if rows >= plan.rows or 0 > sum("),
    "waiting although nobody comes": ("if self._gap >= patience:", "if False:"),
    "waiting without end": ("- plan.worst[rows + 1], self._last_arrival + patience)", "- plan.worst[rows + 1], inf)"),
    "waiting until it is too late": ("- plan.worst[rows + 1], self", "- plan.worst[rows], self"),
    "waiting beyond the first one's time": ("return min(min(batch)[0] -", "return min(max(batch)[0] -"),
    "waiting before costs are known": ("return -inf if self._lines else inf", "return inf"),
    "a batch that makes somebody late": ("if index and now + plan.worst[rows] > soonest:", "if False:"),
    "only the first one's time counts": ("soonest = min(soonest, due)", "soonest = batch[0][0]"),
    "a batch is cut in a hurry too": ("if plan is not None and not hurry:", "if plan is not None:"),
    "hopeless requests stay": ("if self._plan is not None and self._next_hopeless() <= now:", "if False:"),
    "hopeless a moment late": ("self._next_hopeless() <= now", "self._next_hopeless() < now"),
    "hopeless in the worst case": ("return due - (plan.typical[rows]", "return due - (plan.worst[rows]"),
    "hopeless once it is due": ("return due - (", "return due - 0 * ("),
    "the large are hopeless as late as the others": ("else self._costs.typical(rows))", "else plan.seconds)"),
    "the lonely are hopeless": ("return not self._running and len(self) <= 1", "return False"),
    "all are lonely beside an idle lane": ("return not self._running and len(self) <= 1", "return not self._running"),
    "one hopeless request at a time": ("rank.entries[0])", "rank.entries[-1])"),
    "deadlines are forgotten": ("if ticket.deadline < inf:", "if False:"),
    "drops break no promise": (
        "        self.guard.observe(len(dropped), len(dropped))\n        return dropped\n\n",
        "        return dropped\n\n",
    ),
    "answers keep no promise": ("            self.guard.observe(len(batch), late)\n", ""),
    "late by the objective only": ("late = sum([now > min(ticket.deadline, ", "late = sum([now > min(inf, "),
    "late at the last moment": ("late = sum([now > min(", "late = sum([now >= min("),
    "no early drop": ("len(self._running) < self._lanes:\n", "False:\n"),
    "early drop without a lane": (" and len(self._running) < self._lanes:\n", ":\n"),
    "early drop for other levels": ("if entry[2].place == place]", "if True]"),
    "early drop where nobody would be late": ("<= batch[kept][0]:", "<= 0:"),
    "early drop for fewer": ("range(1, len(batch) - kept)", "range(1, len(batch))"),
    "early drop of too many": ("range(1, len(batch) - kept)", "range(len(batch) - kept - 1, 0, -1)"),
    "early drop for nothing": ("if _kept(plan, rest, now) == len(rest):", "if True:"),
    # in slo_queue.py: costs
    "a plan for good": ("or self._batches_of_plan >= BATCHES_PER_PLAN", ""),
    "a plan before all sizes have run": ("if self._costs.calibrated:", "if True:"),
    "lanes are busy for good": ("        del self._running[batch[0]]\n", ""),
    "when a batch ends is not known": ("now + typical if typical < inf else now", "now"),
    # in deadlines.py
    "a deadline one moment late": ("if self.next() > now or", "if self.next() >= now or"),
    "departed requests expire": ("while heap and not heap[0][2].waiting:", "while False:"),
    "tidying forgets those that wait": ("for entry in heap if entry[2].waiting]", "for entry in heap if False]"),
    "deadlines in order of arrival": ("(when, serial, ticket)", "(serial, when, ticket)"),
}


def _scenarios(module: ModuleType) -> list[Callable[[], None]]:
    """The tests of a module that need nothing from pytest."""
    tests = [test for name, test in vars(module).items() if name.startswith("test_")]
    return [test for test in tests if not inspect.signature(test).parameters]


@pytest.mark.parametrize(("right", "wrong"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_planted_bug_is_caught(right: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CAUGHT):
        try_everything(mutated(right, wrong), monkeypatch)


def test_nothing_is_caught_where_no_bug_is_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    try_everything(mutated("if late > 0:", "if late > 0:"), monkeypatch)


def mutated(right: str, wrong: str) -> tuple[ModuleType, ModuleType]:
    """Copies of `slo` and of `slo_queue` with one expression replaced, there or in `deadlines`."""
    modules = (slo_module, queue_module, deadlines_module)
    sources = [Path(str(module.__file__)).read_text() for module in modules]
    assert sum(source.count(right) for source in sources) == 1, "the mutation names no expression, or several"
    slo, queue, deadlines = (ModuleType(module.__name__) for module in modules)
    for module, source in zip((slo, deadlines, queue), (sources[0], sources[2], sources[1]), strict=True):
        exec(compile(source.replace(right, wrong), f"<mutated {module.__name__}>", "exec"), module.__dict__)
    vars(queue).update(
        Deadlines=vars(deadlines)["Deadlines"], Guard=vars(slo)["Guard"], make_plan=vars(slo)["make_plan"]
    )
    return slo, queue


def try_everything(modules: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    slo, queue = modules
    for name in ("BatchPlan", "Guard", "make_plan"):
        monkeypatch.setattr(test_slo, name, vars(slo)[name])
    monkeypatch.setattr(test_slo_queue, "SloQueue", vars(queue)["SloQueue"])
    for scenario in (*scenarios(test_slo_queue), *scenarios(test_slo)):
        scenario()

    class MutatedMachine(SloMachine):
        pass

    MutatedMachine.queue, MutatedMachine.slo = queue, slo
    run_state_machine_as_test(
        MutatedMachine,
        settings=settings(
            max_examples=150,
            stateful_step_count=30,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            print_blob=False,
        ),
    )


def scenarios(module: ModuleType) -> list[Callable[[], None]]:
    """The tests of a module that need nothing from pytest."""
    tests = [test for name, test in vars(module).items() if name.startswith("test_")]
    return [test for test in tests if not inspect.signature(test).parameters]
