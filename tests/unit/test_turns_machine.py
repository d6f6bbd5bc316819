"""Turns against a slow and obviously right model, in any order of events; and proof that it would notice bugs.

Models with several instances behave as a batcher does. Every planted bug in `MUTATIONS`, one replaced expression in
the real source, must be caught by the same machine: see `mutating`.
"""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from server.scheduling import turns as turns_module
from tests.unit.mutating import module_from, play_programs

PATIENCE = 1.0


class Model:
    """A model whose requests each make a batch of their own."""

    def __init__(self, taker: Any, lanes: int) -> None:
        self.taker = taker
        self.idle = lanes
        self.wants = 0
        self.balks = False
        """Let the next chance be, as a batcher does whose window has not ended."""
        self.due = 0.0
        self.deadline = inf
        self.seconds = inf
        self.had_turn: list[bool] = []
        """One for each batch that runs."""
        self.later = False
        """It had a turn in this round when it began to wait."""
        self.patience = 1
        self.overtaken: dict[int, int] = {}
        """Turns that each other model had while this one waited; never more than its `patience`."""

    def urgency(self) -> float:
        return min(self.deadline, self.due + PATIENCE)


class TurnsMachine(RuleBasedStateMachine):
    """Requests, departures and ends of batches, in any order."""

    module: Any = turns_module

    @initialize(
        limit=st.sampled_from([1, 2, 2, 3, inf]),
        models=st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 1, 5, 40, inf])), min_size=2, max_size=5),
    )
    def start(self, limit: float, models: list[tuple[int, float]]) -> None:
        self.limit = limit
        self.turns = self.module.Turns(limit)
        self.models: list[Model] = []
        self.line: list[Model] = []
        self.served: set[Model] = set()
        for number, (lanes, seconds) in enumerate(models):
            model = Model(self.module.Taker(lambda number=number: self.called(self.models[number])), lanes)
            self.models.append(model)
            if seconds < inf:  # it has run before
                self.turns.end(model.taker, self.turns.begin(model.taker), seconds)
                model.seconds = seconds
                self.served.add(model)
        self.calling: Model | None = None

    @rule(
        index=st.integers(0, 4),
        count=st.integers(1, 6),
        due=st.integers(0, 5),
        deadline=st.sampled_from([inf, 0, 1, 2, 3, 4, 5, 50]),
        balks=st.sampled_from([False, False, True]),
    )
    def submit(self, index: int, count: int, due: int, deadline: float, balks: bool) -> None:
        model = self.models[index % len(self.models)]
        model.wants += count
        model.due, model.deadline, model.balks = due, deadline, balks
        self.pump(model)

    @rule(index=st.integers(0, 4), nth=st.integers(0, 3), seconds=st.sampled_from([1, 1, 3, 4, 5, 40]))
    def finish(self, index: int, nth: int, seconds: float) -> None:
        running = [model for model in self.models if model.had_turn]
        if running:
            model = running[index % len(running)]
            had_turn = model.had_turn.pop(nth % len(model.had_turn))
            model.idle += 1
            model.seconds = seconds
            self.turns.end(model.taker, had_turn, seconds)
            self.pump(model)
            self.turns.call_next()

    @rule(index=st.integers(0, 4))
    def everyone_goes_away(self, index: int) -> None:
        model = self.models[index % len(self.models)]
        model.wants = 0
        self.pump(model)

    @rule(index=st.integers(0, 4))
    def jump_the_line(self, index: int) -> None:
        model = self.models[index % len(self.models)]
        if len(self.holders()) >= self.limit and not self.is_short(model):
            with pytest.raises(RuntimeError):
                self.turns.begin(model.taker)

    @rule(index=st.integers(0, 4))
    def change_its_mind(self, index: int) -> None:
        """Whoever waits will not want its turn when it comes."""
        self.models[index % len(self.models)].balks = True

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        if hasattr(self, "turns"):
            assert self.turns.running == len(self.holders()) <= self.limit
            assert not self.line or len(self.holders()) == self.limit
            assert not any(self.is_short(model) for model in self.line)
            assert all(model.wants and model.idle for model in self.line)

    def called(self, model: Model) -> None:
        assert model in self.line, "called without waiting"
        if len(self.holders()) < self.limit:
            if all(other.later for other in self.line):  # a new round
                self.served.clear()
                for other in self.line:
                    other.later = False
            first = min(
                (other for other in self.line if not other.later),
                key=lambda other: (other.urgency(), self.line.index(other)),
            )
            assert model is first, "called out of turn"
        else:
            assert self.is_short(model), "called without a turn"
        self.line.remove(model)
        self.calling = model
        self.pump(model)
        self.calling = None

    def pump(self, model: Model) -> None:
        """What a batcher does."""
        while model.idle and self.turns.may_begin(model.taker) and self.takes(model):
            self.begin(model)
        if model.idle and model.wants and not self.turns.may_begin(model.taker):
            if model not in self.line:
                model.later = model in self.served
                model.patience, model.overtaken = 1 + model.later, {}
                self.line.append(model)
            self.turns.wait(model.taker, model.due, model.deadline)
        else:
            self.leave(model)

    def takes(self, model: Model) -> bool:
        balks, model.balks = model.balks, False
        taken = model.wants > 0 and not balks
        model.wants -= taken
        return taken

    def begin(self, model: Model) -> None:
        is_called = self.calling is model
        self.leave(model)
        short = self.is_short(model)
        has_turn = self.turns.begin(model.taker)
        if has_turn:
            assert len(self.holders()) < self.limit, "above the limit"
            assert is_called or not self.line, "a newcomer jumped the line"
            self.served.add(model)
            for other in self.line:
                turns = other.overtaken[id(model)] = other.overtaken.get(id(model), 0) + 1
                assert turns <= other.patience, "overtaken again and again"
            self.calling = None
        else:
            assert short, "began without a turn"
        model.had_turn.append(has_turn)
        model.idle -= 1

    def leave(self, model: Model) -> None:
        if model in self.line:
            self.line.remove(model)
            self.turns.leave(model.taker)

    def holders(self) -> list[Model]:
        return [model for model in self.models for had_turn in model.had_turn if had_turn]

    def is_short(self, model: Model) -> bool:
        return not model.had_turn and any(4 * model.seconds < holder.seconds < inf for holder in self.holders())


