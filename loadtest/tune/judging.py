"""Which of two candidates is better, and when the difference is noise. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from statistics import median

from loadtest.tune.candidates import Candidate

LEAST_MARGIN = 0.03
"""A smaller difference is not worth a change, however sure it is."""


class Goal(StrEnum):
    """What is to be best."""

    THROUGHPUT = "throughput"
    """Rows answered per second: the most."""
    LATENCY = "latency"
    """The 99th percentile: the least."""
    CPU = "cpu"
    """Processor time of the server per request: the least."""


@dataclass(frozen=True)
class Measurement:
    """What one volley at a served candidate showed."""

    rows_per_second: float
    """Answered; of arrivals at a rate with a p99 allowed, within that time."""
    p50_ms: float
    p99_ms: float
    refused_share: float
    """Of the requests: refused, failed, or given up."""
    average_batch: float
    cpu_us_per_request: float | None
    """None where the server's process cannot be seen."""
    peak_rss_mib: float | None
    generator_late_ms: float = 0.0
    """The 99th percentile of how late arrivals at a rate were sent: a part of `p99_ms` that is not the server's."""


@dataclass(frozen=True)
class Failure:
    """A candidate that could not be served, or measured."""

    reason: str


@dataclass(frozen=True)
class Trial:
    """A candidate, and what came of it: one measurement at least, or a failure."""

    candidate: Candidate
    rounds: tuple[Measurement, ...] = ()
    failure: Failure | None = None

    def middle(self) -> Measurement:
        """The medians of all rounds, each figure by itself."""
        return Measurement(
            rows_per_second=median(one.rows_per_second for one in self.rounds),
            p50_ms=median(one.p50_ms for one in self.rounds),
            p99_ms=median(one.p99_ms for one in self.rounds),
            refused_share=median(one.refused_share for one in self.rounds),
            average_batch=median(one.average_batch for one in self.rounds),
            cpu_us_per_request=_median_if_known([one.cpu_us_per_request for one in self.rounds]),
            peak_rss_mib=_median_if_known([one.peak_rss_mib for one in self.rounds]),
            generator_late_ms=median(one.generator_late_ms for one in self.rounds),
        )


@dataclass(frozen=True)
class Aim:
    """What is asked for."""

    goal: Goal
    p99_ms: float | None = None
    """What is allowed."""
    refused_share: float = 0.0
    """What is allowed."""

    def broken(self, trial: Trial) -> str | None:
        """The limit that `trial` does not keep, in words."""
        if trial.failure is not None:
            return f"failed: {trial.failure.reason}"
        seen = trial.middle()
        if seen.refused_share > self.refused_share:
            return f"refuses {seen.refused_share:.1%}"
        if self.p99_ms is not None and seen.p99_ms > self.p99_ms:
            return f"p99 {seen.p99_ms:.3g} > {self.p99_ms:g} ms"
        return None

    def cost(self, measurement: Measurement) -> float:
        """What is to be as small as possible."""
        match self.goal:
            case Goal.THROUGHPUT:
                return 1 / measurement.rows_per_second if measurement.rows_per_second else inf
            case Goal.LATENCY:
                return measurement.p99_ms
            case Goal.CPU:
                return inf if measurement.cpu_us_per_request is None else measurement.cpu_us_per_request

    def gain(self, trial: Trial, over: Trial) -> float:
        """By what share `trial` is better than `over`; below 0 it is worse.

        One that keeps the limits is infinitely better than one that breaks them. Of two that break them, the one
        that refuses less is better, and then the one with the smaller p99.
        """
        if trial.failure is not None or over.failure is not None:
            return -inf if trial.failure is not None else inf
        if (self.broken(trial) is None) != (self.broken(over) is None):
            return inf if self.broken(trial) is None else -inf
        figure = self._compared(trial, over)
        return _ratio(figure(over.middle()), figure(trial.middle())) - 1

    def spread(self, trial: Trial) -> float:
        """From the best to the worst of the rounds, as a share of their median; 0 for a single one."""
        return _spread([self.cost(one) for one in trial.rounds])

    def margin(self, trial: Trial, over: Trial) -> float:
        """What a gain must exceed to be more than noise.

        Equally many rounds were measured in turns: what a slow minute does to both is no noise, and what counts is the
        spread of their ratio from round to round.
        """
        figure = self._compared(trial, over)
        if trial is not over and len(trial.rounds) == len(over.rounds) > 1:
            pairs = zip(trial.rounds, over.rounds, strict=True)
            spread = _spread([_ratio(figure(one), figure(other)) for one, other in pairs])
        else:
            spread = max(_spread([figure(one) for one in each.rounds]) for each in (trial, over))
        return max(LEAST_MARGIN, spread)

    def _compared(self, trial: Trial, over: Trial) -> Callable[[Measurement], float]:
        """The figure by which the two differ; the smaller, the better."""
        if self.broken(trial) is None or self.broken(over) is None:
            return self.cost
        if max(trial.middle().refused_share, over.middle().refused_share) > self.refused_share:
            return lambda one: one.refused_share
        return lambda one: one.p99_ms


@dataclass(frozen=True)
class Choice:
    """What comes out in the end."""

    trial: Trial
    best: Trial
    """The best by its median. Not chosen where a simpler one is as good within the noise."""
    keeps_limits: bool


def choose(trials: Sequence[Trial], present: Candidate, aim: Aim) -> Choice:
    """The simplest of those that are as good as the best within the noise. At least one trial did not fail.

    Simplest is the present candidate, then what changes the fewest of its settings, then what has the fewest parts.
    Where the present one is worse than the best, what cannot be told from it is not chosen either.
    """
    best = best_of(trials, aim)
    keeps = aim.broken(best) is None
    equals = [one for one in trials if one is best or (keeps and is_equal(one, best, aim))]
    known = next(one for one in trials if one.candidate == present)
    if known not in equals:
        equals = [one for one in equals if one is best or aim.gain(one, known) > aim.margin(one, known)]
    return Choice(min(equals, key=lambda one: complexity(one.candidate, present)), best, keeps)


def best_of(trials: Sequence[Trial], aim: Aim) -> Trial:
    """By the medians."""
    best = trials[0]
    for trial in trials[1:]:
        if aim.gain(trial, best) > 0:
            best = trial
    return best


def is_equal(trial: Trial, best: Trial, aim: Aim) -> bool:
    """Whether `trial` keeps the limits and is as good as `best` within the noise."""
    return aim.broken(trial) is None and aim.gain(best, trial) <= aim.margin(trial, best)


def complexity(candidate: Candidate, present: Candidate) -> tuple[int, ...]:
    """Ascending: the simpler, the smaller."""
    threads = candidate.threads or 0
    return (candidate.changes(present), candidate.instances, threads, candidate.max_batch_size)


def _ratio(one: float, other: float) -> float:
    if one == other:
        return 1.0
    return one / other if other else inf


def _spread(values: Sequence[float]) -> float:
    """Largest minus smallest, as a share of the median; 0 where one of them is endless."""
    if not values or inf in values:
        return 0.0
    middle = median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def _median_if_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
