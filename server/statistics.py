"""Exact counts of what one model version has done. Pure: times come in, totals come out.

All counters of one version are changed on the event loop's thread only, so a reader there sees them consistent.
Times are nanoseconds on the monotonic clock. What can be had by adding up is added up by whoever asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from server.errors import CALLERS_FAULT, ConvoyError, Reason

LATENCY_BOUNDS_US = (
    50, 100, 200, 500,
    1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000,
)  # fmt: skip
_BOUNDS_NS = tuple(bound * 1000 for bound in LATENCY_BOUNDS_US)
RATIO_BOUNDS = (0.25, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4, 8)
BATCH_ROWS_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Histogram:
    """Counts of values by upper bound; the last bucket has none."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float], counts: Sequence[int] = (), total: float = 0.0) -> None:
        self.bounds = tuple(bounds)
        self.counts = list(counts) or [0] * (len(bounds) + 1)
        self.total = total
        """Sum of all values."""

    def copy(self) -> Histogram:
        """The same counts, to keep."""
        return Histogram(self.bounds, self.counts, self.total)

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


@dataclass(slots=True)
class Duration:
    """How often, and how long in all."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, times: int = 1) -> None:
        self.count += times
        self.ns += ns * times

    def copy(self) -> Duration:
        return Duration(self.count, self.ns)


class Latency:
    """Durations, each counted once for all that is told of them: how often, how long in all, and by upper bound."""

    __slots__ = ("counts", "ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS_NS) + 1)
        """By upper bound, as in a `Histogram` of microseconds."""
        self.ns = 0

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def histogram(self) -> Histogram:
        """In microseconds."""
        return Histogram(LATENCY_BOUNDS_US, self.counts, self.ns / 1000)

    def copy(self) -> Latency:
        """The same counts, to keep."""
        other = Latency.__new__(Latency)
        other.counts, other.ns = self.counts.copy(), self.ns
        return other


@dataclass(slots=True)
class BatchStatistics:
    """All batches of one size."""

    runs: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0

    @property
    def compute_input(self) -> Duration:
        return Duration(self.runs, self.input_ns)

    @property
    def compute_infer(self) -> Duration:
        return Duration(self.runs, self.infer_ns)

    @property
    def compute_output(self) -> Duration:
        return Duration(self.runs, self.output_ns)

    def copy(self) -> BatchStatistics:
        """The same counts, to keep."""
        return BatchStatistics(self.runs, self.input_ns, self.infer_ns, self.output_ns)


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """When the phases of one batch began and ended, monotonic nanoseconds."""

    start: int
    input_end: int
    infer_end: int
    output_end: int


class BatchObserver(Protocol):
    """Somebody who wants to know of every batch."""

    def record_batch(self, now: float, times: BatchTimes, rows: int, arrivals: Sequence[float]) -> None:
        """One batch of so many rows ran, of requests that arrived then, and they have been answered now (seconds)."""
        ...


def no_failures() -> dict[Reason, int]:
    """Every reason, not counted yet."""
    return dict.fromkeys(Reason, 0)


@dataclass(slots=True)
class VersionStatistics:
    """Everything counted for one model version, as Triton's statistics extension defines it, and histograms beside."""

    last_inference_ms: int = 0
    """Wall-clock milliseconds since the epoch of the last request that was answered; 0 before the first."""
    failed_runs: int = 0
    """Runs that failed, those of batches and of single requests; `batches` has none of them."""
    run_timeouts: int = 0
    """Runs that took longer than a run of the model may."""
    hung_runs: int = 0
    """How many of those have not come back, and hold up a thread that has been replaced."""
    reclaimed_sequences: int = 0
    """Sequences that were silent for too long."""
    reloads: int = 0
    """How often the version has been loaded anew since the server started, because its runs failed."""
    success: Latency = field(default_factory=Latency)
    """Of every answered request, from arrival to answer."""
    fail: Duration = field(default_factory=Duration)
    queue: Latency = field(default_factory=Latency)
    compute_input: Latency = field(default_factory=Latency)
    """This phase of a batch and the next two are counted for each of its requests."""
    compute_infer: Latency = field(default_factory=Latency)
    compute_output: Latency = field(default_factory=Latency)
    batches: dict[int, BatchStatistics] = field(default_factory=dict)
    """By rows in the batch."""
    failures: dict[Reason, int] = field(default_factory=no_failures)
    """Requests that got no result."""
    deadline_met: int = 0
    """Answers in time, of requests that had a deadline: the caller's, their timeout, or the model's objective."""
    deadline_missed: int = 0
    """Requests with a deadline that got no answer in time, whoever gave up on them, unless they were at fault."""
    objective_met: int = 0
    """Answers within the latency objective, of a model that has one."""
    objective_missed: int = 0
    """Answers that came later."""
    cache_hit: Duration = field(default_factory=Duration)
    """Answers out of the response cache, and the time that it took to look them up, without waiting for others."""
    cache_miss: Duration = field(default_factory=Duration)
    """Answers of a model with a cache that had to be computed, and the time to look them up and to keep them."""
    step_answers: int = 0
    """Of an ensemble: answers of models to steps of its requests. They are successes of the models, and no caller's."""
    cache_joined: int = 0
    """Hits that waited for an equal request in progress."""

    turn_wait_us: float = 0.0
    """How long batches waited because other models' ran."""
    predicted_seconds: float = 0.0
    """What was expected of all batches of which something was."""
    actual_seconds: float = 0.0
    """What those batches took."""
    prediction_ratio: Histogram = field(default_factory=lambda: Histogram(RATIO_BOUNDS))
    """Actual by predicted time, batch by batch."""
    observer: BatchObserver | None = field(default=None, compare=False)
    """Told of every batch; None while nobody wants to know. It stays when another version of this number takes over."""

    @property
    def inference_count(self) -> int:
        """Rows inferred."""
        return sum([rows * batch.runs for rows, batch in self.batches.items()])

    @property
    def execution_count(self) -> int:
        """Batches run."""
        return sum([batch.runs for batch in self.batches.values()])

    @property
    def batch_rows(self) -> Histogram:
        """Rows in a batch."""
        histogram = Histogram(BATCH_ROWS_BOUNDS)
        for rows, batch in self.batches.items():
            histogram.observe(rows, batch.runs)
        return histogram

    def copy(self) -> VersionStatistics:
        """Everything as it is now, for a reader on another thread."""
        other = VersionStatistics.__new__(VersionStatistics)
        for name in self.__slots__:
            if name != "observer":
                value = getattr(self, name)
                setattr(other, name, value if isinstance(value, (int, float)) else value.copy())
        other.observer = None
        other.batches = {rows: batch.copy() for rows, batch in self.batches.items()}
        return other

    def record_batch(self, times: BatchTimes, rows: int, requests: int) -> None:
        """Count one batch that ran and answered `requests` requests of `rows` rows in all."""
        # Written out, as `record_success` is: where batches are of one request, both run for each.
        input_ns = times.input_end - times.start
        infer_ns = times.infer_end - times.input_end
        output_ns = times.output_end - times.infer_end
        batch = self.batches.get(rows)
        if batch is None:
            batch = self.batches[rows] = BatchStatistics()
        batch.runs += 1
        batch.input_ns += input_ns
        batch.infer_ns += infer_ns
        batch.output_ns += output_ns
        phase = self.compute_input
        phase.counts[bisect_left(_BOUNDS_NS, input_ns)] += requests
        phase.ns += input_ns * requests
        phase = self.compute_infer
        phase.counts[bisect_left(_BOUNDS_NS, infer_ns)] += requests
        phase.ns += infer_ns * requests
        phase = self.compute_output
        phase.counts[bisect_left(_BOUNDS_NS, output_ns)] += requests
        phase.ns += output_ns * requests

    def record_prediction(self, predicted: float, actual: float) -> None:
        """Count what was expected of a batch beside what it took, in seconds. None is infinite."""
        if 0 < predicted < inf:
            self.predicted_seconds += predicted
            self.actual_seconds += actual
            self.prediction_ratio.observe(actual / predicted)

    def record_success(self, queue_ns: int, request_ns: int) -> None:
        """Count one answered request: its time in the queue, and from arrival to answer."""
        queue, success = self.queue, self.success
        queue.counts[bisect_left(_BOUNDS_NS, queue_ns)] += 1
        queue.ns += queue_ns
        success.counts[bisect_left(_BOUNDS_NS, request_ns)] += 1
        success.ns += request_ns

    def record_objective(self, met: bool) -> None:
        """Count one answer of a model with a latency objective."""
        if met:
            self.objective_met += 1
        else:
            self.objective_missed += 1

    def record_reclaimed_sequence(self) -> None:
        """Count one sequence that was silent for too long."""
        self.reclaimed_sequences += 1

    def record_turn_wait(self, seconds: float) -> None:
        """Count the time that a batch waited for its turn."""
        self.turn_wait_us += seconds * 1e6

    def record_deadline(self, met: bool) -> None:
        """Count one answer to a request that had a deadline."""
        if met:
            self.deadline_met += 1
        else:
            self.deadline_missed += 1

    def record_failure(self, error: ConvoyError, request_ns: int, had_deadline: bool = False) -> None:
        """Count one request that was accepted or refused for this version and got no result."""
        self.failures[error.reason] += 1
        self.fail.add(request_ns)
        if had_deadline and error.reason not in CALLERS_FAULT:
            self.deadline_missed += 1