TestTurnsMachine = TurnsMachine.TestCase
TestTurnsMachine.settings = settings(max_examples=150, stateful_step_count=40)

CAUGHT = (AssertionError, LookupError, TypeError, ValueError, RuntimeError, RecursionError, pytest.fail.Exception)

MUTATIONS = {
    "a turn too many": ("self._free = limit", "self._free = limit + 1"),
    "a turn too few": ("self._free = limit", "self._free = max(limit - 1, 0.5)"),
    "newcomers jump the line": ("(not self._line or taker is self._called)", "True"),
    "whoever is called has no turn": ("(not self._line or taker is self._called)", "not self._line"),
    "a call is good for two batches": ("        self._called = None\n        return", "        return"),
    "a turn is not counted": ("            self._free -= 1\n", ""),
    "a turn is not given back": ("            self._free += 1\n", ""),
    "whoever passes gives a turn back": ("        if had_turn:\n", "        if True:\n"),
    "whoever has ended is taken for running": ("            self._holders.remove(taker)\n", ""),
    "a batch out of turn is let through": ("elif not self._may_pass(taker):", "elif False:"),
    "turns of this round are forgotten": ("            taker.round = self._round\n", ""),
    "rounds never end": ("                self._round = self._line[taker][0]\n", ""),
    "no rounds": ("in_round = max(self._round, taker.round + 1)", "in_round = 0"),
    "everyone in this round": ("in_round = max(self._round, taker.round + 1)", "in_round = self._round"),
    "whoever comes late has rounds to catch up on": ("max(self._round, taker.round + 1)", "taker.round + 1"),
    "deadlines are not looked at": ("min(deadline, due + PATIENCE_SECONDS)", "due"),
    "only deadlines are looked at": ("min(deadline, due + PATIENCE_SECONDS)", "deadline"),
    "the least urgent first": ("min(self._line, key", "max(self._line, key"),
    "first come, first served": ("min(self._line, key=self._line.__getitem__)", "next(iter(self._line))"),
    "whoever leaves stays in line": ("        self._line.pop(taker, None)\n", "        pass\n"),
    "whoever is called stays in line": ("            del self._line[taker]\n", ""),
    "nobody is called": ("while self._line:", "while False:"),
    "one is called": ("while self._line:", "if self._line:"),
    "nobody passes": ("return not taker.running and", "return False and"),
    "more than one passes": ("return not taker.running and", "return"),
    "long ones pass": ("SHORT * max(", "max("),
    "a quarter is short": ("taker.seconds < SHORT", "taker.seconds <= SHORT"),
    "short beside the shortest": ("max(measured", "min(measured"),
    "everything is short beside a first batch": (" if holder.seconds < inf]", "]"),
    "those in line do not pass": ("next(filter(self._may_pass, self._line), None)", "None"),
    "how long it took is not looked at": ("        taker.seconds = seconds\n", ""),
    "a batch that ended still runs": ("        taker.running -= 1\n", ""),
}  # fmt: skip


def mutated(right: str, wrong: str) -> type[TurnsMachine]:
    """A machine of the code with one expression replaced."""
    source = Path(str(turns_module.__file__)).read_text()
    assert right in source, "the mutation names no expression"
    mutated = module_from(turns_module.__name__, source.replace(right, wrong))

    class MutatedMachine(TurnsMachine):
        module = mutated

    return MutatedMachine


@pytest.mark.parametrize(("right", "wrong"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_planted_bug_is_caught(right: str, wrong: str) -> None:
    machine = mutated(right, wrong)
    with pytest.raises(CAUGHT):
        play_programs("turns", machine)


def test_the_programs_find_nothing_where_no_bug_is_planted() -> None:
    play_programs("turns", TurnsMachine)
