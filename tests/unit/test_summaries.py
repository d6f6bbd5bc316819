"""Quantiles of the last minute."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.statistics import BatchTimes
from server.summaries import LatencySummaries, Sketch, quantiles

SHARES = (0.0, 0.5, 0.9, 0.99, 1.0)


@given(st.lists(st.floats(1, 1e9), min_size=1, max_size=300))
def test_a_quantile_is_right_to_one_percent(values: list[float]) -> None:
    sketch = Sketch()
    for value in values:
        sketch.observe(5.0, value)
    exact = [sorted(values)[max(0, ceil(share * len(values)) - 1)] for share in SHARES]
    assert quantiles(sketch.copy(5.0), SHARES) == [pytest.approx(value, rel=0.0101) for value in exact]


def test_nothing_has_no_quantile() -> None:
    assert all(isnan(value) for value in quantiles(Sketch().copy(5.0), SHARES))


def test_less_than_a_microsecond_counts_as_one() -> None:
    sketch = Sketch()
    sketch.observe(5.0, 0.0)
    assert quantiles(sketch.copy(5.0), [1]) == [pytest.approx(1, rel=0.01)]


def median(sketch: Sketch, now: float) -> float:
    return quantiles(sketch.copy(now), [0.5])[0]


def test_what_is_older_than_a_minute_is_forgotten_and_what_is_not_is_kept() -> None:
    sketch = Sketch()
    sketch.observe(1000.0, 10.0)
    assert median(sketch, 1047.9) == pytest.approx(10, rel=0.01)
    assert isnan(median(sketch, 1060.0))


@pytest.mark.parametrize("pause", [0.5, 11.9, 12.1, 30.0, 47.0], ids=str)
def test_a_stream_of_values_has_the_quantiles_of_its_last_minute(pause: float) -> None:
    sketch = Sketch()
    seen: list[tuple[float, float]] = []
    now = 500.0
    for i in range(200):
        seen.append((now, float(i + 1)))
        sketch.observe(now, float(i + 1))
        total = sum(sum(counts.values()) for counts in sketch.copy(now))
        young, old = ([value for when, value in seen if now - when < age] for age in (48, 60))
        assert len(young) <= total <= len(old)
        now += pause


def test_a_long_silence_leaves_nothing_and_counting_goes_on() -> None:
    sketch = Sketch()
    sketch.observe(10.0, 10.0)
    sketch.observe(100_000.0, 70.0)
    assert quantiles(sketch.copy(100_001.0), [0, 1]) == [pytest.approx(70, rel=0.01)] * 2


def test_a_copy_changes_no_more() -> None:
    sketch = Sketch()
    sketch.observe(1.0, 10.0)
    copy = sketch.copy(1.0)
    sketch.observe(1.0, 99.0)
    sketch.observe(20.0, 99.0)
    assert quantiles(copy, [1]) == [pytest.approx(10, rel=0.01)]


def test_requests_count_once_and_phases_for_every_request_of_the_batch() -> None:
    summaries = LatencySummaries()
    summaries.record_request(1.0, queue_ns=40_000, request_ns=90_000)
    summaries.record_batch(1.0, BatchTimes(0, 10_000, 30_000, 60_000), requests=5)
    copies = summaries.copy(1.0)

    def counts(slices: Sequence[dict[int, int]]) -> int:
        return sum(sum(each.values()) for each in slices)

    assert [counts(slices) for slices in copies] == [1, 1, 5, 5, 5]
    medians = [quantiles(slices, [0.5])[0] for slices in copies]
    assert medians == [pytest.approx(value, rel=0.01) for value in (90, 40, 10, 20, 30)]
