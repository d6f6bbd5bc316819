"""The four scenarios, each a run and its report."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from loadtest.errors import LoadTestError
from loadtest.mlperf.report import (
    MULTI_STREAM_SHARE,
    SINGLE_STREAM_SHARE,
    Bounds,
    Report,
    judge_offline,
    judge_server,
    judge_stream,
)
from loadtest.mlperf.subject import Subject
from loadtest.open_loop import Outcome, at_once, constant, play_apart, play_queries_apart, poisson, processes_for

MULTI_STREAM_SAMPLES = 8
OFFLINE_SAMPLES = 24_576
DISTRIBUTIONS = ("poisson", "constant")
_LEAST_PATIENCE = 2.0
_PATIENCE = 3.0
"""Times the bound."""
_STREAM_PATIENCE = 60.0


@dataclass(frozen=True)
class Settings:
    """What all scenarios are told."""

    seconds: float
    bounds: Bounds
    distribution: str = "poisson"
    seed: int = 1
    processes: int | None = None
    """None: as many as the rate demands."""
    in_flight: int | None = None
    """None: as many as the connections and the memory allow."""
    samples: int = OFFLINE_SAMPLES


def single_stream(subject: Subject, settings: Settings) -> Report:
    """The next query as soon as the last is answered."""
    return _stream("single-stream", subject, settings, samples=1, share=SINGLE_STREAM_SHARE)


def multi_stream(subject: Subject, settings: Settings) -> Report:
    """The same with queries of eight samples, a request each."""
    return _stream("multi-stream", subject, settings, samples=MULTI_STREAM_SAMPLES, share=MULTI_STREAM_SHARE)


def offline(subject: Subject, settings: Settings) -> Report:
    """All samples in one query: as many requests under way as may be. What is not answered in time is given up."""
    before = subject.successes()
    outcome = play_apart(
        subject.traffic,
        at_once(settings.samples),
        seconds=0.0,
        patience=settings.seconds,
        in_flight=settings.in_flight or subject.most_in_flight,
        processes=settings.processes or 1,
    )
    return _counted(judge_offline(outcome), outcome, subject, before)


def server(subject: Subject, settings: Settings, rate: float) -> Report:
    """Requests at `rate` per second, whatever becomes of those before."""
    before = subject.successes()
    if settings.distribution == "constant":
        due = constant(rate, settings.seconds)
    else:
        due = poisson(rate, settings.seconds, settings.seed)
    if not due.size:
        raise LoadTestError(f"nothing arrives in {settings.seconds:g} s at {rate:g} requests/s: use more --seconds")
    outcome = play_apart(
        subject.traffic,
        due,
        seconds=settings.seconds,
        patience=max(_LEAST_PATIENCE, _PATIENCE * settings.bounds.p99_ms / 1e3),
        in_flight=settings.in_flight or subject.most_in_flight,
        processes=settings.processes or processes_for(rate),
    )
    return _counted(judge_server(outcome, rate, settings.bounds), outcome, subject, before)


def _stream(scenario: str, subject: Subject, settings: Settings, samples: int, share: float) -> Report:
    before = subject.successes()
    outcome = play_queries_apart(subject.traffic, seconds=settings.seconds, patience=_STREAM_PATIENCE, samples=samples)
    return _counted(judge_stream(scenario, outcome, samples, share), outcome, subject, before)


def _counted(report: Report, outcome: Outcome, subject: Subject, before: int | None) -> Report:
    """A server that has counted fewer successes than there were answers has answered something else."""
    after = subject.successes()
    if before is None or after is None:
        return report
    answered, counted = int(np.count_nonzero(outcome.answered)), after - before
    if counted >= answered:
        return report
    return replace(report, faults=(*report.faults, f"{answered} answers, but the server counted {counted} successes"))
