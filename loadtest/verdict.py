"""Figures against limits. Pure: `judge` maps an outcome to checks, each with its sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loadtest.figures import Counts

CLOSED_LOOP = (
    "Locust is a closed loop: a user sends its next request only after the last answer, so that a server that stalls "
    "is asked less, and few requests notice. What a latency is at a given rate: python -m loadtest mlperf server."
)


@dataclass(frozen=True)
class Limits:
    """What a load test promises."""

    p99_ms: float
    error_rate: float
    """Failed requests ÷ all requests."""


@dataclass(frozen=True)
class ModelOutcome:
    """What became of the requests to one model, from both ends."""

    model: str
    requests: int
    failures: int
    """Requests without a right answer, refusals included."""
    rows: int
    """Rows of each request."""
    counted: Counts
    """What the server counted meanwhile."""
    metric: float | None
    """What nv_inference_count rose by; None where the metrics' address is not known."""

    @property
    def answered_rows(self) -> int:
        return (self.requests - self.failures) * self.rows


@dataclass(frozen=True)
class Outcome:
    """What a load test saw."""

    models: tuple[ModelOutcome, ...]
    seconds: float
    percentiles: Mapping[str, float]
    """Latencies of the answers by their name, as "p99_ms"; from an HDR histogram, in microseconds' precision."""
    recorded: int
    """How many requests were counted with them, failures included."""
    rounded_p99_ms: float
    """Of Locust's own table, which has the failures in it."""
    busy: bool
    """Whether the load generator was short of CPU."""
    alone: bool
    """Whether nobody else used the server, so that its counts must equal ours."""

    @property
    def requests(self) -> int:
        return sum(model.requests for model in self.models)

    @property
    def failures(self) -> int:
        return sum(model.failures for model in self.models)

    @property
    def error_rate(self) -> float:
        return self.failures / self.requests if self.requests else 1.0


@dataclass(frozen=True)
class Check:
    """One limit, kept or not."""

    passed: bool
    text: str


def limit_checks(p99_ms: float, error_rate: float, limits: Limits) -> list[Check]:
    """The two promises, in words."""
    return [
        Check(error_rate <= limits.error_rate, f"error rate {error_rate:.2%}, allowed {limits.error_rate:.2%}"),
        Check(p99_ms <= limits.p99_ms, f"p99 {p99_ms:g} ms, allowed {limits.p99_ms:g} ms"),
    ]


def count_checks(outcome: Outcome) -> list[Check]:
    """Whether everybody counted the same. The counts of a server that others use too prove nothing."""
    text = f"{outcome.recorded} requests were recorded in microseconds, {outcome.requests} by Locust"
    checks = [Check(outcome.recorded == outcome.requests, text)]
    for model in outcome.models if outcome.alone else ():
        rows = model.answered_rows
        text = f"ModelStatistics counted {model.counted.inferences} inferences of {model.model}, {rows} were answered"
        checks.append(Check(model.counted.inferences == rows, text))
        if model.metric is not None:
            text = f"nv_inference_count of {model.model} rose by {model.metric:.0f}, {rows} were answered"
            checks.append(Check(model.metric == rows, text))
    return checks


def describe(outcome: Outcome) -> str:
    """The figures, a line each."""
    rate = outcome.requests / outcome.seconds if outcome.seconds else 0.0
    percentiles = ", ".join(f"{name.removesuffix('_ms')} {value:g}" for name, value in outcome.percentiles.items())
    lines = [
        f"requests       {outcome.requests} in {outcome.seconds:.1f} s ({rate:.0f}/s), {outcome.failures} failed",
        f"latency        {percentiles} ms (answers, client included; Locust's own p99: {outcome.rounded_p99_ms:g} ms)",
    ]
    for model in outcome.models:
        counted = model.counted
        text = f"{counted.average_batch:.2f} ({counted.inferences} rows in {counted.executions} batches)"
        lines.append(f"average batch  {text}, {model.model}")
    if outcome.busy:
        lines.append(
            "warning        Locust used over 90 % of a core: its own delays are in the latencies; try --workers"
        )
    return "\n".join(lines)
