"""What is learned of the batches that have run: seconds by size, statistics, latencies, failures in a row."""

from __future__ import annotations

import time
from collections.abc import Sequence

from server.models.execution import BatchResult, Run
from server.models.streak import FailureStreak
from server.scheduling.clock import Clock
from server.scheduling.costs import CostTable
from server.statistics import VersionStatistics
from server.summaries import LatencySummaries


class BatchAccounts:
    """Of one version. On the event loop's thread."""

    def __init__(
        self,
        clock: Clock,
        costs: CostTable,
        statistics: VersionStatistics,
        summaries: LatencySummaries | None,
        streak: FailureStreak,
    ) -> None:
        """All of them are others' too. `summaries` is None where nobody asked for latencies."""
        self._clock = clock
        self._costs = costs
        self._statistics = statistics
        self._summaries = summaries
        self._streak = streak

    def ran(self, runs: Sequence[Run]) -> None:
        """These have ended; nobody has heard of it yet."""
        for run in runs:
            times = run.times
            seconds = (times.output_end - times.start) / 1e9
            self._statistics.record_prediction(self._costs.typical(run.size), seconds)
            self._costs.observe(run.size, seconds)
            self._statistics.record_batch(times, run.rows, len(run.batch))
            if self._summaries is not None:
                self._summaries.record_batch(self._clock.now(), times, len(run.batch))

    def answered(self, outcome: BatchResult) -> None:
        """All requests of a batch have their answers, or failed."""
        statistics, runs = self._statistics, outcome.runs
        observer = statistics.observer
        if observer is not None:
            now = self._clock.now()
            for run in runs:
                observer.record_batch(now, run.times, run.rows, [work.arrived for work in run.batch])
        statistics.failed_runs += outcome.failed_runs
        if runs:
            statistics.last_inference_ms = time.time_ns() // 1_000_000
            self._streak.end()
        elif outcome.failed_runs:
            self._streak.add(outcome.failed_runs)
