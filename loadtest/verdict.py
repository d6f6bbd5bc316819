"""Figures against limits. Pure: `judge` maps an outcome to checks, each with its sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loadtest.figures import Counts, percentile


@dataclass(frozen=True)
class Limits:
    """What a load test promises."""

    p99_ms: float
    error_rate: float
    """Failed requests ÷ all requests."""


@dataclass(frozen=True)
class Outcome:
    """What a load test saw, from both ends."""

    requests: int
    failures: int
    """Requests without a right answer, refusals included."""
    seconds: float
    latencies_ms: Mapping[float, int]
    """How many requests took that long."""
    rows: int
    """Rows of each request."""
    counted: Counts
    """What the server counted meanwhile."""
    metric: float | None
    """What nv_inference_count rose by; None where the metrics' address is not known."""
    alone: bool
    """Whether nobody else used the server, so that its counts must equal ours."""

    @property
    def answered(self) -> int:
        return self.requests - self.failures

    @property
    def error_rate(self) -> float:
        return self.failures / self.requests if self.requests else 1.0


@dataclass(frozen=True)
class Check:
    """One limit, kept or not."""

    passed: bool
    text: str


def judge(outcome: Outcome, limits: Limits) -> list[Check]:
    """Every check that applies. The counts of a server that others use too prove nothing, and are not checked."""
    p99 = percentile(outcome.latencies_ms, 0.99)
    checks = [
        Check(
            outcome.error_rate <= limits.error_rate,
            f"error rate {outcome.error_rate:.2%}, allowed {limits.error_rate:.2%}",
        ),
        Check(p99 <= limits.p99_ms, f"p99 {p99:g} ms, allowed {limits.p99_ms:g} ms"),
    ]
    if outcome.alone:
        rows = outcome.answered * outcome.rows
        text = f"ModelStatistics counted {outcome.counted.inferences} inferences, {rows} were answered"
        checks.append(Check(outcome.counted.inferences == rows, text))
        if outcome.metric is not None:
            text = f"nv_inference_count rose by {outcome.metric:.0f}, {rows} were answered"
            checks.append(Check(outcome.metric == rows, text))
    return checks


def describe(outcome: Outcome) -> str:
    """The figures, a line each."""
    p50, p99 = (percentile(outcome.latencies_ms, share) for share in (0.5, 0.99))
    counted = outcome.counted
    rate = outcome.requests / outcome.seconds if outcome.seconds else 0.0
    return "\n".join(
        (
            f"requests       {outcome.requests} in {outcome.seconds:.1f} s ({rate:.0f}/s), {outcome.failures} failed",
            f"latency        p50 {p50:g} ms, p99 {p99:g} ms (client included, rounded as Locust does)",
            f"average batch  {counted.average_batch:.2f} ({counted.inferences} rows in {counted.executions} batches)",
        )
    )
