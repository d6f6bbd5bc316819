"""What load tests count, and the arithmetic on it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """What ModelStatistics has counted for a model, all versions together."""

    inferences: int
    """Rows: a request of n rows counts n."""
    executions: int
    """Batches."""
    successes: int
    """Requests."""
    failures: int
    """Requests."""

    def since(self, before: Counts) -> Counts:
        """What was counted between `before` and now."""
        return Counts(
            self.inferences - before.inferences,
            self.executions - before.executions,
            self.successes - before.successes,
            self.failures - before.failures,
        )

    @property
    def average_batch(self) -> float:
        """Rows per batch; 0 where nothing ran."""
        return self.inferences / self.executions if self.executions else 0.0


def percentile(latencies_ms: Mapping[float, int], share: float) -> float:
    """The smallest latency that `share` of the requests did not exceed; infinite where there was no request."""
    wanted = share * sum(latencies_ms.values())
    seen = 0
    for latency in sorted(latencies_ms):
        seen += latencies_ms[latency]
        if seen >= wanted:
            return latency
    return float("inf")
