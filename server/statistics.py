"""Exact counts of what one model version has done. Pure: times come in, totals come out.

All counters of one version are changed on the event loop's thread only, so a reader there sees them consistent.
Times are nanoseconds on the monotonic clock, and histogram values microseconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from server.errors import CALLERS_FAULT, ConvoyError, Reason

LATENCY_BOUNDS_US = (
    50, 100, 200, 500,
    1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000,
)  # fmt: skip
RATIO_BOUNDS = (0.25, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4, 8)
BATCH_ROWS_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Histogram:
    """Counts of values by upper bound; the last bucket has none."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """Sum of all values."""

    def copy(self) -> Histogram:
        """The same counts, to keep."""
        other = Histogram.__new__(Histogram)
        other.bounds, other.counts, other.total = self.bounds, self.counts.copy(), self.total
        return other

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


@dataclass(slots=True)
class BatchStatistics:
    """All batches of one size."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """When the phases of one batch began and ended, monotonic nanoseconds."""

    start: int
    input_end: int
    infer_end: int
    output_end: int


def _latency_histogram() -> Histogram:
    return Histogram(LATENCY_BOUNDS_US)


def no_failures() -> dict[Reason, int]:
    """Every reason, not counted yet."""
    return dict.fromkeys(Reason, 0)


@dataclass(slots=True)
class VersionStatistics:
    """Everything counted for one model version, as Triton's statistics extension defines it, and histograms beside."""

    last_inference_ms: int = 0
    """Wall-clock milliseconds since the epoch of the last request that was answered; 0 before the first."""
    inference_count: int = 0
    """Rows inferred."""
    execution_count: int = 0
    """Batches run."""
    failed_runs: int = 0
    """Runs that failed, those of batches and of single requests; `execution_count` has none of them."""
    reloads: int = 0
    """How often the version has been loaded anew since the server started, because its runs failed."""
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
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

    turn_wait_us: float = 0.0
    """How long batches waited because other models' ran."""
    predicted_seconds: float = 0.0
    """What was expected of all batches of which something was."""
    actual_seconds: float = 0.0
    """What those batches took."""
    prediction_ratio: Histogram = field(default_factory=lambda: Histogram(RATIO_BOUNDS))
    """Actual by predicted time, batch by batch."""

    request_us: Histogram = field(default_factory=_latency_histogram)
    queue_us: Histogram = field(default_factory=_latency_histogram)
    compute_input_us: Histogram = field(default_factory=_latency_histogram)
    compute_infer_us: Histogram = field(default_factory=_latency_histogram)
    compute_output_us: Histogram = field(default_factory=_latency_histogram)
    batch_rows: Histogram = field(default_factory=lambda: Histogram(BATCH_ROWS_BOUNDS))

    def copy(self) -> VersionStatistics:
        """Everything but `batches` as it is now, for a reader on another thread."""
        other = VersionStatistics.__new__(VersionStatistics)
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(other, name, value if isinstance(value, (int, float)) else value.copy())
        other.batches = {}
        return other

    def record_batch(self, times: BatchTimes, rows: int, requests: int) -> None:
        """Count one batch that ran and answered `requests` requests of `rows` rows in all."""
        self.inference_count += rows
        self.execution_count += 1
        batch = self.batches.get(rows)
        if batch is None:
            batch = self.batches[rows] = BatchStatistics()
        input_ns = times.input_end - times.start
        infer_ns = times.infer_end - times.input_end
        output_ns = times.output_end - times.infer_end
        batch.compute_input.add(input_ns)
        batch.compute_infer.add(infer_ns)
        batch.compute_output.add(output_ns)
        self.compute_input.add(input_ns, requests)
        self.compute_infer.add(infer_ns, requests)
        self.compute_output.add(output_ns, requests)
        self.compute_input_us.observe(input_ns / 1000, requests)
        self.compute_infer_us.observe(infer_ns / 1000, requests)
        self.compute_output_us.observe(output_ns / 1000, requests)
        self.batch_rows.observe(rows)

    def record_prediction(self, predicted: float, actual: float) -> None:
        """Count what was expected of a batch beside what it took, in seconds. None is infinite."""
        if 0 < predicted < inf:
            self.predicted_seconds += predicted
            self.actual_seconds += actual
            self.prediction_ratio.observe(actual / predicted)

    def record_success(self, queue_ns: int, request_ns: int) -> None:
        """Count one answered request: its time in the queue, and from arrival to answer."""
        # The only code here that runs for every single request, hence written out.
        queue, success, queue_us, request_us = self.queue, self.success, self.queue_us, self.request_us
        queue.count += 1
        queue.ns += queue_ns
        success.count += 1
        success.ns += request_ns
        value = queue_ns / 1000
        queue_us.counts[bisect_left(queue_us.bounds, value)] += 1
        queue_us.total += value
        value = request_ns / 1000
        request_us.counts[bisect_left(request_us.bounds, value)] += 1
        request_us.total += value

    def record_objective(self, met: bool) -> None:
        """Count one answer of a model with a latency objective."""
        if met:
            self.objective_met += 1
        else:
            self.objective_missed += 1

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
