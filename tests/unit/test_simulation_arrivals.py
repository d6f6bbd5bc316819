"""When simulated requests arrive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loadtest.errors import LoadTestError
from loadtest.simulation.arrivals import BLOCK, Arrivals, Floats, Integers, make_arrivals

RANDOM = ("poisson", "bursty:on_ms=50,off_ms=150", "diurnal:period_s=20,swing=0.5")


def all_times(arrivals: Arrivals) -> Floats:
    return np.concatenate([times for times, _ in arrivals.blocks()])


def trace(path: Path, text: str, rate: float | None = None, seconds: float | None = None) -> Arrivals:
    path.write_text(text)
    return make_arrivals(f"trace:{path}", rate, seconds, seed=1)


@pytest.mark.parametrize("spec", RANDOM)
def test_the_mean_rate_is_the_one_asked_for(spec: str) -> None:
    times = all_times(make_arrivals(spec, 2000.0, 200.0, seed=3))
    assert len(times) == pytest.approx(2000 * 200, rel=0.05 if spec.startswith("bursty") else 0.005)


@pytest.mark.parametrize("spec", RANDOM)
def test_arrivals_ascend_within_their_time(spec: str) -> None:
    arrivals = make_arrivals(spec, 2000.0, 50.0, seed=3)
    times = all_times(arrivals)
    assert times[0] >= 0 and times[-1] < arrivals.seconds == 50.0
    assert len(times) > BLOCK and (np.diff(times) >= 0).all()


@pytest.mark.parametrize("spec", RANDOM)
def test_equal_seeds_give_equal_arrivals_and_others_do_not(spec: str) -> None:
    arrivals = make_arrivals(spec, 500.0, 20.0, seed=3)
    assert (all_times(arrivals) == all_times(arrivals)).all()
    assert (all_times(arrivals) == all_times(make_arrivals(spec, 500.0, 20.0, seed=3))).all()
    assert all_times(arrivals)[0] != all_times(make_arrivals(spec, 500.0, 20.0, seed=4))[0]


def test_poisson_gaps_are_exponential() -> None:
    gaps = np.diff(all_times(make_arrivals("poisson", 1000.0, 200.0, seed=5)))
    assert gaps.mean() == pytest.approx(1e-3, rel=0.01)
    assert gaps.std() == pytest.approx(1e-3, rel=0.01)


def test_a_diurnal_rate_swings_from_trough_to_peak_and_back() -> None:
    times = all_times(make_arrivals("diurnal:swing=0.6", 1000.0, 100.0, seed=5))
    counts, _ = np.histogram(times, bins=[0, 5, 47.5, 52.5, 95, 100])
    per_second = counts / [5, 42.5, 5, 42.5, 5]
    assert per_second[[0, 2, 4]] == pytest.approx([400, 1600, 400], rel=0.06)


def test_bursts_and_silences_have_the_lengths_asked_for() -> None:
    gaps = np.diff(all_times(make_arrivals("bursty:on_ms=100,off_ms=300", 5000.0, 400.0, seed=5)))
    silences = gaps[gaps > 0.002]  # within a burst, gaps are 50 µs in the mean
    assert len(silences) == pytest.approx(400 / 0.4, rel=0.1)
    assert silences.mean() == pytest.approx(0.3, rel=0.1)


def test_a_trace_is_played_from_its_first_request_with_its_rows(tmp_path: Path) -> None:
    arrivals = trace(tmp_path / "a.csv", "10.5,1\n11.0,4\n\n11.0,2\n12.5\n")
    [(times, rows)] = list(arrivals.blocks())
    assert times.tolist() == [0.0, 0.5, 0.5, 2.0]
    assert rows is not None and rows.tolist() == [1, 4, 2, 1]
    assert arrivals.seconds == pytest.approx(2.0)


def test_a_rate_stretches_a_trace_and_a_length_cuts_it(tmp_path: Path) -> None:
    slow = trace(tmp_path / "a.csv", "0\n1\n2\n3\n", rate=2.0)
    assert all_times(slow).tolist() == pytest.approx([0, 2 / 3, 4 / 3, 2])
    cut = trace(tmp_path / "a.csv", "0\n1\n2\n3\n", seconds=2.0)
    assert all_times(cut).tolist() == [0, 1] and cut.seconds == 2.0


def test_rows_of_one_need_no_column() -> None:
    blocks: list[tuple[Floats, Integers | None]] = list(make_arrivals("poisson", 10.0, 1.0, seed=1).blocks())
    assert [rows for _, rows in blocks] == [None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "two different times"),
        ("1\n", "two different times"),
        ("1\n1\n", "two different times"),
        ("1\n0.5\n", r"a.csv:2: arrivals must ascend, and 0.5 follows 1"),
        ("0\nnow\n", r"a.csv:2: 'now' is not seconds and rows"),
        ("0\n1,2,3\n", r"a.csv:2: .* not 3 columns"),
        ("0\n1,0\n", r"a.csv:2: .* rows at least 1"),
        ("0\nnan\n", r"a.csv:2: seconds must be finite"),
    ],
)
def test_a_bad_trace_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LoadTestError, match=message):
        trace(tmp_path / "a.csv", text)


def test_a_missing_trace_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match=r"none\.csv: the trace cannot be read"):
        make_arrivals(f"trace:{tmp_path / 'none.csv'}", None, None, seed=1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("uniform", "arrivals are poisson"),
        ("poisson:rate=3", "unknown setting 'rate'"),
        ("bursty:on_ms=x", "on_ms must be a number, not 'x'"),
        ("bursty:off_ms=-1", "off_ms must be a finite number of at least 0"),
        ("bursty:on_ms=0", "on_ms must be positive"),
        ("bursty:5", "unknown setting '5'"),
        ("diurnal:swing=1.5", "swing must be 0 to 1"),
    ],
)
def test_arrivals_that_cannot_be_are_refused_by_name(spec: str, message: str) -> None:
    with pytest.raises(LoadTestError, match=message):
        make_arrivals(spec, 10.0, 1.0, seed=1)
