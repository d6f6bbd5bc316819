"""Which model's batch may run next where more want to run than the machine should run at once. Pure: no clock, no loop.

Rules of this file:
- A taker is whoever runs batches: one loaded version, however many instances it has.
- While fewer batches run than `limit` and nobody waits, whoever wants to begins at once.
- Takers that wait stand in one line, each once, and are called in rounds: a taker is called at most once a round, and
  within a round the most urgent goes first. A taker that had its turn in this round waits for the next one.
- So a taker that had no turn in this round waits for one turn of each other taker at most, however many instances and
  batches those have.
- A taker that is called may begin one batch, or let it be: then the next in line is called, and it stands in line no
  more.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

PATIENCE_SECONDS = 1.0
"""A request without a deadline is as urgent as one with a deadline so long after the batch is due. It decides who goes
first within a round, and nothing else."""


class Taker:
    """A place at the turns of one server. `call` is called when it may begin."""

    __slots__ = ("call", "round")

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.round = -1
        """The round of its latest turn."""


class Turns:
    """At most `limit` batches at once, for all takers together."""

    __slots__ = ("_called", "_line", "_round", "limit", "running")

    def __init__(self, limit: float = inf) -> None:
        if not limit >= 1:
            raise ValueError(f"at least one batch must be able to run, not {limit}")
        self.limit = limit
        self.running = 0
        self._round = 0
        self._line: dict[Taker, tuple[int, float]] = {}  # round and urgency: the smallest is called next
        self._called: Taker | None = None

    @property
    def waiting(self) -> int:
        """Takers in line."""
        return len(self._line)

    def may_begin(self, taker: Taker) -> bool:
        """Whether a turn is free, and nobody comes before this taker."""
        return self.running < self.limit and (not self._line or taker is self._called)

    def begin(self, taker: Taker) -> None:
        """Take a turn for one batch. Raises `RuntimeError` unless `may_begin`."""
        if not self.may_begin(taker):
            raise RuntimeError(f"a turn was taken that was not free: {self.running} of {self.limit} run")
        taker.round = self._round
        self.running += 1
        self._called = None

    def end(self) -> None:
        """A batch that had a turn has ended: `call_next` when its taker stands in line again, or will not."""
        if not self.running:
            raise RuntimeError("a turn was ended that nobody had begun")
        self.running -= 1

    def wait(self, taker: Taker, due: float, deadline: float) -> None:
        """Stand in line, or stay there with what is urgent now.

        `due` is when the batch was worth running, `deadline` the first one of the requests that wait for it.
        """
        if taker is self._called:
            raise RuntimeError("a taker that was called neither began nor let it be")
        place = self._line.get(taker)
        in_round = place[0] if place else max(self._round, taker.round + 1)
        self._line[taker] = in_round, min(deadline, due + PATIENCE_SECONDS)

    def leave(self, taker: Taker) -> None:
        """Stand in line no more."""
        self._line.pop(taker, None)

    def call_next(self) -> None:
        """Call those in line, one after another, while turns are free."""
        while self._line and self.running < self.limit:
            taker = min(self._line, key=self._line.__getitem__)
            self._round, _ = self._line.pop(taker)
            self._called = taker
            taker.call()
            self._called = None
