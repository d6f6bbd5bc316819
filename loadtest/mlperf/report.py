"""What a run of a scenario showed, and whether it counts. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from loadtest.mlperf.early_stopping import estimate, queries_needed
from loadtest.open_loop import Outcome, quantile
from loadtest.open_loop.outcome import Floats

SERVER_SHARE = MULTI_STREAM_SHARE = 0.99
SINGLE_STREAM_SHARE = 0.90
_BUSY = 0.8
"""Of a core: a generator that used more was short of it."""


@dataclass(frozen=True)
class Bounds:
    """What a server run is held to."""

    p99_ms: float
    late_ms: float
    """The largest p99 of how late requests were sent."""


@dataclass(frozen=True)
class Report:
    """A run. Latencies of the server scenario count from the schedule, and failures as waited for until the end."""

    scenario: str
    rate: float
    """Requests per second that were offered; in a closed loop what came of it."""
    achieved: float
    """Answers per second."""
    p50_ms: float
    p90_ms: float
    p99_ms: float
    estimate_ms: float | None
    """The early-stopping estimate of the scenario's percentile; None where there are too few queries, and offline."""
    queries: int
    queries_needed: int
    failed: int
    """Requests without an answer: refused, lost, given up."""
    refused: int
    """Of these, those that the server, or its connection, ended: all but what was given up."""
    over: int
    """Queries beyond the bound; 0 in scenarios without one."""
    late_p99_ms: float
    held_back: int
    """Requests that were due while no more could be under way."""
    generator_cpu_us: float
    """Per request."""
    generator_cpu_share: float
    """Of a core: the busiest process's."""
    faults: tuple[str, ...]
    """Why it does not count, but for a lack of queries."""
    generator_limited: bool
    """Whether all that was wrong is that requests were sent late."""

    @property
    def valid(self) -> bool:
        return not self.faults and self.queries >= self.queries_needed

    @property
    def sustained(self) -> bool:
        """Valid, or would be if it went on like that."""
        return not self.faults

    @property
    def reason(self) -> str:
        """Why it is not valid; "" where it is."""
        if self.faults:
            return "; ".join(self.faults)
        return "" if self.valid else f"too few queries: {self.queries}, of which {self.queries_needed} are needed"

    def as_json(self) -> dict[str, object]:
        return {
            "scenario": self.scenario,
            "rate": round(self.rate, 3),
            "achieved": round(self.achieved, 3),
            "p50_ms": round(self.p50_ms, 4),
            "p90_ms": round(self.p90_ms, 4),
            "p99_ms": round(self.p99_ms, 4),
            "estimate_ms": None if self.estimate_ms is None else round(self.estimate_ms, 4),
            "valid": self.valid,
            "reason": self.reason,
            "queries": self.queries,
            "queries_needed": self.queries_needed,
            "failed": self.failed,
            "refused": self.refused,
            "over": self.over,
            "late_p99_ms": round(self.late_p99_ms, 4),
            "held_back": self.held_back,
            "generator_limited": self.generator_limited,
            "generator_cpu_us": round(self.generator_cpu_us, 2),
            "generator_cpu_share": round(self.generator_cpu_share, 3),
        }

    def line(self) -> str:
        """For people."""
        verdict = "VALID" if self.valid else f"INVALID: {self.reason}"
        return (
            f"{self.rate:,.1f}/s offered, {self.achieved:,.1f}/s answered, p50 {self.p50_ms:.3f} ms, "
            f"p99 {self.p99_ms:.3f} ms, generator {self.generator_cpu_us:.0f} µs a request: {verdict}"
        )


