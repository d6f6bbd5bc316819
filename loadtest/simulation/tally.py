"""What a simulation counts, in bulk, and the figures from it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import log

import numpy as np

from loadtest.simulation.arrivals import Integers

SHORTEST = 1e-7
LONGEST = 1e4
STEP = 1e-3
"""Latencies are counted in steps of a thousandth of themselves, from 100 ns to three hours."""
_STEPS = round(log(LONGEST / SHORTEST) / STEP)


def _zeros(count: int) -> Integers:
    return np.zeros(count, dtype=np.int64)


@dataclass
class Tally:
    """Events of a stretch of virtual time. A request that waits or runs when it begins is `present_at_start`."""

    objective: float
    """Seconds from arrival to answer that a request may take to count as good."""
    max_rows: int
    seconds: float = 0.0
    """How long the stretch is."""
    present_at_start: int = 0
    arrived: int = 0
    answered: int = 0
    good: int = 0
    """Answered within the objective."""
    refused: Counter[str] = field(default_factory=Counter)
    """At arrival, by the error's name."""
    expired: int = 0
    """Taken out of the queue by `expire`: too late to run."""
    present_at_end: int = 0
    latency_sum: float = 0.0
    latencies: Integers = field(default_factory=lambda: _zeros(_STEPS + 1))
    batches: Integers = field(default_factory=lambda: _zeros(0))
    """How many batches had so many rows."""
    busy: float = 0.0
    """Seconds that batches ran, of those that ended."""

    def __post_init__(self) -> None:
        if not self.batches.size:
            self.batches = _zeros(self.max_rows + 1)

    def record(
        self,
        arrived: Sequence[float],
        ended: Sequence[float],
        requests: Sequence[int],
        rows: Sequence[int],
        seconds: Sequence[float],
    ) -> None:
        """Count batches that ended: each one's end, requests, rows and time; `arrived` is by request, in that order."""
        if not ended:
            return
        latencies = np.repeat(ended, requests) - np.array(arrived)
        self.answered += len(latencies)
        self.good += int(np.count_nonzero(latencies <= self.objective))
        self.latency_sum += float(latencies.sum())
        steps = np.log(np.maximum(latencies, SHORTEST) / SHORTEST) / STEP
        self.latencies += np.bincount(np.minimum(steps, _STEPS).astype(np.int64), minlength=_STEPS + 1)
        self.batches += np.bincount(rows, minlength=self.max_rows + 1)
        self.busy += sum(seconds)

    def latency(self, share: float) -> float:
        """The latency that this share of the answers did not exceed, within a thousandth; nan without answers."""
        if not self.answered:
            return float("nan")
        step = int(np.searchsorted(np.cumsum(self.latencies), share * self.answered))
        return SHORTEST * float(np.exp((step + 0.5) * STEP))

    @property
    def mean_latency(self) -> float:
        return self.latency_sum / self.answered if self.answered else float("nan")

    @property
    def mean_rows(self) -> float:
        """Rows per batch."""
        batches = int(self.batches.sum())
        return float(self.batches @ np.arange(len(self.batches))) / batches if batches else 0.0


def joined(stretches: Iterable[Tally]) -> tuple[Tally, int]:
    """Stretches of time that follow each other, as one; and by how many requests they disagree where they meet."""
    first, *rest = stretches
    gap = 0
    for other in rest:
        gap += abs(first.present_at_end - other.present_at_start)
        first.present_at_end = other.present_at_end
        first.refused += other.refused
        for name in (
            "seconds",
            "arrived",
            "answered",
            "good",
            "expired",
            "latency_sum",
            "latencies",
            "batches",
            "busy",
        ):
            setattr(first, name, getattr(first, name) + getattr(other, name))
    return first, gap
