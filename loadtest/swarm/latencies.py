"""Latencies in microseconds, in HDR histograms: three significant digits from 1 µs to an hour, whatever their number.

Locust keeps whole milliseconds below 100 ms and two digits above. Pure: no clock, no gevent, no Locust.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

from loadtest.figures import percentile

HIGHEST_US = 3_600_000_000
SIGNIFICANT_DIGITS = 3
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)

Kind = tuple[str, str]
"""Locust's name for what is asked: (type, name), as ("grpc", "ModelInfer lenet5")."""


class Tally:
    """How long answers took, and how many requests failed.

    A failure has no latency here, other than in Locust's table: a server that refuses at once would look fast.
    """

    def __init__(self) -> None:
        self.histogram = HdrHistogram(1, HIGHEST_US, SIGNIFICANT_DIGITS)
        self.failures = 0

    @property
    def answers(self) -> int:
        count: int = self.histogram.get_total_count()
        return count

    @property
    def requests(self) -> int:
        return self.answers + self.failures

    @property
    def error_rate(self) -> float:
        """Failures ÷ requests; 1 where there was no request."""
        return self.failures / self.requests if self.requests else 1.0

    def record(self, latency_ms: float, *, failed: bool) -> None:
        """One request. What took over an hour counts as an hour."""
        if failed:
            self.failures += 1
        else:
            self.histogram.record_value(min(round(latency_ms * 1e3), HIGHEST_US))

    def add(self, other: Tally) -> None:
        self.histogram.add(other.histogram)
        self.failures += other.failures

    def latencies_ms(self) -> dict[float, int]:
        """How many answers took that long, ascending; each latency is the longest that its bucket stands for."""
        histogram = self.histogram
        counts = np.frombuffer(histogram.counts, np.uint64)
        indices = np.flatnonzero(counts).tolist()
        return {
            histogram.get_highest_equivalent_value(histogram.get_value_from_index(index)) / 1e3: int(counts[index])
            for index in indices
        }

    def percentile_ms(self, percent: float) -> float:
        """The smallest latency that `percent` of the answers did not exceed; infinite where there was no answer."""
        return percentile(self.latencies_ms(), percent / 100)

    def as_message(self) -> dict[str, Any]:
        """For another process, and for files: the histogram in its V2 compressed form, in base64."""
        encoded: bytes = self.histogram.encode()
        return {"histogram": encoded.decode("ascii"), "failures": self.failures}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Tally:
        """What `as_message` said."""
        tally = cls()
        tally.histogram.decode_and_add(message["histogram"].encode("ascii"))
        tally.failures = message["failures"]
        return tally


def summary(tally: Tally) -> dict[str, float | None]:
    """Counts, and latencies of the answers in milliseconds with three decimals; None where there was no answer."""
    latencies = tally.latencies_ms()
    total_ms = sum(latency * count for latency, count in latencies.items())
    return {
        "requests": tally.requests,
        "failures": tally.failures,
        "min_ms": min(latencies, default=None),
        "mean_ms": round(total_ms / tally.answers, 3) if latencies else None,
        **{
            percentile_name(percent): percentile(latencies, percent / 100) if latencies else None
            for percent in PERCENTILES
        },
        "max_ms": max(latencies, default=None),
    }


def percentile_name(percent: float) -> str:
    """99.9 → "p99.9_ms"."""
    return f"p{percent:g}_ms"


def total(tallies: Mapping[Kind, Tally]) -> Tally:
    """All kinds together."""
    together = Tally()
    for tally in tallies.values():
        together.add(tally)
    return together
