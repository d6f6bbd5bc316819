"""What is tried, and how often: a climb along one axis after another, then a final among the best. Pure.

The measurer and the clock are arguments. The climb measures the neighbours of the best candidate so far once each, and
itself beside them, and moves on where one is better by more than the noise, which repeats of the present candidate show
beforehand. What it finds is a guess. So the contenders are measured again in turns, and only those rounds decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf

from loadtest.errors import LoadTestError
from loadtest.tune.candidates import Axis, Candidate
from loadtest.tune.judging import Aim, Choice, Failure, Measurement, Trial, best_of, choose, complexity
from loadtest.tune.space import Space

Measure = Callable[[Candidate], Measurement | Failure]
"""Serves a candidate and puts the load on it."""

FINALISTS = 4
_LEAST_ROUNDS = 2
"""Of the final, for which the climb leaves room."""


@dataclass(frozen=True)
class Budget:
    """How much to measure. The final is held in as many rounds as there is time for, at least one."""

    measurements: int
    seconds: float
    rounds: int = 4
    """Of the final, and of the present candidate before the climb, for the noise."""


@dataclass(frozen=True)
class Result:
    """All that was seen."""

    present: Candidate
    climbed: tuple[Trial, ...]
    """In the order in which they were first tried."""
    finals: tuple[Trial, ...]
    """Of the contenders, measured in turns."""
    choice: Choice
    complete: bool
    """Whether the climb came to its end; the budget cut it short otherwise."""


@dataclass
class Search:
    """One search. `clock` gives seconds."""

    present: Candidate
    space: Space
    aim: Aim
    budget: Budget
    measure: Measure
    clock: Callable[[], float]
    _trials: dict[Candidate, Trial] = field(default_factory=dict)
    _path: list[Candidate] = field(default_factory=list)
    """Those that the climb has left for a better one."""
    _complete: bool = True
    _measurements: int = 0
    _began: float = 0.0

    def run(self) -> Result:
        """The whole of it. Raises LoadTestError where the present candidate cannot be measured."""
        self._began = self.clock()
        for _ in range(self.budget.rounds):
            self._try(self.present)
            failure = self._trials[self.present].failure
            if failure is not None:
                raise LoadTestError(f"the present configuration cannot be measured: {failure.reason}")
        self._climb()
        finals = self._finals()
        reasons = [trial.failure.reason for trial in finals if trial.failure is not None]
        if len(reasons) == len(finals):
            raise LoadTestError(f"nothing could be served in the final any more: {reasons[0]}")
        climbed = tuple(self._trials.values())
        return Result(self.present, climbed, finals, choose(finals, self.present, self.aim), self._complete)

    def _climb(self) -> None:
        """Until no axis has anything better, or the budget is spent."""
        best, moved = self.present, True
        while moved:
            moved = False
            for axis in self.space.axes(best):
                while (better := self._step(axis, best)) != best:
                    self._path.append(best)
                    best, moved = better, True

    def _step(self, axis: Axis, best: Candidate) -> Candidate:
        """The best new neighbour along `axis`, where that is better than `best` by more than the noise; else `best`.

        `best` is measured once more beside them: what an hour ago was fast may be slow by now, and is still the same.
        """
        # Of its first round: later ones would move the delays a little, which would then be new.
        neighbours = self.space.neighbours(axis, best, self._trials[best].rounds[0].p50_ms)
        new = [neighbour for neighbour in neighbours if neighbour not in self._trials]
        if not new or not self._may_climb(2):
            return best
        self._try(best)
        current = replace(self._trials[best], rounds=self._trials[best].rounds[-1:])
        for neighbour in new:
            if self._may_climb():
                self._try(neighbour)
        tried = [self._trials[one] for one in new if one in self._trials]
        winner = best_of([current, *tried], self.aim)
        return winner.candidate if self._is_better(winner, current) else best

    def _may_climb(self, measurements: int = 1) -> bool:
        """Whether there is room for so many more, with a short final after them. Remembers where there is not."""
        room = self._room() >= measurements + FINALISTS * min(_LEAST_ROUNDS, self.budget.rounds)
        self._complete = self._complete and room
        return room

    def _finals(self) -> tuple[Trial, ...]:
        """Rounds in turns among the contenders. Who fails now is out."""
        finals = {candidate: Trial(candidate) for candidate in self._contenders()}
        for number in range(self.budget.rounds):
            if number and self._room() < len(finals):
                break
            for candidate, trial in finals.items():
                if trial.failure is None:
                    finals[candidate] = _with(trial, self._measure(candidate))
        return tuple(finals.values())

    def _contenders(self) -> list[Candidate]:
        """The present candidate, the best, the one before the last step, which may have been luck, and more.

        The rest are the simplest of those that are as good as the best, and then the next best.
        """
        served = [trial for trial in self._trials.values() if trial.failure is None]
        best = best_of(served, self.aim)
        equals = [trial for trial in served if not self._is_better(best, trial)]
        equals.sort(key=lambda trial: complexity(trial.candidate, self.present))
        keeping = [trial for trial in served if self.aim.broken(trial) is None]
        keeping.sort(key=lambda trial: self.aim.cost(trial.middle()))
        others = (trial.candidate for trial in [*equals[:1], *keeping])
        return list(dict.fromkeys([self.present, best.candidate, *self._path[-1:], *others]))[:FINALISTS]

    def _is_better(self, trial: Trial, other: Trial) -> bool:
        """By more than the noise, as far as it is known while most were measured once: from the present candidate."""
        margin = max(self.aim.margin(trial, other), self.aim.margin(self._trials[self.present], other))
        return self.aim.gain(trial, other) > margin

    def _try(self, candidate: Candidate) -> None:
        trial = self._trials.get(candidate, Trial(candidate))
        self._trials[candidate] = _with(trial, self._measure(candidate))

    def _measure(self, candidate: Candidate) -> Measurement | Failure:
        self._measurements += 1
        return self.measure(candidate)

    def _room(self) -> float:
        """How many measurements the budget still allows, if they take as long as those so far."""
        spent = self.clock() - self._began
        by_time = (self.budget.seconds - spent) * self._measurements / spent if spent else inf
        return min(by_time, self.budget.measurements - self._measurements)


def _with(trial: Trial, seen: Measurement | Failure) -> Trial:
    if isinstance(seen, Failure):
        return replace(trial, failure=seen)
    return replace(trial, rounds=(*trial.rounds, seen))
