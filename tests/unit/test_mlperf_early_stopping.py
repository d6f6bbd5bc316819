"""How many queries prove a percentile."""

from itertools import pairwise
from math import comb

import numpy as np
import pytest

from loadtest.mlperf.early_stopping import estimate, most_over, queries_needed

OVER = (0, 1, 2, 5, 10, 20, 50, 100, 200)


@pytest.mark.parametrize(
    ("share", "needed"),
    [
        (0.99, (459, 662, 838, 1307, 2010, 3304, 6898, 12571, 23527)),
        (0.9, (44, 64, 81, 127, 197, 325, 681, 1246, 2337)),
    ],
)
def test_the_numbers_are_those_of_the_rules(share: float, needed: tuple[int, ...]) -> None:
    assert tuple(queries_needed(over, share) for over in OVER) == needed


def test_one_query_fewer_does_not_prove_it() -> None:
    """By the binomial distribution in whole numbers: the chance of no more than 5 of q beyond, each with 1 in 10."""
    needed = queries_needed(5, 0.9)

    def chance(queries: int) -> float:
        return sum(comb(queries, k) * 9 ** (queries - k) for k in range(6)) / 10**queries

    assert chance(needed) <= 0.01 < chance(needed - 1)


def test_large_numbers_are_no_trouble() -> None:
    assert 100 * 50_000 < queries_needed(50_000, 0.99) < 102 * 50_000


def test_more_beyond_the_bound_need_more_queries() -> None:
    needed = [queries_needed(over, 0.99) for over in range(100)]

    assert all(one < other for one, other in pairwise(needed))


@pytest.mark.parametrize(
    ("queries", "share", "over"),
    [(43, 0.9, None), (44, 0.9, 0), (63, 0.9, 0), (64, 0.9, 1), (458, 0.99, None), (838, 0.99, 2)],
)
def test_so_many_may_be_beyond_the_bound(queries: int, share: float, over: int | None) -> None:
    assert most_over(queries, share) == over


@pytest.mark.parametrize(
    ("queries", "share", "discarded"),
    [(2048, 0.9, 172), (2145, 0.9, 181), (7469, 0.9, 685), (1_179_125, 0.99, 11_539)],
)
def test_the_estimate_discards_as_many_as_loadgen_prints(queries: int, share: float, discarded: int) -> None:
    """Figures of published summaries of MLPerf's LoadGen: "Would discard N highest latency queries"."""
    assert estimate(np.arange(float(queries)), share) == queries - 1 - discarded


def test_too_few_queries_have_no_estimate() -> None:
    assert estimate(np.arange(63.0), 0.9) is None
    assert estimate(np.arange(64.0), 0.9) == 63.0
