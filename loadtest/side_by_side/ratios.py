"""Ratios of our server to the floors, and whether they have moved beyond noise. Pure.

A ratio is taken within each round, so that what the machine does to both falls out. What is left is noise: the standard
error of the median of the rounds, on a logarithmic scale, from the median absolute deviation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import median
from typing import Any

from loadtest.errors import LoadTestError
from loadtest.side_by_side.records import Record

FIGURES = {"cpu_us_per_request": "server CPU per request", "requests_per_second": "requests/s", "p50_ms": "p50"}
"""Those that are held, in words."""
_HIGHER_IS_BETTER = frozenset({"requests_per_second"})
_LEAST_TOLERANCE = 0.05
"""Of a logarithm: two runs of the same code differ by that, whatever the rounds of one say."""
_STANDARD_ERRORS = 3.0
_BLURRED = 1.25
"""A tolerated factor from which an unchanged ratio says nothing."""
_MAD_TO_DEVIATION = 1.4826
_MEDIAN_ERROR = 1.2533


@dataclass(frozen=True)
class Ratio:
    """Ours ÷ a floor's."""

    value: float
    """Median of the rounds."""
    noise: float
    """Standard error of its logarithm: about a share of it."""


@dataclass(frozen=True)
class Move:
    """A ratio beside the baseline's."""

    name: str
    before: Ratio | None
    now: Ratio | None

    @property
    def tolerance(self) -> float:
        """Factor that noise alone may change it by, either way."""
        noise = sqrt(sum(one.noise**2 for one in (self.before, self.now) if one is not None))
        return exp(max(_LEAST_TOLERANCE, _STANDARD_ERRORS * noise))

    @property
    def worse_by(self) -> float | None:
        """How many times worse it is now; below 1: better. None where one is missing."""
        if self.before is None or self.now is None:
            return None
        change = self.now.value / self.before.value
        return 1 / change if self.name.split()[-1] in _HIGHER_IS_BETTER else change

    @property
    def regressed(self) -> bool:
        return self.worse_by is not None and self.worse_by > self.tolerance

    @property
    def improved(self) -> bool:
        return self.worse_by is not None and 1 / self.worse_by > self.tolerance

    @property
    def blurred(self) -> bool:
        """Whether noise hides what the guard is for."""
        return self.worse_by is not None and self.tolerance > _BLURRED and not (self.regressed or self.improved)

    def sentence(self) -> str:
        """What has become of it."""
        if self.before is None:
            return f"NEW        {self.name}: not in the baseline"
        if self.now is None:
            return f"MISSING    {self.name}: not measured this time"
        verdict = "unchanged "
        if self.regressed:
            verdict = "REGRESSION"
        elif self.improved:
            verdict = "better    "
        elif self.blurred:
            verdict = "NOISE     "
        return (
            f"{verdict} {self.name}: {self.now.value:.3f}, was {self.before.value:.3f}, "
            f"a change of {self.now.value / self.before.value - 1:+.1%}; noise up to {self.tolerance - 1:.1%}"
        )


def ratios_of(records: Iterable[Record], ours: Sequence[str], floors: Sequence[str]) -> dict[str, Ratio]:
    """By "subject load server/floor figure". A round counts where both were measured; two are needed."""
    loads = {
        (record.server, record.subject, record.round, load): figures
        for record in records
        for load, figures in record.loads.items()
    }
    rounds: dict[str, list[float]] = {}
    for (server, subject, number, load), figures in loads.items():
        for floor in floors if server in ours else ():
            its = loads.get((floor, subject, number, load), {})
            for name in FIGURES:
                if figures.get(name) and its.get(name):
                    rounds.setdefault(f"{subject} ×{load} {server}/{floor} {name}", []).append(
                        figures[name] / its[name]
                    )
    return {name: _ratio(values) for name, values in rounds.items() if len(values) > 1}


def compare(before: Mapping[str, Ratio], now: Mapping[str, Ratio]) -> list[Move]:
    """Every ratio of either."""
    return [Move(name, before.get(name), now.get(name)) for name in {**before, **now}]


def as_json(ratios: Mapping[str, Ratio]) -> dict[str, dict[str, float]]:
    return {name: {"value": round(one.value, 5), "noise": round(one.noise, 5)} for name, one in ratios.items()}


def from_json(fields: Mapping[str, Any]) -> dict[str, Ratio]:
    """LoadTestError where it is not what `as_json` makes."""
    try:
        ratios = {name: Ratio(float(one["value"]), float(one["noise"])) for name, one in fields.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LoadTestError(f"not a baseline: {error!r}") from error
    for name, one in ratios.items():
        if not (one.value > 0 and one.noise >= 0):
            raise LoadTestError(f"not a baseline: '{name}' has value {one.value}, noise {one.noise}")
    return ratios


def _ratio(values: Sequence[float]) -> Ratio:
    logarithms = [log(value) for value in values]
    middle = median(logarithms)
    deviation = _MAD_TO_DEVIATION * median(abs(one - middle) for one in logarithms)
    return Ratio(exp(middle), _MEDIAN_ERROR * deviation / sqrt(len(values)))
