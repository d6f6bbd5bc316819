"""What a version does now, for somebody who watches: its last batches, and figures of the last seconds. Pure: time is
an argument.

Nothing of it is kept while nobody watches: `statistics.observer` is an `Observation` for as long as somebody asks.
What is kept is bounded: `MOST_BATCHES` batches, and latencies by bucket in a few slices of time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from server.errors import Reason
from server.statistics import BatchTimes, VersionStatistics
from server.summaries import bucket_of, count_within, quantiles

SLICE_SECONDS = 0.5
WINDOW_SECONDS = 3.0
"""How far the figures reach back, and up to a slice more."""
MOST_BATCHES = 4096
"""Batches that are remembered: a second's worth of the quickest models."""


class ObservedBatch(NamedTuple):
    """One batch that ran. Microseconds."""

    started_us: int
    """Of the monotonic clock."""
    rows: int
    requests: int
    duration_us: int
    """From when its requests left the queue until their answers were there."""
    queue_delay_us: int
    """What the request waited that waited longest."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the last `seconds` brought, per second."""

    seconds: float
    answered: float
    in_time: float | None
    """Of requests in batches, those that were answered within the objective; None without one."""
    failed: Mapping[Reason, float]
    """Refused and failed, by reason; reasons that came up."""
    p50_us: float
    """Latency from arrival to answer, of requests in batches; NaN where there was none. p99 likewise."""
    p99_us: float


@dataclass(slots=True)
class _Slice:
    began: float
    answered: int
    """Of the version's statistics, as it began. Failures likewise."""
    failures: Mapping[Reason, int]
    latencies: dict[int, int] = field(default_factory=dict)
    """Requests by bucket."""


class Observation:
    """Follows one version. `now` is the same clock's everywhere, seconds."""

    __slots__ = ("_batches", "_ran", "_slices", "_statistics", "asked")

    def __init__(self, statistics: VersionStatistics, now: float) -> None:
        self.asked = now
        """When somebody last wanted to know."""
        self._statistics = statistics
        self._batches: deque[ObservedBatch] = deque(maxlen=MOST_BATCHES)
        self._ran = 0
        self._slices: deque[_Slice] = deque()
        self._turn(now)

    @property
    def ran(self) -> int:
        """Batches so far: where whoever has seen all of them goes on."""
        return self._ran

    def record_batch(self, now: float, times: BatchTimes, rows: int, arrivals: Sequence[float]) -> None:
        """See `BatchObserver`."""
        if now >= self._slices[-1].began + SLICE_SECONDS:
            self._turn(now)
        latencies = self._slices[-1].latencies
        for arrived in arrivals:
            bucket = bucket_of((now - arrived) * 1e6)
            latencies[bucket] = latencies.get(bucket, 0) + 1
        started_us = times.start // 1000
        delay_us = max(0, started_us - round(min(arrivals) * 1e6))
        duration_us = (times.output_end - times.start) // 1000
        self._batches.append(ObservedBatch(started_us, rows, len(arrivals), duration_us, delay_us))
        self._ran += 1

    def since(self, seen: int) -> Sequence[ObservedBatch]:
        """The batches after the first `seen` ones, as far as they are remembered."""
        new = min(max(0, self._ran - seen), len(self._batches))
        return [self._batches[i] for i in range(len(self._batches) - new, len(self._batches))]

    def figures(self, now: float, objective_us: float | None) -> Figures:
        """What the last seconds brought."""
        if now >= self._slices[-1].began + SLICE_SECONDS:
            self._turn(now)
        oldest = self._slices[0]
        seconds = now - oldest.began
        per_second = 1 / seconds if seconds else 0.0
        counts = [each.latencies for each in self._slices]
        p50, p99 = quantiles(counts, (0.5, 0.99))
        statistics = self._statistics
        failed = {
            reason: (count - oldest.failures[reason]) * per_second
            for reason, count in statistics.failures.items()
            if count > oldest.failures[reason]
        }
        return Figures(
            seconds,
            (statistics.success.count - oldest.answered) * per_second,
            None if objective_us is None else count_within(counts, objective_us) * per_second,
            failed,
            p50,
            p99,
        )

    def _turn(self, now: float) -> None:
        """Begin a slice, and forget those that ended too long ago."""
        slices, statistics = self._slices, self._statistics
        slices.append(_Slice(now, statistics.success.count, dict(statistics.failures)))
        while len(slices) > 1 and slices[1].began <= now - WINDOW_SECONDS:
            slices.popleft()
