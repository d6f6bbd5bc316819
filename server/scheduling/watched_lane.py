"""A lane whose runs may take so long and no longer: around another lane, for models that set such a limit.

A run that takes longer is interrupted. Where it does not end for that, its batch is answered all the same, and another
lane takes the place of the one that it holds up. On the event loop's thread, with a clock that is given; `RunWatch` is
pure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from math import inf
from typing import Generic, Protocol, TypeVar

from server.scheduling.clock import Clock
from server.scheduling.lanes import Lane
from server.scheduling.queue import Ticket

T = TypeVar("T", bound=Ticket)
R = TypeVar("R")

INTERRUPT_SECONDS = 2.0
"""A run that was interrupted may take so long to end: ONNX Runtime looks up between operators, and one may be large."""

LOOK_SECONDS = 0.1
"""How often to look, at most, whether it has ended and the next one has begun."""


LATE_SECONDS = 0.25
"""Whoever looks so much later than was due has stood still, with the process or the machine: the run may have, too."""


class Verdict(Enum):
    """What to do about a lane that has a batch."""

    WAIT = auto()
    INTERRUPT = auto()
    GIVE_UP = auto()


class RunWatch:
    """How long the run of one lane has lasted. A batch may be several runs: those of its requests, where it failed."""

    __slots__ = ("_give_up_at", "_limit", "_run", "due")

    def __init__(self, limit: float) -> None:
        """`limit` in seconds."""
        self._limit = limit
        self._run = 0
        self._give_up_at = inf  # once it was interrupted
        self.due = inf
        """When to look."""

    def begin(self, run: int, now: float) -> None:
        """A batch begins, with the run of this number."""
        self._run, self._give_up_at = run, inf
        self.due = now + self._limit

    def look(self, run: int, now: float) -> Verdict:
        """What to do now that the lane is at this run. A run that is seen for the first time counts from now."""
        if run != self._run:
            self.begin(run, now)
            return Verdict.WAIT
        if now < self.due:
            return Verdict.WAIT
        if now > self.due + LATE_SECONDS:  # it gets its time once more
            if self._give_up_at == inf:
                self.begin(run, now)
            else:
                self._give_up_at = self.due = now + INTERRUPT_SECONDS
            return Verdict.WAIT
        if now >= self._give_up_at:
            return Verdict.GIVE_UP
        verdict = Verdict.WAIT
        if self._give_up_at == inf:
            self._give_up_at = now + INTERRUPT_SECONDS
            verdict = Verdict.INTERRUPT
        self.due = min(self._give_up_at, now + max(self._limit, LOOK_SECONDS))
        return verdict


class Runs(Protocol):
    """The runs of one lane, as whoever carries them out tells of them."""

    @property
    def number(self) -> int:
        """Of the latest run: they are counted."""
        ...

    def interrupt_run(self, number: int, overdue: Callable[[], Exception]) -> Exception | None:
        """End this run as soon as may be, and return what it raises then: `overdue()`. None where it has ended."""
        ...


class WatchedLane(Generic[T, R]):
    """Runs batches on a lane, and on another once one does not come back.

    `overdue()` is told of every run that takes too long, and returns what it fails with. `hung(1)` is told of a run
    that is left behind, and returns what every batch fails with from now on, or None where another lane, of
    `another()`, may take its place. `hung(-1)` is told of a run that has come back.
    """

    def __init__(
        self,
        lane: Lane[T, R],
        runs: Runs,
        limit: float,
        clock: Clock,
        *,
        another: Callable[[], tuple[Lane[T, R], Runs]],
        overdue: Callable[[], Exception],
        hung: Callable[[int], Exception | None],
    ) -> None:
        """`limit` in seconds."""
        self._lane, self._runs = lane, runs
        self._clock = clock
        self._another = another
        self._overdue = overdue
        self._hung = hung
        self._watch = RunWatch(limit)
        self._done: Callable[[R | Exception], None] | None = None
        self._serial = 0
        self._error: Exception | None = None
        self._out_of_order: Exception | None = None
        self._alarm = clock.alarm(self._look)

    def submit(self, batch: Sequence[T], done: Callable[[R | Exception], None]) -> None:
        """See `Lane.submit`."""
        if self._out_of_order is not None:
            asyncio.get_running_loop().call_soon(done, self._out_of_order)
            return
        self._serial += 1
        self._done = done
        self._watch.begin(self._runs.number + 1, self._clock.now())
        if self._alarm.when == inf:  # else it rings in time: one alarm for many batches
            self._alarm.set(self._watch.due)
        self._lane.submit(batch, partial(self._ended, self._serial))

    def close(self) -> None:
        """See `Lane.close`."""
        self._alarm.close()
        self._lane.close()
        del self._another, self._runs  # a closed lane lets go of the session

    def _ended(self, serial: int, outcome: R | Exception) -> None:
        if serial != self._serial or self._done is None:
            self._hung(-1)
            return
        done, self._done = self._done, None
        done(outcome)

    def _look(self) -> None:
        if self._done is None:
            return
        runs, now = self._runs, self._clock.now()
        match self._watch.look(runs.number, now):
            case Verdict.INTERRUPT:
                self._error = runs.interrupt_run(runs.number, self._overdue)
                if self._error is None:  # its outcome is on its way
                    self._watch.begin(runs.number, now)
            case Verdict.GIVE_UP:
                self._give_up(self._done)
                return
            case Verdict.WAIT:
                pass
        self._alarm.set(self._watch.due)

    def _give_up(self, done: Callable[[R | Exception], None]) -> None:
        assert self._error is not None, "a run is interrupted before it is given up"
        self._done, error = None, self._error
        self._out_of_order = self._hung(1)
        if self._out_of_order is None:
            self._lane.close()  # its thread ends when the run does
            try:
                self._lane, self._runs = self._another()
            except RuntimeError as failure:  # there is no thread to be had
                self._out_of_order = failure
        done(error)
