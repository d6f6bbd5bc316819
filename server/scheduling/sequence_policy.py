"""When the requests of sequences run, and for how long a sequence may be silent. Pure: numbers in, numbers out."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from server.scheduling.policy import WindowPolicy


@dataclass(frozen=True, slots=True)
class SequencePolicy(WindowPolicy):
    """A window over the first requests of the sequences that have a slot."""

    slots: int = 1
    """Sequences that one instance serves at a time."""
    max_idle: float = 1.0
    """Seconds after which a sequence of which nothing waits or runs is over."""
    min_ready: int = sys.maxsize
    """Requests that are worth running before the window ends, whatever the preferred sizes."""
    in_order: bool = False
    """Whether no request of an instance may overtake another that could run as well."""

    def __post_init__(self) -> None:
        WindowPolicy.__post_init__(self)
        if self.slots < 1 or self.min_ready < 1:
            raise ValueError(f"slots and min_ready must be at least 1, not {self.slots} and {self.min_ready}")
        if self.max_idle <= 0:
            raise ValueError(f"max_idle must be above 0, not {self.max_idle}")

    def choose(self, prefix_rows: list[int], more_wait: bool, oldest_arrived: float, now: float) -> int:
        """See `WindowPolicy.choose`."""
        if len(prefix_rows) >= self.min_ready:
            return len(prefix_rows)
        return WindowPolicy.choose(self, prefix_rows, more_wait, oldest_arrived, now)
