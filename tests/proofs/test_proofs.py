"""Small systems of ours in every order of events; and proof that what goes wrong in one of them is found."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from server.models.intents import Intents
from server.scheduling import batcher as batcher_module
from tests.proofs import batchers, lifecycles, systems
from tests.proofs.exploring import Counterexample, Move, Pickled, Replayed, explore
from tests.proofs.systems import EXPLORATIONS
from tests.unit.mutating import module_from

MOST_STATES = 50_000


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Loads and runs fail by the thousand."""
    caplog.set_level(logging.CRITICAL + 1, "server")


@pytest.mark.parametrize("name", EXPLORATIONS)
def test_whatever_happens_each_request_is_answered_once_and_nothing_is_left_over(name: str) -> None:
    exploration = EXPLORATIONS[name]
    seen = explore(exploration.memory(*exploration.small), MOST_STATES)
    assert seen.states > 500, "hardly anything happened"


BATCHER_BUGS = {
    "a deadline while all lanes are busy": ("(self._idle or ticket.expires < self._alarm.when)", "self._idle"),
    "nobody expires": ("late = queue.expire(now)", "late: list[T] = []"),
    "who expired never hears": ("for ticket in late:", "for ticket in late[1:]:"),
    "a batch is reported twice": ("self._finished(batch, outcome)", "[self._finished(batch, outcome) for _ in (1, 2)]"),
    "a batch is reported without its last": ("self._finished(batch, outcome)", "self._finished(batch[:-1], outcome)"),
    "one pump is enough": ("self._pump_scheduled = False\n        self._pump()", "self._pump()"),
    "no alarm for a due batch": ("queue.next_due() if clock_decides else inf", "inf"),
    "an end wakes nobody": ("        self._pump()\n        self._turns.call_next()", "        self._turns.call_next()"),
    "the line is never called": ("self._turns.call_next()\n", "\n"),
    "any lane will do": ("self._claim(self._lane_of(batch))", "self._idle.pop()"),
    "a lane is given back twice": ("self._idle.append(lane)", "self._idle += [lane, lane]"),
}


@pytest.mark.parametrize(("right", "wrong"), BATCHER_BUGS.values(), ids=BATCHER_BUGS)
def test_a_planted_bug_of_the_batcher_is_found(right: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(str(batcher_module.__file__)).read_text()
    assert source.count(right) == 1, "the mutation names no expression, or several"
    mutated = module_from("mutated_batcher", source.replace(right, wrong))
    monkeypatch.setitem(sys.modules, mutated.__name__, mutated)  # `pickle` looks for its classes there
    monkeypatch.setattr(batchers, "Batcher", mutated.Batcher)

    with pytest.raises(Counterexample):
        _explore_batchers()


def _explore_batchers() -> None:
    for make in (systems.batching, systems.lanes, systems.turns, systems.oldest):
        explore(Pickled(make(2, 1)), MOST_STATES)


def test_a_version_that_is_let_go_too_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drain(self: lifecycles.Version) -> None:
        self._batcher.close()

    monkeypatch.setattr(lifecycles.Version, "drain", drain)
    with pytest.raises(Counterexample, match="was closed while it ran"):
        explore(Replayed(lambda: lifecycles.LifecycleSystem(1, 1, False)), MOST_STATES)


def test_two_loads_of_one_model_at_once_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def no_turns(_: Intents, name: str) -> AsyncIterator[None]:
        yield

    monkeypatch.setattr(Intents, "turn", no_turns)
    with pytest.raises(Counterexample, match="two loads of one model at once"):
        explore(Replayed(lambda: lifecycles.LifecycleSystem(0, 2, False)), MOST_STATES)


class Counters:
    """Two counters that count to 2, in any order, and do not like to meet."""

    def __init__(self) -> None:
        self.a = self.b = 0

    def moves(self) -> list[Move]:
        return [(name,) for name in "ab" if getattr(self, name) < 2]

    def do(self, move: Move) -> None:
        setattr(self, str(move[0]), getattr(self, str(move[0])) + 1)

    def settle(self) -> None:
        assert (self.a, self.b) != (1, 2)


def test_a_counterexample_is_the_shortest_way_to_what_is_wrong() -> None:
    with pytest.raises(Counterexample) as found:
        explore(Pickled(Counters()), 100)
    assert sorted(found.value.way) == [("a",), ("b",), ("b",), ("settle",)]


class PatientCounters(Counters):
    def settle(self) -> None:
        """It likes everything."""


def test_every_state_is_visited_once() -> None:
    seen = explore(Pickled(PatientCounters()), 9)
    assert (seen.states, seen.moves, seen.longest) == (9, 12, 4)


def test_an_exploration_that_is_cut_short_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="more than 8 states"):
        explore(Pickled(PatientCounters()), 8)
