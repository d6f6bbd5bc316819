"""Counters and histograms of one version."""

from __future__ import annotations

from math import inf

import pytest

from server.errors import ExecutionFailed, InvalidRequest, QueueFull, Reason
from server.statistics import (
    BATCH_ROWS_BOUNDS,
    LATENCY_BOUNDS_US,
    RATIO_BOUNDS,
    BatchTimes,
    Duration,
    Histogram,
    Latency,
    VersionStatistics,
)


@pytest.mark.parametrize(
    ("value", "bucket"), [(0, 0), (9.9, 0), (10, 0), (10.1, 1), (20, 1), (21, 2), (1e12, 2)], ids=str
)
def test_a_value_falls_into_the_first_bucket_whose_bound_it_does_not_exceed(value: float, bucket: int) -> None:
    histogram = Histogram((10, 20))
    histogram.observe(value)
    assert histogram.counts == [int(i == bucket) for i in range(3)]


def test_a_histogram_sums_its_values() -> None:
    histogram = Histogram((10,))
    histogram.observe(2.5)
    histogram.observe(4, times=3)
    assert (histogram.total, histogram.counts) == (14.5, [4, 0])


@pytest.mark.parametrize("bounds", [LATENCY_BOUNDS_US, BATCH_ROWS_BOUNDS], ids=["latency", "batch"])
def test_bounds_rise(bounds: tuple[int, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


def test_a_duration_counts_and_adds() -> None:
    duration = Duration()
    duration.add(5)
    duration.add(10, times=3)
    assert duration == Duration(count=4, ns=35)


def test_nothing_is_counted_before_the_first_request() -> None:
    statistics = VersionStatistics()
    assert (statistics.inference_count, statistics.execution_count, statistics.last_inference_ms) == (0, 0, 0)
    assert statistics.failures == dict.fromkeys(Reason, 0)


def test_two_versions_share_no_counter() -> None:
    first, second = VersionStatistics(), VersionStatistics()
    first.record_batch(BatchTimes(0, 1, 2, 3), rows=4, requests=2)
    first.record_success(queue_ns=5, request_ns=6)
    first.record_failure(InvalidRequest("why"), request_ns=7)
    first.record_prediction(1.0, 2.0)
    assert {name: repr_of(getattr(second, name)) for name in second.__slots__} == {
        name: repr_of(getattr(VersionStatistics(), name)) for name in second.__slots__
    }


def test_a_batch_counts_its_rows_once_and_its_phases_for_every_request() -> None:
    statistics = VersionStatistics()
    statistics.record_batch(BatchTimes(start=1_000, input_end=3_000, infer_end=10_000, output_end=11_000), 5, 3)
    assert (statistics.inference_count, statistics.execution_count) == (5, 1)
    phases = (statistics.compute_input, statistics.compute_infer, statistics.compute_output)
    assert [(phase.count, phase.ns) for phase in phases] == [(3, 6_000), (3, 21_000), (3, 3_000)]


def test_batches_are_told_apart_by_their_rows() -> None:
    statistics = VersionStatistics()
    for start, rows in ((0, 1), (10, 4), (20, 4)):
        statistics.record_batch(BatchTimes(start, start + 1, start + 3, start + 6), rows, 1)
    assert set(statistics.batches) == {1, 4}
    four = statistics.batches[4]
    assert (four.compute_input, four.compute_infer, four.compute_output) == (
        Duration(2, 2),
        Duration(2, 4),
        Duration(2, 6),
    )


def test_a_batch_is_in_the_histograms() -> None:
    statistics = VersionStatistics()
    statistics.record_batch(BatchTimes(0, 40_000, 1_040_000, 1_100_000), rows=3, requests=2)
    phases = (statistics.compute_input, statistics.compute_infer, statistics.compute_output)
    bounds = [LATENCY_BOUNDS_US.index(bound) for bound in (50, 1_000, 100)]
    assert [phase.histogram.counts[bound] for phase, bound in zip(phases, bounds, strict=True)] == [2, 2, 2]
    assert statistics.compute_input.histogram.total == 80
    assert (statistics.batch_rows.counts[BATCH_ROWS_BOUNDS.index(4)], statistics.batch_rows.total) == (1, 3)


def test_an_answer_counts_its_time_in_the_queue_and_in_all() -> None:
    statistics = VersionStatistics()
    statistics.record_success(queue_ns=1_000, request_ns=9_000)
    statistics.record_success(queue_ns=3_000, request_ns=11_000)
    assert [(each.count, each.ns) for each in (statistics.queue, statistics.success)] == [(2, 4_000), (2, 20_000)]
    assert (statistics.queue.histogram.total, statistics.success.histogram.total) == (4, 20)


@pytest.mark.parametrize(("ns", "bucket"), [(0, 0), (50_000, 0), (50_001, 1), (10_000_000_000, 16), (1 << 40, 17)])
def test_a_latency_falls_into_the_first_bucket_whose_bound_it_does_not_exceed(ns: int, bucket: int) -> None:
    statistics = VersionStatistics()
    statistics.record_success(queue_ns=ns, request_ns=ns)
    for latency in (statistics.queue, statistics.success):
        assert latency.histogram.bounds == LATENCY_BOUNDS_US
        assert latency.histogram.counts == [int(i == bucket) for i in range(len(LATENCY_BOUNDS_US) + 1)]


def test_a_failure_counts_by_its_reason_and_not_as_an_answer() -> None:
    statistics = VersionStatistics()
    statistics.record_failure(QueueFull("why"), request_ns=5)
    statistics.record_failure(QueueFull("why"), request_ns=6)
    statistics.record_failure(ExecutionFailed("why"), request_ns=7)
    assert {reason: count for reason, count in statistics.failures.items() if count} == {
        Reason.QUEUE_FULL: 2,
        Reason.BACKEND: 1,
    }
    assert (statistics.fail, statistics.success.count) == (Duration(3, 18), 0)


def test_a_prediction_is_counted_beside_what_came_of_it() -> None:
    statistics = VersionStatistics()
    statistics.record_prediction(predicted=0.5, actual=1.0)
    statistics.record_prediction(predicted=0.25, actual=0.25)
    assert (statistics.predicted_seconds, statistics.actual_seconds) == (0.75, 1.25)
    ratios = statistics.prediction_ratio
    assert (ratios.counts[RATIO_BOUNDS.index(2)], ratios.counts[RATIO_BOUNDS.index(1)], ratios.total) == (1, 1, 3.0)


def test_a_batch_that_nobody_could_predict_is_in_neither_sum() -> None:
    statistics = VersionStatistics()
    statistics.record_prediction(predicted=inf, actual=1.0)
    assert (statistics.predicted_seconds, statistics.actual_seconds) == (0, 0)
    assert sum(statistics.prediction_ratio.counts) == 0


def test_a_copy_changes_no_more_whatever_is_counted() -> None:
    statistics = VersionStatistics()
    count_everything(statistics)
    copy = statistics.copy()
    before = {name: repr_of(getattr(copy, name)) for name in copy.__slots__}
    assert before == {name: repr_of(getattr(statistics, name)) for name in copy.__slots__}
    count_everything(statistics)
    assert {name: repr_of(getattr(copy, name)) for name in copy.__slots__} == before
    changed = {name for name in copy.__slots__ if repr_of(getattr(statistics, name)) != before[name]}
    assert changed == set(VersionStatistics.__slots__) - {"last_inference_ms", "observer"}


def count_everything(statistics: VersionStatistics) -> None:
    statistics.record_batch(BatchTimes(0, 1, 2, 3), rows=4, requests=2)
    statistics.record_success(queue_ns=5, request_ns=6)
    statistics.record_failure(ExecutionFailed("why"), request_ns=7, had_deadline=True)
    statistics.record_prediction(1.0, 2.0)
    statistics.record_turn_wait(1.0)
    statistics.record_reclaimed_sequence()
    for met in (True, False):
        statistics.record_objective(met)
        statistics.record_deadline(met)
    statistics.failed_runs += 1
    statistics.run_timeouts += 1
    statistics.hung_runs += 1
    statistics.reloads += 1
    statistics.cache_hit.add(1)
    statistics.cache_miss.add(1)
    statistics.cache_joined += 1
    statistics.step_answers += 1


def repr_of(value: object) -> str:
    if isinstance(value, Histogram):
        return repr((value.counts, value.total))
    return repr((value.counts, value.ns)) if isinstance(value, Latency) else repr(value)


def test_a_deadline_is_met_by_an_answer_in_time_and_missed_by_anything_else_but_a_fault_of_the_callers() -> None:
    statistics = VersionStatistics()
    statistics.record_deadline(met=True)
    statistics.record_deadline(met=False)
    statistics.record_failure(QueueFull("why"), 1, had_deadline=True)
    statistics.record_failure(InvalidRequest("why"), 1, had_deadline=True)
    statistics.record_failure(QueueFull("why"), 1, had_deadline=False)
    assert (statistics.deadline_met, statistics.deadline_missed) == (1, 2)
