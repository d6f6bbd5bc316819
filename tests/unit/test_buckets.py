"""Which rows run together where a batch is filled up."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.scheduling.buckets import padded, worth_taking
from server.scheduling.costs import CostTable
from server.scheduling.policy import WindowPolicy
from server.scheduling.queue import BatchQueue
from tests.fakes import NamedTicket, names


def table(*seconds: float) -> CostTable:
    """A table of buckets 1, 2, 4, …, one for each cost."""
    costs = CostTable([1 << i for i in range(len(seconds))], fills=True)
    for size, cost in zip(costs.sizes, seconds, strict=True):
        costs.observe(size, cost)
    return costs


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (3, 4), (4, 4), (5, 6), (7, 7)])
def test_a_batch_is_filled_up_to_the_next_size_or_to_none(rows: int, size: int) -> None:
    assert padded(rows, (1, 2, 4, 6)) == size
    assert padded(rows, ()) == rows


@pytest.mark.parametrize(
    ("requests", "seconds_of_8", "taken"),
    [
        pytest.param([1, 1, 1, 1], 6, 4, id="a batch that fills its bucket runs as it is"),
        pytest.param([1, 1, 1, 1, 1], 6, 4, id="5 rows in 6 seconds are less than 4 in 3"),
        pytest.param([1, 1, 1, 1, 1, 1, 1], 5, 7, id="7 rows in 5 seconds are more than 4 in 3"),
        pytest.param([2, 1, 2], 6, 2, id="5 rows in 6 seconds are less than 3 in 3, filled up to 4"),
        pytest.param([4, 1], 6, 1, id="the first request fills the smaller bucket"),
        pytest.param([5], 60, 1, id="a request is never split"),
        pytest.param([5, 1], 60, 2, id="nothing fits into the smaller bucket"),
    ],
)
def test_the_better_of_filling_up_and_cutting_down_is_taken(
    requests: list[int], seconds_of_8: float, taken: int
) -> None:
    assert worth_taking(list(accumulate(requests)), table(1, 2, 3, seconds_of_8)) == taken


def test_where_both_are_as_good_all_are_taken() -> None:
    assert worth_taking([1, 2, 3], table(1, 2, 3)) == 3


def test_without_known_costs_all_are_taken() -> None:
    assert worth_taking([1, 2, 3], CostTable((1, 2, 4), fills=True)) == 3
    half = CostTable((1, 2, 4), fills=True)
    half.observe(2, 1.0)
    assert worth_taking([1, 2, 3], half) == 3


@given(st.lists(st.integers(1, 8), min_size=1, max_size=20), st.lists(st.floats(0.001, 10), min_size=5, max_size=5))
def test_what_is_taken_yields_at_least_as_much_as_all(requests: list[int], seconds: list[float]) -> None:
    costs = table(*sorted(seconds))
    prefix = [rows for rows in accumulate(requests) if rows <= 16] or [requests[0]]
    taken = worth_taking(prefix, costs)
    assert 1 <= taken <= len(prefix)
    some, everything = prefix[taken - 1], prefix[-1]
    rate = some / costs.typical(padded(some, costs.sizes))
    assert rate >= everything / costs.typical(padded(everything, costs.sizes)) * (1 - 1e-9)


def test_a_queue_leaves_what_is_not_worth_taking_in_its_place() -> None:
    cuts: list[list[int]] = []

    def first_two(prefix_rows: object) -> int:
        assert isinstance(prefix_rows, list)
        cuts.append(prefix_rows)
        return min(2, len(prefix_rows))

    queue = BatchQueue[NamedTicket](WindowPolicy(max_rows=8), worth_taking=first_two)
    for name in "abc":
        queue.put(NamedTicket(name, rows=2))
    assert names(queue.take(now=0)) == ["a", "b"]
    assert names(queue.take(now=0)) == ["c"]
    assert cuts == [[2, 4, 6], [2]]
    assert len(queue) == queue.rows == 0


def test_a_batch_that_is_not_due_is_not_cut_into_running() -> None:
    def never(_: object) -> int:
        raise AssertionError("asked about a batch that does not run")

    queue = BatchQueue[NamedTicket](WindowPolicy(max_rows=8, preferred_rows=(2,), max_delay=1), worth_taking=never)
    queue.put(NamedTicket("a", rows=3))
    assert queue.take(now=0) == []


def test_a_batch_below_the_smallest_bucket_or_above_the_largest_is_not_cut() -> None:
    costs = CostTable((2, 4), fills=True)
    for size in costs.sizes:
        costs.observe(size, float(size))
    assert worth_taking([1], costs) == 1
    assert worth_taking([1, 2, 3, 4, 5], costs) == 5


def test_a_batch_above_the_smallest_bucket_is_cut_down_to_it() -> None:
    costs = CostTable((2, 4), fills=True)
    for size, seconds in ((2, 1.0), (4, 3.0)):
        costs.observe(size, seconds)
    assert worth_taking([1, 2, 3], costs) == 2
