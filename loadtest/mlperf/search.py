"""The highest rate that is valid, by bisection. Pure: what a try does is the caller's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from loadtest.mlperf.report import Report

_CLOSE = 1.03
"""Two rates this near are one."""
_STEP_BACK = 0.95

_FEWEST_IN_FLIGHT = 16
_FEWER = 4

Attempt = Callable[[float], Report]


@dataclass(frozen=True)
class Found:
    """How a search ended."""

    final: Report
    """Of the confirming run, or of the lowest rate that was tried where none was sustained."""
    generator_limited: bool
    """Whether a higher rate failed for want of generator, not of server."""


def search(attempt: Attempt, confirm: Attempt, ceiling: float, tries: int, confirmations: int) -> Found:
    """Looks below `ceiling` requests per second in `tries` runs, and confirms what it found with a longer run.

    A run whose queries are too few counts as far as it goes; the confirming run must be valid in full. Where it is not,
    a lower rate is confirmed, `confirmations` times at most.
    """
    reports = list(_bisect(attempt, ceiling, tries))
    sustained = [report.rate for report in reports if report.sustained]
    if not sustained:
        return Found(reports[-1], any(report.generator_limited for report in reports))
    rate = max(sustained)
    limited = any(report.generator_limited for report in reports if report.rate > rate)
    for _ in range(confirmations):
        final = confirm(rate)
        if final.sustained:
            break
        rate *= _STEP_BACK
    return Found(final, limited)


def within_capacity(attempt: Callable[[int], Report], in_flight: int) -> Report:
    """An offline run with as many requests under way, from `in_flight` down, as the server takes without refusing any.

    What it answers while it refuses the rest says little of what it could: refusals cost it time and end the run.
    """
    report = attempt(in_flight)
    while in_flight > _FEWEST_IN_FLIGHT and (report.refused or not report.achieved):
        in_flight = max(_FEWEST_IN_FLIGHT, in_flight // _FEWER)
        report = attempt(in_flight)
    return report


def _bisect(attempt: Attempt, ceiling: float, tries: int) -> Iterator[Report]:
    low, high = 0.0, 2 * ceiling  # so that the first is the ceiling
    for _ in range(tries):
        report = attempt((low + high) / 2)
        yield report
        if report.sustained:
            low = report.rate
        else:
            high = min(report.rate, high)
        if high <= low * _CLOSE:
            return
