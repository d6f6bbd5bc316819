"""When a batch is worth running. Pure: numbers in, numbers out; no clock, no queue, no event loop.

`WindowPolicy` has the semantics of Triton's dynamic batcher: a batch runs when it is full, when its rows are exactly
a preferred size, or when its oldest request has waited `max_delay` since it *arrived*.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WindowPolicy:
    """A size-or-time window over one queue."""

    max_rows: int
    """The most rows that one batch may carry."""
    max_requests: int = sys.maxsize
    """The most requests that one batch may carry; 1 turns batching off."""
    preferred_rows: tuple[int, ...] = ()
    """Sizes worth running before the window ends."""
    max_delay: float = 0.0
    """Seconds that the oldest request may wait for company; 0 runs whatever is there when a lane is idle."""
    max_queued_rows: int = sys.maxsize
    """Rows that may wait before newcomers are turned away."""
    max_queued_requests: int = sys.maxsize
    """Requests that may wait before newcomers are turned away."""

    def __post_init__(self) -> None:
        if self.max_rows < 1 or self.max_requests < 1:
            raise ValueError(f"a batch must hold at least one row, not {self.max_rows} in {self.max_requests} requests")
        if self.max_delay < 0:
            raise ValueError(f"max_delay must not be negative, not {self.max_delay}")
        if any(not 0 < size <= self.max_rows for size in self.preferred_rows):
            raise ValueError(f"preferred sizes must lie in 1..{self.max_rows}, not {self.preferred_rows}")
        if self.max_queued_rows < self.max_rows or self.max_queued_requests < 1:
            raise ValueError("the queue must hold at least one full batch")

    def due(self, oldest_arrived: float) -> float:
        """When a batch whose oldest request arrived then is worth running whatever its size."""
        return oldest_arrived + self.max_delay

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

        `prefix_rows[i]` is the rows of the first i+1 requests, never above `max_rows`; `more_wait` tells that another
        request waits which does not fit.
        """
        full = more_wait or prefix_rows[-1] == self.max_rows or len(prefix_rows) == self.max_requests
        if full or now >= self.due(oldest_arrived):
            return len(prefix_rows)
        for count in range(len(prefix_rows), 0, -1):
            if prefix_rows[count - 1] in self.preferred_rows:
                return count
        return 0
