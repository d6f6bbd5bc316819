"""How to keep a latency objective, decided from measured costs. Pure: numbers in, numbers out; no clock, no queue.

The objective bounds a request's time from arrival to answer. Nothing else is configured: batch sizes, waiting and
refusals follow from the cost table and from the rate of arrivals.

- *The batch to aim at* is the size with the most rows per second among those that leave a request time to wait for
  half a batch and to run in the next (after Nexus, SOSP 2019, which waits for a whole one).
- *Admission* refuses at once what cannot be answered in time behind the work that is already accepted (Clockwork, OSDI
  2020). Work ahead counts with medians, the request's own batch with the 99th percentile; with the median where it
  begins at once.
- *Deferred dispatch* (Symphony, arXiv 2308.07470) holds a batch back while one more row still fits before the earliest
  due time and is expected soon enough to raise the rows per second of the lane, its idle time included.
- *Early drop* (Nexus) gives up accepted requests that can no longer be answered in time, and those whose short time
  would make the next batch so small that more of the others would be late.
- *The guard* (AIMD, as Clipper's, NSDI 2017) shrinks the share of the objective that admission plans with where
  promises are broken in spite of the predictions, and lets it grow again.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from math import inf

from server.scheduling.costs import CostTable
from server.scheduling.policy import QueueBounds

EXPECTED_WAIT = 0.5
"""Of a running batch, for a request that arrives meanwhile. Who comes sooner may be refused; that costs less than the
smaller batches that would let everybody in (docs/performance.md)."""

LATE_SHARE = 0.005
"""Broken promises that the guard settles at: half of what a 99th percentile allows."""
CUT = 0.1
"""By how much one broken promise shrinks the plannable share of the objective."""
DEEPEST_CUT = 0.25
"""The most that promises which were broken together take away."""
LEAST_SHARE, MOST_SHARE = 0.5, 1.5
"""Predictions with the 99th percentile are cautious: above 1, the guard has found how much."""


@dataclass(frozen=True, slots=True)
class SloPolicy(QueueBounds):
    """One queue's objective."""

    objective: float = field(kw_only=True)
    """Seconds from arrival to answer."""

    def __post_init__(self) -> None:
        QueueBounds.__post_init__(self)  # no super(): a dataclass with slots is a second class of this name
        if not 0 < self.objective < inf:
            raise ValueError(f"the objective must be a positive number of seconds, not {self.objective}")


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The batch to aim at, with predictions for every size up to it, by number of rows (0 costs nothing)."""

    rows: int
    seconds: float
    """What it typically takes."""
    typical: tuple[float, ...]
    worst: tuple[float, ...]
    slowest: float
    """The longest of `worst`; a smaller batch may have it."""

    def patience(self, rows: int) -> float:
        """How long one may wait for one more row: beyond this, running `rows` now gives more rows per second.

        (r+1) / (cost(r+1) + gap) > r / cost(r), solved for the gap. For costs a+b·r this is a/r: batches grow
        only where the fixed part of a run is worth it, and only while arrivals outrun what single rows could serve.
        """
        return (rows + 1) * self.typical[rows] / rows - self.typical[rows + 1] if rows < self.rows else 0.0


def make_plan(costs: CostTable, max_rows: int, objective: float) -> BatchPlan:
    """The plan for a calibrated table; single rows where not even they leave time to wait."""

    def longest(rows: int) -> float:
        return EXPECTED_WAIT * costs.typical(rows) + costs.worst(rows)

    # One bucket that remembers a stall must not hide the larger ones: nobody would measure it again.
    sizes = [size for size in costs.sizes if size <= max_rows]
    fitting = [size for size in sizes if longest(size) <= objective]
    largest = max(fitting, default=1)
    # Between two buckets costs are a straight line, so that no size there is the best but the last that fits.
    above = range(largest + 1, min([*(size for size in sizes if size > largest), max_rows]) + 1)
    candidates = [*fitting, largest + bisect_right(above, objective, key=longest)]
    rows = max(candidates, key=lambda size: size / costs.typical(size))
    worst = (0.0, *(costs.worst(count) for count in range(1, rows + 1)))
    return BatchPlan(
        rows,
        seconds=costs.typical(rows),
        typical=(0.0, *(costs.typical(count) for count in range(1, rows + 1))),
        worst=worst,
        slowest=max(worst),
    )


class Guard:
    """The share of the time until a request is due that admission may plan with."""

    __slots__ = ("share",)

    def __init__(self) -> None:
        self.share = 1.0

    def observe(self, settled: int, late: int) -> None:
        """So many promises have been settled together, so many of them broken: answered late, or dropped."""
        if late:
            self.share = max(LEAST_SHARE, self.share * (1 - min(DEEPEST_CUT, CUT * late)))
        self.share = min(MOST_SHARE, self.share + CUT * LATE_SHARE * (settled - late))
