"""Which model's batch runs next where more want to run than the machine should run at once. Pure: no clock, no loop.

Rules of this file:
- A taker is whoever runs batches: one loaded version, however many instances it has.
- A batch has one of `limit` turns while it runs. While one is free and nobody waits, whoever wants it has it at once.
- Takers that wait stand in one line, each once, and are called in rounds: a taker has at most one turn a round, and
  within a round the most urgent goes first. Who had a turn in this round waits for the next one. So a taker that had
  none waits for one turn of each other taker at most, however many instances and batches those have.
- A batch cannot be interrupted, so waiting for a long one is dear. A taker that runs nothing needs no turn for a batch
  that is short beside the longest one that runs: the operating system lets it through. It is one batch at a time.
- A taker that is called begins one batch or lets it be, and then stands in line no more unless it asks again.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

PATIENCE_SECONDS = 1.0
"""A request without a deadline is as urgent as one with a deadline so long after its batch is due. It decides who goes
first within a round, and nothing else."""

SHORT = 1 / 4
"""A batch is short beside one that takes more than four times as long. Both are measured on the same busy machine, so
that the ratio says what no number of milliseconds would."""


class Taker:
    """A place at the turns of one server. `call` is called when it may begin."""

    __slots__ = ("call", "round", "running", "seconds")

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.round = -1
        """The round of its latest turn."""
        self.running = 0
        """Batches, with a turn or without."""
        self.seconds = inf
        """How long its latest batch took; inf before the first."""


class Turns:
    """At most `limit` batches at once, and short ones beside them, for all takers together."""

    __slots__ = ("_called", "_free", "_holders", "_line", "_round", "limit")

    def __init__(self, limit: float = inf) -> None:
        if not limit >= 1:
            raise ValueError(f"at least one batch must be able to run, not {limit}")
        self.limit = limit
        self._free = limit
        self._holders: list[Taker] = []  # one entry per turn that is taken
        self._round = 0
        self._line: dict[Taker, tuple[int, float]] = {}  # round and urgency: the smallest is called next
        self._called: Taker | None = None

    @property
    def running(self) -> int:
        """Batches that have a turn."""
        return len(self._holders)

    def may_begin(self, taker: Taker) -> bool:
        """Whether a batch of this taker may run now."""
        return (self._free > 0 and (not self._line or taker is self._called)) or self._may_pass(taker)

    def begin(self, taker: Taker) -> bool:
        """Begin a batch; says whether it has a turn, for `end`. Raises `RuntimeError` where it may not begin."""
        has_turn = self._free > 0 and (not self._line or taker is self._called)
        if has_turn:
            self._free -= 1
            self._holders.append(taker)
            taker.round = self._round
        elif not self._may_pass(taker):
            raise RuntimeError(f"a batch began out of turn: {self.running} of {self.limit} run")
        taker.running += 1
        self._called = None
        return has_turn

    def end(self, taker: Taker, had_turn: bool, seconds: float) -> None:
        """A batch has ended that took so long. `call_next` once its taker stands in line again, or does not want to."""
        if not taker.running:
            raise RuntimeError("a batch ended that had not begun")
        if had_turn:
            self._free += 1
            self._holders.remove(taker)
        taker.running -= 1
        taker.seconds = seconds

    def wait(self, taker: Taker, due: float, deadline: float) -> None:
        """Stand in line, or stay there with what is urgent now.

        `due` is when the batch was worth running, `deadline` the first one of the requests that wait for it.
        """
        if taker is self._called:
            raise RuntimeError("a taker that was called neither began nor let it be")
        in_round = max(self._round, taker.round + 1)  # nobody is called in a later round than those who stay in line
        self._line[taker] = in_round, min(deadline, due + PATIENCE_SECONDS)

    def leave(self, taker: Taker) -> None:
        """Stand in line no more."""
        self._line.pop(taker, None)

    def call_next(self) -> None:
        """Call whoever in line may begin now, one after another."""
        while self._line:
            if self._free > 0:
                taker = min(self._line, key=self._line.__getitem__)
                self._round = self._line[taker][0]
            elif (short := next(filter(self._may_pass, self._line), None)) is not None:
                taker = short
            else:
                return
            del self._line[taker]
            self._called = taker
            taker.call()
            self._called = None

    def _may_pass(self, taker: Taker) -> bool:
        measured = [holder.seconds for holder in self._holders if holder.seconds < inf]
        return not taker.running and taker.seconds < SHORT * max(measured, default=0.0)
