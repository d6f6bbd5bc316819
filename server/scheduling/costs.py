"""What batches cost: seconds by batch size, as measured. Pure: seconds come in, predictions go out.

The table has one line per bucket, the sizes that a model is measured at before it serves: 1, 2, 4, … and the largest.
Each keeps its last `WINDOW` runs, so that a lasting change shows after some dozens of runs, and a single stall moves
neither prediction. A batch between two buckets is predicted on the line between them, and counts for the larger one;
where batches are filled up, it takes as long as the larger one.

What was measured before the first request, on made-up inputs, is forgotten once a bucket has seen `ENOUGH` batches of
real ones: a model whose work depends on its data may take any time on zeros.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Sequence
from math import ceil, inf
from typing import NamedTuple

WINDOW = 128
"""Runs that a bucket remembers. The second slowest of them is the 99th percentile."""

ENOUGH = 8
"""Batches of requests after which a bucket needs no profile any more."""


class Cost(NamedTuple):
    """One line of the table."""

    rows: int
    typical_seconds: float
    """Median."""
    worst_seconds: float
    """99th percentile."""
    runs: int
    """Runs that the two are taken from."""


class _Bucket:
    __slots__ = ("latest", "profile", "sorted")

    def __init__(self) -> None:
        self.latest: deque[float] = deque()
        self.sorted: list[float] = []
        """`latest`, ascending."""
        self.profile: list[float] = []
        """Runs before the first request; [] once there are enough others."""

    def add(self, seconds: float) -> None:
        if len(self.latest) == WINDOW:
            oldest = self.latest.popleft()
            del self.sorted[bisect_left(self.sorted, oldest)]
        self.latest.append(seconds)
        insort(self.sorted, seconds)
        if self.profile and len(self.latest) >= ENOUGH:
            self.profile = []

    def copy(self) -> _Bucket:
        other = _Bucket()
        other.latest, other.sorted, other.profile = self.latest, self.sorted.copy(), self.profile.copy()
        return other

    def quantile(self, share: float, profiled: bool = True) -> float:
        """The smallest value that at least this share of the runs do not exceed; inf where there is none.

        Without the profile, also inf where there are not enough others.
        """
        if not profiled and len(self.sorted) < ENOUGH:
            return inf
        runs = sorted(self.sorted + self.profile) if self.profile else self.sorted
        return runs[ceil(share * len(runs)) - 1] if runs else inf


class CostTable:
    """Seconds that a batch of so many rows takes."""

    __slots__ = ("_buckets", "fills", "sizes")

    def __init__(self, sizes: Sequence[int], fills: bool = False) -> None:
        """`fills` tells that batches are filled up to the next size, so that only these ever run."""
        if not sizes or sorted(set(sizes)) != list(sizes) or sizes[0] < 1:
            raise ValueError(f"buckets must be ascending sizes of at least 1, not {sizes}")
        self.sizes = tuple(sizes)
        self.fills = fills
        self._buckets = tuple(_Bucket() for _ in sizes)

    @property
    def fill_sizes(self) -> tuple[int, ...]:
        """The sizes that batches are filled up to; () where they run as they are."""
        return self.sizes if self.fills else ()

    @property
    def calibrated(self) -> bool:
        """Whether every bucket has been measured: no prediction before that is worth refusing anything for."""
        return all(bucket.sorted or bucket.profile for bucket in self._buckets)

    def profile(self, rows: int, seconds: float) -> None:
        """Count one run of a whole bucket on made-up inputs."""
        bucket = self._buckets[self.sizes.index(rows)]
        if len(bucket.latest) < ENOUGH:
            bucket.profile.append(seconds)

    def observe(self, rows: int, seconds: float) -> None:
        """Count one batch that ran."""
        i = bisect_left(self.sizes, rows)
        if i == len(self.sizes):
            return  # an opted-in exception to the largest batch says nothing about the sizes that are planned with
        size = self.sizes[i]
        if size != rows:
            expected = self.typical(rows)
            seconds *= self._buckets[i].quantile(0.5) / expected if expected < inf else size / rows
        self._buckets[i].add(seconds)

    def typical(self, rows: int) -> float:
        """The median for a batch of this size; inf where that is not known."""
        return self._predict(rows, 0.5)

    def worst(self, rows: int) -> float:
        """The 99th percentile for a batch of this size; inf where that is not known."""
        return self._predict(rows, 0.99)

    def typical_served(self, rows: int) -> float:
        """As `typical`, by what batches of requests took alone; inf before enough of them have run."""
        return self._predict(rows, 0.5, profiled=False)

    def worst_served(self, rows: int) -> float:
        """As `worst`, by what batches of requests took alone; inf before enough of them have run."""
        return self._predict(rows, 0.99, profiled=False)

    def copy(self) -> CostTable:
        """The same lines, for a reader on another thread. It observes nothing more."""
        other = CostTable(self.sizes, self.fills)
        other._buckets = tuple([bucket.copy() for bucket in self._buckets])
        return other

    def lines(self) -> Iterable[Cost]:
        """Every bucket that has been measured."""
        for size, bucket in zip(self.sizes, self._buckets, strict=True):
            runs = len(bucket.sorted) + len(bucket.profile)
            if runs:
                yield Cost(size, bucket.quantile(0.5), bucket.quantile(0.99), runs)

    def _predict(self, rows: int, share: float, profiled: bool = True) -> float:
        sizes = self.sizes
        i = bisect_left(sizes, rows)
        if i == len(sizes):
            return inf
        above = self._buckets[i].quantile(share, profiled)
        if sizes[i] == rows or self.fills or above == inf:
            return above
        below = self._buckets[i - 1].quantile(share, profiled) if i else inf
        if below == inf:
            return inf
        return below + (above - below) * (rows - sizes[i - 1]) / (sizes[i] - sizes[i - 1])


def bucket_sizes(max_rows: int) -> tuple[int, ...]:
    """1, 2, 4, … and `max_rows`."""
    powers = [1 << exponent for exponent in range(max_rows.bit_length())]
    return tuple(dict.fromkeys([*powers, max_rows]))


def bucket_below(sizes: Sequence[int], rows: int) -> int:
    """The largest bucket that is smaller than `rows`; the smallest one where none is."""
    return sizes[max(0, bisect_left(sizes, rows) - 1)]