def judge_server(outcome: Outcome, rate: float, bounds: Bounds) -> Report:
    """Poisson arrivals, one sample a query: 99 % within the bound, sent on time, nothing held back."""
    waits_ms = np.sort(outcome.waits_ms)
    over = int(np.count_nonzero(~(waits_ms <= bounds.p99_ms)))
    late_ms = quantile(outcome.late_ms, 0.99)
    held_back = int(np.count_nonzero(outcome.held_back))
    faults = []
    if late_ms > bounds.late_ms:
        faults.append(_generator_fault(late_ms, bounds.late_ms, max(outcome.cpu_shares)))
    if held_back:
        faults.append(f"{held_back} requests were held back, since no more could be under way: concurrency is capped")
    if over > (1 - SERVER_SHARE) * len(waits_ms):
        failed = f", {outcome.refused} of them refused and {outcome.given_up} given up" if _failed(outcome) else ""
        faults.append(f"{over} of {len(waits_ms)} queries took longer than {bounds.p99_ms:g} ms{failed}")
    return replace(
        _measured("server", outcome, waits_ms, SERVER_SHARE, over),
        rate=rate,
        late_p99_ms=late_ms,
        held_back=held_back,
        faults=tuple(faults),
        generator_limited=late_ms > bounds.late_ms and len(faults) == 1,
    )


def judge_stream(scenario: str, outcome: Outcome, samples: int, share: float) -> Report:
    """Queries of so many samples, one after another: what counts is the early-stopping estimate of a percentile."""
    waits_ms = np.sort(outcome.waits_ms.reshape(-1, samples).max(axis=1))
    return replace(_measured(scenario, outcome, waits_ms, share, over=1), over=0, faults=_failures(outcome))


def judge_offline(outcome: Outcome) -> Report:
    """All samples at once: what counts is how many a second. Latencies are from sent to answered.

    What was not answered took as long as was waited for it.
    """
    last = float(outcome.ended[outcome.answered].max(initial=0.0))
    achieved = int(np.count_nonzero(outcome.answered)) / last if last else 0.0
    unanswered_ms = np.full(_failed(outcome), (outcome.seconds + outcome.patience) * 1e3)
    waits_ms = np.sort(np.append(outcome.latencies_from_sent_ms, unanswered_ms))
    report = _measured("offline", outcome, waits_ms, None, over=0)
    return replace(report, rate=achieved, achieved=achieved, faults=_failures(outcome))


def _measured(scenario: str, outcome: Outcome, ascending_ms: Floats, share: float | None, over: int) -> Report:
    """Before anything is said against it. `over` queries may be beyond the bound, or the estimate, of `share`."""
    return Report(
        scenario=scenario,
        rate=outcome.achieved,
        achieved=outcome.achieved,
        p50_ms=quantile(ascending_ms, 0.5),
        p90_ms=quantile(ascending_ms, 0.9),
        p99_ms=quantile(ascending_ms, 0.99),
        estimate_ms=estimate(ascending_ms, share) if share else None,
        queries=len(ascending_ms),
        queries_needed=queries_needed(over, share) if share else outcome.scheduled,
        failed=_failed(outcome),
        refused=outcome.refused,
        over=over,
        late_p99_ms=0.0,
        held_back=0,
        generator_cpu_us=outcome.cpu_seconds / max(1, outcome.scheduled) * 1e6,
        generator_cpu_share=max(outcome.cpu_shares),
        faults=(),
        generator_limited=False,
    )


def _failed(outcome: Outcome) -> int:
    return outcome.refused + outcome.given_up


def _failures(outcome: Outcome) -> tuple[str, ...]:
    failed = _failed(outcome)
    said = f"{failed} of {outcome.scheduled} samples were not answered, {outcome.refused} of them refused"
    return (said,) if failed else ()


def _generator_fault(late_ms: float, allowed_ms: float, cpu_share: float) -> str:
    late = f"it sent p99 {late_ms:.2f} ms late, of {allowed_ms:g} allowed, and used {cpu_share:.0%} of a core"
    if cpu_share > _BUSY:
        return f"the generator is the limit, not the server: {late}: use more --processes"
    return f"the generator was kept waiting: {late}: the machine is too busy for it"
