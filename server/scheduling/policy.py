"""When a batch is worth running, and who goes first. Pure: numbers in, numbers out; no clock, no queue, no event loop.

`WindowPolicy` has the semantics of Triton's dynamic batcher: a batch runs when it is full, when its rows are exactly
a preferred size, or when its oldest request has waited `max_delay` since it *arrived*. Priority levels are strict, 1
the most urgent, unless `aging` lets those who wait climb.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class LevelPolicy:
    """What may wait at one priority level before newcomers are turned away."""

    max_queued_rows: int = sys.maxsize
    max_queued_requests: int = sys.maxsize


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """What any policy says about a queue."""

    max_rows: int
    """The most rows that one batch may carry."""
    levels: tuple[LevelPolicy, ...] = (LevelPolicy(),)
    """Priority levels, the most urgent first."""

    def __post_init__(self) -> None:
        if self.max_rows < 1:
            raise ValueError(f"a batch must hold at least one row, not {self.max_rows}")
        if not self.levels:
            raise ValueError("there must be at least one priority level")
        if any(level.max_queued_rows < self.max_rows or level.max_queued_requests < 1 for level in self.levels):
            raise ValueError("the queue must hold at least one full batch")

    def most_rows(self, level: int) -> int:
        """The largest request that this level's queue could ever hold, were it cut into batches."""
        bounds = self.levels[level - 1]
        return min(bounds.max_queued_rows, bounds.max_queued_requests * self.max_rows)

    def limited(self, max_rows: int) -> Self:
        """The same with smaller batches."""
        return replace(self, max_rows=min(max_rows, self.max_rows))


@dataclass(frozen=True, slots=True)
class WindowPolicy(QueueBounds):
    """A size-or-time window over one queue."""

    max_requests: int = sys.maxsize
    """The most requests that one batch may carry; 1 turns batching off."""
    preferred_rows: tuple[int, ...] = ()
    """Sizes worth running before the window ends."""
    max_delay: float = 0.0
    """Seconds that the oldest request may wait for company; 0 runs whatever is there when a lane is idle."""
    aging: float = 0.0
    """Seconds of waiting that move a request up by one level; 0: levels are strict."""

    def __post_init__(self) -> None:
        QueueBounds.__post_init__(self)  # no super(): a dataclass with slots is a second class of this name
        if self.max_requests < 1:
            raise ValueError(f"a batch must hold at least one request, not {self.max_requests}")
        if self.max_delay < 0 or self.aging < 0:
            raise ValueError(f"max_delay and aging must not be negative, not {self.max_delay} and {self.aging}")
        if any(not 0 < size <= self.max_rows for size in self.preferred_rows):
            raise ValueError(f"preferred sizes must lie in 1..{self.max_rows}, not {self.preferred_rows}")

    def limited(self, max_rows: int) -> Self:
        """The same with smaller batches, and the preferred sizes that they can have."""
        preferred = tuple(size for size in self.preferred_rows if size <= max_rows)
        return replace(self, max_rows=min(max_rows, self.max_rows), preferred_rows=preferred)

    def due(self, oldest_arrived: float) -> float:
        """When a batch whose oldest request arrived then is worth running whatever its size."""
        return oldest_arrived + self.max_delay

    def level_at(self, level: int, arrived: float, now: float) -> int:
        """The level that a request of this level has come to."""
        waited = now - arrived
        if not self.aging or level == 1:
            return level
        return 1 if waited >= (level - 1) * self.aging else level - int(waited / self.aging)

    def might_run(self, rows: int, requests: int, oldest_arrived: float, now: float) -> bool:
        """Whether some prefix of this many waiting rows may be worth running now. Cheap; `choose` decides."""
        return (
            rows >= self.max_rows
            or requests >= self.max_requests
            or now >= self.due(oldest_arrived)
            or (bool(self.preferred_rows) and rows >= min(self.preferred_rows))
        )

    def choose(self, prefix_rows: list[int], more_wait: bool, oldest_arrived: float, now: float) -> int:
        """How many requests to take now, 0 to wait.

        `prefix_rows[i]` is the rows of the first i+1 requests, never above `max_rows` unless the first alone is;
        `more_wait` tells that another request waits which does not fit.
        """
        full = more_wait or prefix_rows[-1] >= self.max_rows or len(prefix_rows) == self.max_requests
        if full or now >= self.due(oldest_arrived):
            return len(prefix_rows)
        for count in range(len(prefix_rows), 0, -1):
            if prefix_rows[count - 1] in self.preferred_rows:
                return count
        return 0
