"""What may be tried next to a candidate. Pure.

A batch axis that the model does not have, batches larger than what is in flight, and more threads than cores cannot
help, and are not tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, floor, log10

from loadtest.tune.candidates import Alone, Axis, Batching, Candidate, Objective, Window

LARGEST_BATCH = 256
"""Tried for arrivals at a rate, of which any number may be in flight."""
DELAYS = (0.1, 0.25, 0.5)
"""Of the window, as shares of the time that a request may take."""
OBJECTIVES = (0.9, 0.7)
"""As shares of the p99 that is allowed: `slo_ms` bounds the server's time, and the way there and back comes on top."""


@dataclass(frozen=True)
class Space:
    """The bounds of what is tried."""

    cores: int
    """That the server may use."""
    rows: int
    """Of a request."""
    in_flight: int | None
    """Requests; None for arrivals at a rate."""
    p99_ms: float | None
    """What is allowed, if anything is."""
    fixed: frozenset[Axis] = frozenset()
    """What stays as it is."""

    def axes(self, candidate: Candidate) -> list[Axis]:
        """What can be changed at all, in the order in which to go about it."""
        batches = () if candidate.max_batch_size == 0 else (Axis.MAX_BATCH_SIZE, Axis.BATCHING, Axis.PADDING)
        return [axis for axis in (Axis.LANES, *batches) if axis not in self.fixed]

    def neighbours(self, axis: Axis, candidate: Candidate, typical_ms: float) -> list[Candidate]:
        """What is one step away along `axis`, without `candidate` itself.

        `typical_ms` is its median latency: where no p99 is asked for, delays are shares of it.
        """
        match axis:
            case Axis.LANES:
                steps = list(self._lanes(candidate))
            case Axis.MAX_BATCH_SIZE:
                steps = list(self._batch_sizes(candidate))
            case Axis.BATCHING:
                steps = [replace(candidate, batching=one) for one in self._batchings(candidate, typical_ms)]
            case Axis.PADDING:
                steps = [replace(candidate, pad_to_bucket=not candidate.pad_to_bucket)]
        return [step for step in dict.fromkeys(steps) if step != candidate]

    def _lanes(self, candidate: Candidate) -> Iterator[Candidate]:
        """Twice and half of either number, and of one at the cost of the other. The server's own default stays one."""
        instances, threads = candidate.instances, candidate.threads or self._default_threads(candidate.instances)
        for more, wider in ((2, 0.5), (0.5, 2), (1, 2), (1, 0.5), (2, 1), (0.5, 1)):
            count, width = instances * more, threads * wider
            if not (1 <= count <= self.cores and 1 <= width <= self.cores):
                continue
            by_default = candidate.threads is None and floor(width) == self._default_threads(floor(count))
            yield replace(candidate, instances=floor(count), threads=None if by_default else floor(width))

    def _default_threads(self, instances: int) -> int:
        return max(1, self.cores // instances)

    def _batch_sizes(self, candidate: Candidate) -> Iterator[Candidate]:
        most = LARGEST_BATCH if self.in_flight is None else _power_of_two(self.in_flight * self.rows)
        larger = _power_of_two(candidate.max_batch_size + 1)
        smaller = min(most, _power_of_two(candidate.max_batch_size) // 2)
        yield from (replace(candidate, max_batch_size=size) for size in (larger, smaller) if self.rows <= size <= most)

    def _batchings(self, candidate: Candidate, typical_ms: float) -> Iterator[Batching]:
        yield Window()
        whole_us = (self.p99_ms or typical_ms) * 1e3
        delays = [_two_digits(share * whole_us) for share in DELAYS]
        yield from (Window(delay) for delay in delays)
        size = self._gathered(candidate)
        if 1 < size < candidate.max_batch_size:
            yield Window(delays[-1], (size,))
        if self.p99_ms is not None:
            yield from (Objective(float(f"{share * self.p99_ms:.3g}")) for share in OBJECTIVES)
        if isinstance(candidate.batching, Alone):
            yield candidate.batching

    def _gathered(self, candidate: Candidate) -> int:
        """Rows of a batch that all instances get at once: a preferred size that is worth a delay."""
        if self.in_flight is None:
            return candidate.max_batch_size // 2
        return ceil(self.in_flight / candidate.instances) * self.rows


def _power_of_two(least: int) -> int:
    """The smallest that is not below `least`."""
    return 1 << max(0, least - 1).bit_length()


def _two_digits(microseconds: float) -> int:
    """Rounded, and at least 1."""
    digits = 1 - floor(log10(max(1.0, microseconds)))
    return max(1, int(round(microseconds, digits)))
