"""Quantiles of what the last minute brought, for whoever cannot take them from histograms. Pure: time is an argument.

Values are counted in buckets that grow by 2 %, so that a quantile is right to 1 %. The minute is made of slices, and
the oldest goes when a new one begins, as in Prometheus's own libraries.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, nan
from typing import NamedTuple

from server.statistics import BatchTimes

SLICES = 5
SLICE_SECONDS = 12.0

_PER_UNIT = 1 / log(1.02)
"""Buckets for each e-fold."""


Slices = Sequence[dict[int, int]]
"""Counts by bucket, of a slice of time each."""


def bucket_of(value_us: float) -> int:
    """The bucket that a value counts in; what is below a microsecond counts as one."""
    return int(log(value_us) * _PER_UNIT) if value_us > 1 else 0


def count_within(slices: Slices, limit_us: float) -> int:
    """How many values do not exceed a limit, right to the width of its bucket."""
    last = bucket_of(limit_us)
    return sum([count for counts in slices for bucket, count in counts.items() if bucket <= last])


class Sketch:
    """Microseconds by bucket, slice by slice."""

    __slots__ = ("_counts", "_ends", "_past")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._past: list[dict[int, int]] = []
        self._ends = 0.0

    def observe(self, now: float, value_us: float, times: int = 1) -> None:
        """Count a value; what is below a microsecond counts as one."""
        if now >= self._ends:
            self._turn(now)
        bucket = bucket_of(value_us)
        counts = self._counts
        counts[bucket] = counts.get(bucket, 0) + times

    def copy(self, now: float) -> Slices:
        """What was counted within the last minute, slice by slice, for `quantiles`."""
        if now >= self._ends:
            self._turn(now)
        return [*self._past, self._counts.copy()]

    def _turn(self, now: float) -> None:
        """Begin the slice that `now` is in, and forget what is too old."""
        passed = int((now - self._ends) / SLICE_SECONDS) + 1 if self._ends else SLICES
        kept = [*self._past, self._counts, *[{}] * (min(passed, SLICES) - 1)]
        self._past = kept[-(SLICES - 1) :]
        self._counts = {}
        self._ends = now + SLICE_SECONDS if passed >= SLICES else self._ends + passed * SLICE_SECONDS


def quantiles(slices: Slices, shares: Sequence[float]) -> list[float]:
    """The values that these shares of all do not exceed; NaN where there are none."""
    merged: dict[int, int] = {}
    for counts in slices:
        for bucket, count in counts.items():
            merged[bucket] = merged.get(bucket, 0) + count
    total = sum(merged.values())
    if not total:
        return [nan] * len(shares)
    found: list[float] = []
    buckets = sorted(merged)
    for share in shares:
        missing = share * total
        at = buckets[-1]
        for bucket in buckets:
            missing -= merged[bucket]
            if missing <= 0:
                at = bucket
                break
        found.append(exp((at + 0.5) / _PER_UNIT))
    return found


class SummarySlices(NamedTuple):
    """Copies of the sketches of one version."""

    request: Slices
    queue: Slices
    compute_input: Slices
    compute_infer: Slices
    compute_output: Slices


class LatencySummaries:
    """The sketches of one version. `now` is the same clock's everywhere, seconds."""

    __slots__ = SummarySlices._fields

    def __init__(self) -> None:
        self.request = Sketch()
        self.queue = Sketch()
        self.compute_input = Sketch()
        self.compute_infer = Sketch()
        self.compute_output = Sketch()

    def record_request(self, now: float, queue_ns: int, request_ns: int) -> None:
        """Count one answered request."""
        self.queue.observe(now, queue_ns / 1000)
        self.request.observe(now, request_ns / 1000)

    def record_batch(self, now: float, times: BatchTimes, requests: int) -> None:
        """Count the phases of a batch for each of its requests."""
        self.compute_input.observe(now, (times.input_end - times.start) / 1000, requests)
        self.compute_infer.observe(now, (times.infer_end - times.input_end) / 1000, requests)
        self.compute_output.observe(now, (times.output_end - times.infer_end) / 1000, requests)

    def copy(self, now: float) -> SummarySlices:
        return SummarySlices(*(getattr(self, name).copy(now) for name in self.__slots__))
