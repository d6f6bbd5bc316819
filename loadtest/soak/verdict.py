"""Whether a series of samples is flat. Pure.

The first quarter of the samples is the warm-up, and proves nothing. After it, a series must not rise by more than its
tolerance, neither along the line through its samples (least squares, over three quarters of them), nor from the median
of the second quarter to the median of the last. A leak rises in both; noise, and one sample that stands out, in
neither. Falling is no fault. The tolerance is of the whole time: the longer the soak, the smaller the leak it finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from loadtest.figures import slope
from loadtest.verdict import Check

WARM_UP_SHARE = 0.25
_FEWEST_SAMPLES = 12

Points = Sequence[tuple[float, float]]
"""Seconds after the start, and a value."""


@dataclass(frozen=True)
class Tolerance:
    """By how much a series may rise."""

    name: str
    unit: str
    rise: float


@dataclass(frozen=True)
class Trend:
    """How a series went after its warm-up."""

    slope_per_s: float
    line_rise: float
    """What the line through all samples rises by."""
    quarters_rise: float
    """The median of the last quarter less that of the second."""
    level: float
    """The median of the last quarter."""


def trend(points: Points, seconds: float) -> Trend:
    """Of `points` within the first `seconds`. Raises ValueError where there are too few."""
    within = [point for point in points if point[0] <= seconds]
    if len(within) < _FEWEST_SAMPLES:
        raise ValueError(f"{len(within)} samples, {_FEWEST_SAMPLES} are needed")
    judged = within[round(WARM_UP_SHARE * len(within)) :]
    second, last = judged[: len(judged) // 3], judged[-(len(judged) // 3) :]
    before, level = (median(value for _, value in quarter) for quarter in (second, last))
    steepness = slope(judged)
    return Trend(steepness, steepness * (judged[-1][0] - judged[0][0]), level - before, level)


def judge(tolerance: Tolerance, points: Points, seconds: float) -> Check:
    """Whether the series is flat."""
    try:
        seen = trend(points, seconds)
    except ValueError as error:
        return Check(False, f"{tolerance.name}: {error}")
    passed = max(seen.line_rise, seen.quarters_rise) <= tolerance.rise
    return Check(
        passed,
        f"{tolerance.name} {'flat' if passed else 'RISES'}: {seen.level:.4g} {tolerance.unit}, line "
        f"{seen.line_rise:+.2f}, last quarter against second {seen.quarters_rise:+.2f}, allowed {tolerance.rise:+g} "
        f"({seen.slope_per_s * 3600:+.3g} an hour)",
    )
