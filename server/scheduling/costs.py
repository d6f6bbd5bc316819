"""What batches have cost so far, by size. Pure: seconds come in, predictions go out."""

from __future__ import annotations

from math import inf

WEIGHT = 0.125
"""Of the newest measurement in the moving average: the last dozen or so count."""


class CostTable:
    """Seconds that a batch of so many rows takes."""

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def observe(self, rows: int, seconds: float) -> None:
        """Count one batch that ran."""
        known = self._seconds.get(rows)
        self._seconds[rows] = seconds if known is None else known + WEIGHT * (seconds - known)

    def predict(self, rows: int) -> float:
        """What a batch of this size will take; inf where none has run yet."""
        return self._seconds.get(rows, inf)
