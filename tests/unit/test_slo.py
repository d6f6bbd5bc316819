"""What follows from measured costs and an objective: the batch to aim at, how long to wait for it, and the guard."""

from __future__ import annotations

import random
from math import inf
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.scheduling.costs import CostTable, bucket_sizes
from server.scheduling.policy import LevelPolicy
from server.scheduling.slo import LATE_SHARE, LEAST_SHARE, MOST_SHARE, BatchPlan, Guard, SloPolicy, make_plan
from tests.unit.costing import Seconds, cost_table, flat, linear, stepped

A_PERCENT = 0.01


def plan(max_rows: int, seconds: Seconds, objective: float, worst: float = 1.0) -> BatchPlan:
    return make_plan(cost_table(max_rows, seconds, worst), max_rows, objective)


@pytest.mark.parametrize("objective", [0.0, -1.0, inf, float("nan")])
def test_an_objective_is_a_positive_number_of_seconds(objective: float) -> None:
    with pytest.raises(ValueError, match="the objective must be a positive number of seconds"):
        SloPolicy(4, objective=objective)


@pytest.mark.parametrize("bounds", [{"max_rows": 0}, {"levels": ()}, {"levels": (LevelPolicy(max_queued_rows=3),)}])
def test_an_objective_changes_no_rule_about_bounds(bounds: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        SloPolicy(**{"max_rows": 4, "objective": 1.0, **bounds})


def test_where_batches_pay_the_plan_is_the_largest_that_leaves_time_to_wait_for_half_of_another() -> None:
    seconds = linear(fixed=2, per_row=1)  # a batch and a half of 6 rows: 12
    assert plan(8, seconds, objective=11.9).rows == 5
    assert plan(8, seconds, objective=12).rows == 6
    assert plan(8, seconds, objective=14.9).rows == 7
    assert plan(8, seconds, objective=100).rows == 8


def test_the_99th_percentile_counts_for_the_batch_itself_and_the_median_for_the_one_before_it() -> None:
    seconds = linear(fixed=2, per_row=1)  # 8 / 2 + 2 * 8 for 6 rows
    assert plan(8, seconds, objective=19.9, worst=2).rows == 5
    assert plan(8, seconds, objective=20, worst=2).rows == 6


def test_where_batches_do_not_pay_the_plan_is_single_rows() -> None:
    assert plan(8, linear(fixed=0, per_row=1), objective=100).rows == 1


def test_where_rows_cost_nothing_the_plan_is_a_full_batch() -> None:
    assert plan(6, flat(1), objective=1.5).rows == 6


def test_where_costs_have_steps_the_plan_ends_before_one() -> None:
    assert plan(6, stepped(1, width=4), objective=100).rows == 4


def test_where_costs_have_steps_and_time_is_short_the_plan_is_the_smaller_step() -> None:
    assert plan(8, stepped(1, width=2), objective=1.5).rows == 2


def test_a_batch_as_large_as_the_plan_waits_for_nobody() -> None:
    full = plan(4, linear(fixed=4, per_row=1), objective=100)
    assert [full.patience(rows) for rows in (1, 2, 3, 4)] == [4, 2, pytest.approx(4 / 3), 0]


def test_an_objective_that_not_even_a_single_row_keeps_means_single_rows() -> None:
    assert plan(8, flat(1), objective=0.1).rows == 1


def test_a_stall_that_one_bucket_remembers_does_not_hide_larger_ones() -> None:
    costs = cost_table(32, linear(fixed=2, per_row=0.25))
    costs.observe(16, 1000)
    assert make_plan(costs, 32, objective=100).rows == 32


def test_a_plan_predicts_every_size_up_to_its_own() -> None:
    made = plan(8, linear(fixed=1, per_row=1), objective=8, worst=2)  # 3 rows: 4 / 2 + 8 is too long
    assert made == BatchPlan(2, 3, (0, 2, 3), (0, 4, 6), slowest=6)


@st.composite
def calibrated(draw: st.DrawFn) -> tuple[CostTable, int]:
    """A table of rising costs, and its largest size."""
    max_rows = draw(st.integers(1, 32))
    costs, typical, worst = CostTable(bucket_sizes(max_rows)), 0.0, 0.0
    for size in costs.sizes:
        typical += draw(st.floats(1e-4, 1.0))
        worst = max(worst, typical * draw(st.floats(1.0, 3.0)))
        costs.observe(size, typical)
        costs.observe(size, worst)
    return costs, max_rows


@given(calibrated(), st.floats(1e-4, 100))
def test_no_size_that_leaves_time_has_more_rows_per_second_than_the_plan(
    table: tuple[CostTable, int], objective: float
) -> None:
    costs, max_rows = table
    made = make_plan(costs, max_rows, objective)
    possible = [n for n in range(1, max_rows + 1) if costs.typical(n) / 2 + costs.worst(n) <= objective] or [1]
    best = max(rows / costs.typical(rows) for rows in possible)
    assert made.rows <= possible[-1]
    assert made.rows / made.seconds >= best * (1 - 1e-12)


def test_patience_is_the_fixed_part_shared_by_the_rows_and_ends_with_the_plan() -> None:
    made = plan(8, linear(fixed=6, per_row=1), objective=100)
    assert [made.patience(rows) for rows in (1, 2, 3, 6)] == [6, 3, 2, 1]
    assert made.patience(8) == made.patience(9) == 0.0


@given(calibrated(), st.floats(0.1, 0.9), st.floats(1.1, 10))
def test_patience_is_as_long_as_one_more_row_gives_more_rows_per_second(
    table: tuple[CostTable, int], less: float, more: float
) -> None:
    costs, max_rows = table
    made = make_plan(costs, max_rows, 100.0)
    for rows in range(1, made.rows):
        patience = made.patience(rows)
        now = rows / costs.typical(rows)
        if patience > 1e-6:
            assert (rows + 1) / (costs.typical(rows + 1) + less * patience) > now
            assert (rows + 1) / (costs.typical(rows + 1) + more * patience) < now
        elif patience < -1e-6:
            assert (rows + 1) / costs.typical(rows + 1) < now
    assert made.patience(made.rows) == made.patience(made.rows + 1) == 0.0


def test_a_guard_begins_with_all_of_the_objective() -> None:
    assert Guard().share == 1.0


def test_a_broken_promise_costs_a_tenth_of_the_share() -> None:
    guard = Guard()
    guard.observe(settled=1, late=1)
    assert guard.share == 0.9


def test_promises_that_break_together_cost_a_quarter_at_most() -> None:
    two, many = Guard(), Guard()
    two.observe(settled=2, late=2)
    many.observe(settled=100, late=100)
    assert (two.share, many.share) == (0.8, 0.75)


def test_what_one_broken_promise_takes_some_two_hundred_kept_ones_give_back() -> None:
    guard = Guard()
    guard.observe(settled=1, late=1)
    guard.observe(settled=200, late=0)
    assert guard.share == pytest.approx(1.0)


def test_kept_promises_beside_broken_ones_count_too() -> None:
    guard = Guard()
    guard.observe(settled=101, late=1)
    assert guard.share == pytest.approx(0.95)


def test_a_guard_reaches_both_of_its_bounds() -> None:
    guard = Guard()
    guard.observe(settled=5000, late=0)
    assert guard.share == MOST_SHARE
    for _ in range(11):
        guard.observe(settled=1, late=1)
    assert guard.share == LEAST_SHARE


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 50)), max_size=30))
def test_a_share_never_leaves_its_bounds(events: list[tuple[int, int]]) -> None:
    guard = Guard()
    for kept, late in events:
        guard.observe(kept + late, late)
        assert LEAST_SHARE <= guard.share <= MOST_SHARE


def late_share_of(risk: float) -> float:
    """Broken promises under a guard, where a share s of the objective breaks one with probability risk · s⁸."""
    guard, dice = Guard(), random.Random(7)
    late = []
    for _ in range(50_000):
        is_late = dice.random() < risk * guard.share**8
        guard.observe(1, int(is_late))
        late.append(is_late)
    return fmean(late[10_000:])


def test_a_guard_settles_near_half_a_percent_of_broken_promises() -> None:
    for risk in (0.1, 0.02, 0.005, 0.001):
        assert 0.5 * LATE_SHARE < late_share_of(risk) < 1.5 * LATE_SHARE < A_PERCENT
