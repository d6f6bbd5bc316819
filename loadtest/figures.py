"""What load tests count, and the arithmetic on it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import linear_regression, median
from typing import Any

Figures = Mapping[str, float]
"""Measured values; each name ends with its unit."""


@dataclass(frozen=True)
class Counts:
    """What ModelStatistics has counted for a model, all versions together."""

    inferences: int
    """Rows: a request of n rows counts n."""
    executions: int
    """Batches."""
    successes: int
    """Requests."""
    failures: int
    """Requests."""

    def since(self, before: Counts) -> Counts:
        """What was counted between `before` and now."""
        return Counts(
            self.inferences - before.inferences,
            self.executions - before.executions,
            self.successes - before.successes,
            self.failures - before.failures,
        )

    @property
    def average_batch(self) -> float:
        """Rows per batch; 0 where nothing ran."""
        return self.inferences / self.executions if self.executions else 0.0


def percentile(latencies_ms: Mapping[float, int], share: float) -> float:
    """The smallest latency that `share` of the requests did not exceed; infinite where there was no request."""
    wanted = share * sum(latencies_ms.values())
    seen = 0
    for latency in sorted(latencies_ms):
        seen += latencies_ms[latency]
        if seen >= wanted:
            return latency
    return float("inf")


def medians(rounds: Sequence[Figures]) -> dict[str, float]:
    """Of each figure; all rounds have the same ones."""
    return {key: median(figures[key] for figures in rounds) for key in rounds[0]}


def spread(rounds: Sequence[Figures]) -> dict[str, tuple[float, float]]:
    """The smallest and the largest of each figure."""
    columns = {key: [figures[key] for figures in rounds] for key in rounds[0]}
    return {key: (min(column), max(column)) for key, column in columns.items()}


def ratios(one: Figures, other: Figures) -> dict[str, float]:
    """One ÷ other, of the figures that both have, where that is defined."""
    return {key: value / other[key] for key, value in one.items() if other.get(key)}


def finite(value: Any) -> Any:
    """`value` with null for what JSON has no number for: a limit that is none, a latency of no request."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line through (x, y) `points` by least squares. There are two at least."""
    return linear_regression(*zip(*points, strict=True)).slope
