"""The table of what batches cost."""

from __future__ import annotations

from math import inf

import pytest

from server.scheduling.costs import ENOUGH, WINDOW, Cost, CostTable, bucket_below, bucket_sizes


def table(**seconds: float) -> CostTable:
    """A table of buckets 1, 2, 4 and 8; b4=0.5 has bucket 4 measured once."""
    costs = CostTable((1, 2, 4, 8))
    for name, value in seconds.items():
        costs.observe(int(name.removeprefix("b")), value)
    return costs


@pytest.mark.parametrize(
    ("max_rows", "sizes"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8)), (9, (1, 2, 4, 8, 9))]
)
def test_buckets_double_up_to_the_largest_batch(max_rows: int, sizes: tuple[int, ...]) -> None:
    assert bucket_sizes(max_rows) == sizes


@pytest.mark.parametrize("sizes", [(), (0, 1), (2, 1), (1, 1)])
def test_buckets_ascend(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="buckets must be ascending"):
        CostTable(sizes)


def test_a_size_that_has_not_run_costs_no_one_knows_what() -> None:
    costs = table(b1=0.5)
    assert (costs.typical(2), costs.worst(2), costs.typical(9)) == (inf, inf, inf)


def test_a_table_is_calibrated_once_every_bucket_has_run() -> None:
    assert not table(b1=1, b2=2, b4=4).calibrated
    assert table(b1=1, b2=2, b4=4, b8=8).calibrated


def test_the_first_measurement_is_taken_as_it_is() -> None:
    costs = table(b4=0.25)
    assert (costs.typical(4), costs.worst(4)) == (0.25, 0.25)


def test_median_and_99th_percentile_of_a_window() -> None:
    costs = table()
    for i in range(WINDOW):
        costs.observe(1, float(i))
    assert list(costs.lines()) == [Cost(1, WINDOW / 2 - 1, WINDOW - 2, WINDOW)]


def test_between_two_buckets_lies_a_straight_line() -> None:
    costs = table(b4=1.0, b8=3.0)
    assert [costs.typical(rows) for rows in (4, 5, 6, 7, 8)] == [1.0, 1.5, 2.0, 2.5, 3.0]


def test_a_batch_that_is_filled_up_takes_as_long_as_its_bucket() -> None:
    costs = CostTable((1, 2, 4, 8), fills=True)
    costs.observe(8, 3.0)
    assert [costs.typical(rows) for rows in (4, 5, 8)] == [inf, 3.0, 3.0]


def test_a_batch_between_two_buckets_counts_for_the_larger_one_in_proportion() -> None:
    costs = table(b4=1.0, b8=3.0)
    costs.observe(6, 4.0)  # twice what was expected
    assert costs.worst(8) == 6.0


def test_a_batch_between_buckets_that_nobody_measured_is_taken_to_grow_with_its_rows() -> None:
    costs = table()
    costs.observe(6, 3.0)
    assert costs.typical(8) == 4.0


def test_predictions_follow_a_lasting_change() -> None:
    costs = table(b4=1.0)
    for _ in range(WINDOW):
        costs.observe(4, 3.0)
    assert (costs.typical(4), costs.worst(4)) == (3.0, 3.0)


def test_one_stall_among_many_runs_moves_nothing() -> None:
    costs = table()
    for _ in range(WINDOW):
        costs.observe(4, 1.0)
    costs.observe(4, 90.0)
    assert (costs.typical(4), costs.worst(4)) == (1.0, 1.0)


def test_what_is_larger_than_the_largest_bucket_is_not_counted() -> None:
    costs = table(b8=1.0)
    costs.observe(9, 5.0)
    assert list(costs.lines()) == [Cost(8, 1.0, 1.0, 1)]


@pytest.mark.parametrize(("rows", "below"), [(9, 8), (8, 4), (7, 4), (5, 4), (4, 2), (2, 1), (1, 1)])
def test_the_bucket_below_is_smaller_where_there_is_a_smaller_one(rows: int, below: int) -> None:
    assert bucket_below((1, 2, 4, 8), rows) == below


def profiled() -> CostTable:
    costs = CostTable((1, 2))
    for seconds in (1.0, 1.0, 3.0):
        costs.profile(1, seconds)
        costs.profile(2, 2 * seconds)
    return costs


def test_a_profile_calibrates() -> None:
    assert profiled().calibrated
    assert list(profiled().lines()) == [Cost(1, 1.0, 3.0, 3), Cost(2, 2.0, 6.0, 3)]


def test_batches_of_requests_join_the_profile_and_then_replace_it() -> None:
    costs = profiled()
    costs.observe(1, 9.0)
    assert next(iter(costs.lines())) == Cost(1, 1.0, 9.0, 4)
    for _ in range(ENOUGH - 1):
        costs.observe(1, 9.0)
    assert list(costs.lines()) == [Cost(1, 9.0, 9.0, ENOUGH), Cost(2, 2.0, 6.0, 3)]
    costs.profile(1, 1.0)
    assert costs.typical(1) == costs.worst(1) == 9.0


def test_what_batches_of_requests_took_is_known_apart_from_the_profile() -> None:
    costs = profiled()
    assert (costs.typical_served(1), costs.typical_served(2)) == (inf, inf)
    costs.observe(1, 9.0)
    for _ in range(ENOUGH - 2):
        costs.observe(1, 8.0)
    assert costs.typical_served(1) == inf
    costs.observe(1, 8.0)
    assert (costs.typical_served(1), costs.typical_served(2)) == (8.0, inf)
    assert (costs.worst_served(1), costs.worst_served(2)) == (9.0, inf)


def test_between_two_buckets_what_requests_took_is_known_where_it_is_for_both() -> None:
    costs = CostTable((2, 4))
    for size in (2, 4):
        costs.profile(size, 1.0)
    for _ in range(ENOUGH):
        costs.observe(4, 6.0)
    assert (costs.typical_served(3), costs.typical(3)) == (inf, 3.5)
    for _ in range(ENOUGH):
        costs.observe(2, 2.0)
    assert costs.typical_served(3) == 4.0


def test_below_the_smallest_bucket_nothing_is_known() -> None:
    costs = CostTable((2, 4))
    costs.observe(2, 1.0)
    costs.observe(4, 2.0)
    assert costs.typical(1) == inf


def test_only_a_bucket_can_be_profiled() -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        CostTable((1, 4)).profile(3, 1.0)


def test_a_copy_has_the_same_lines_and_a_life_of_its_own() -> None:
    costs = profiled()
    for _ in range(ENOUGH):
        costs.observe(2, 5.0)
    copy = costs.copy()
    lines = list(costs.lines())
    served = costs.typical_served(2), costs.worst_served(2)
    costs.observe(2, 500.0)
    costs.profile(1, 100.0)

    assert (copy.sizes, copy.fills) == (costs.sizes, False)
    assert list(copy.lines()) == lines != list(costs.lines())
    assert (copy.typical_served(2), copy.worst_served(2)) == served == (5.0, 5.0)
    assert CostTable((1, 2), fills=True).copy().fills


def test_a_profile_that_comes_after_enough_batches_of_requests_is_left_out() -> None:
    costs = CostTable((1,))
    for _ in range(ENOUGH):
        costs.observe(1, 9.0)
    costs.profile(1, 1.0)
    assert list(costs.lines()) == [Cost(1, 9.0, 9.0, ENOUGH)]
