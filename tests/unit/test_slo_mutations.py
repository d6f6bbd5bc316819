"""Proof that the tests of objectives would notice bugs.

Every planted bug in `MUTATIONS`, one replaced expression in the real source, must be caught by the tests of one rule at
a time, or by the state machine.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from server.scheduling import deadlines as deadlines_module
from server.scheduling import slo as slo_module
from server.scheduling import slo_queue as queue_module
from tests.unit import slo_queues, test_slo, test_slo_admission, test_slo_late, test_slo_queue
from tests.unit.mutating import module_from, try_machine
from tests.unit.test_slo_machine import SloMachine

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
    "an idle server refuses": ("if starts_now and (not self._running or ", "if starts_now and ("),
    "an idle lane lets in what must be late": (
        " and (not self._running or now + self._costs.typical(rows) <= due)",
        "",
    ),
    "an idle lane wants the worst to fit": (
        "now + self._costs.typical(rows) <= due",
        "now + self._costs.worst(rows) <= due",
    ),
    "the lanes count as idle": (
        "starts_now = not self._lines and len(self._running) < self._lanes",
        "starts_now = not self._lines",
    ),
    "the guard is not asked": ("self.guard.share * (due - now)", "(due - now)"),
    "the caller's deadline is not looked at": (
        "if ticket.deadline < due:",
        "if False:",
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
    "a batch as large as it may be": ("plan.rows if plan else self._max_rows)", "self._policy.max_rows)"),
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
    "nobody waits for company": ("(now < self.next_due() or", "("),
    "a hurry is not minded": ("if not hurry and (now < self.next_due()", "if (now < self.next_due()"),
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
    "hopeless requests stay": ("        if self._next_hopeless() <= now:\n", "        if False:\n"),
    "hopeless a moment late": (
        "        if self._next_hopeless() <= now:\n",
        "        if self._next_hopeless() < now:\n",
    ),
    "hopeless in the worst case": ("due - (plan.typical[rows]", "due - (plan.worst[rows]"),
    "hopeless once it is due": ("due - (plan.typical[rows]", "due - (0"),
    "the hopeless are run": ("or self._next_hopeless() <= now):", "):"),
    "the lonely are hopeless": ("return not self._running and len(self) <= 1", "return False"),
    "all are lonely beside an idle lane": ("return not self._running and len(self) <= 1", "return not self._running"),
    "one hopeless request at a time": ("rank.entries[0][2].expires for", "rank.entries[-1][2].expires for"),
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
    "a plan for good": ("or now >= self._planned_at + PLAN_SECONDS", ""),
    "a plan before all sizes have run": ("if self._costs.calibrated:", "if True:"),
    "lanes are busy for good": ("        del self._running[batch[0]]\n", ""),
    "when a batch ends is not known": ("now + typical if typical < inf else now", "now"),
    # in deadlines.py
    "a deadline one moment late": ("if self.next() > now or", "if self.next() >= now or"),
    "departed requests expire": ("while heap and not heap[0][2].waiting:", "while False:"),
    "tidying forgets those that wait": ("for entry in heap if entry[2].waiting]", "for entry in heap if False]"),
    "deadlines in order of arrival": ("(when, serial, ticket)", "(serial, when, ticket)"),
}


@pytest.mark.parametrize(("right", "wrong"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_planted_bug_is_caught(right: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = mutated(right, wrong)
    with pytest.raises(CAUGHT):
        try_everything(modules, monkeypatch)


def test_nothing_is_caught_where_no_bug_is_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    try_everything(mutated("if late > 0:", "if late > 0:"), monkeypatch, examples=20)


def mutated(right: str, wrong: str) -> tuple[ModuleType, ModuleType]:
    """Copies of `slo` and of `slo_queue` with one expression replaced, there or in `deadlines`."""
    modules = (slo_module, queue_module, deadlines_module)
    sources = [Path(str(module.__file__)).read_text() for module in modules]
    assert sum(source.count(right) for source in sources) == 1, "the mutation names no expression, or several"
    slo, queue, deadlines = (
        module_from(module.__name__, source.replace(right, wrong))
        for module, source in zip(modules, sources, strict=True)
    )
    vars(queue).update(
        Deadlines=vars(deadlines)["Deadlines"], Guard=vars(slo)["Guard"], make_plan=vars(slo)["make_plan"]
    )
    return slo, queue


def try_everything(
    modules: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch, examples: int = 150
) -> None:
    slo, queue = modules
    for name in ("BatchPlan", "Guard", "make_plan"):
        monkeypatch.setattr(test_slo, name, vars(slo)[name])
    monkeypatch.setattr(slo_queues, "SloQueue", vars(queue)["SloQueue"])
    for module in (test_slo_queue, test_slo_admission, test_slo_late, test_slo):
        for scenario in scenarios(module):
            scenario()

    class MutatedMachine(SloMachine):
        pass

    MutatedMachine.queue, MutatedMachine.slo = queue, slo
    try_machine(MutatedMachine, examples)


def scenarios(module: ModuleType) -> list[Callable[[], None]]:
    """The tests of a module that need nothing from pytest."""
    tests = [test for name, test in vars(module).items() if name.startswith("test_")]
    return [test for test in tests if not inspect.signature(test).parameters]
