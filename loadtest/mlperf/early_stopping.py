"""How many queries prove a percentile: the early-stopping criterion of the MLPerf Inference rules. Pure.

A run whose over-latency queries are `over` shows with 99 % confidence that `share` of all queries are within the bound
as soon as it has q queries with I(share; q - over, over + 1) ≤ 0.01, I the regularised incomplete beta function: the
chance that no more than `over` of q would be beyond the bound if the share were no better than that.
"""

from __future__ import annotations

from math import ceil, exp, lgamma, log, log1p

from loadtest.open_loop.outcome import Floats

CONFIDENCE = 0.99
_NEGLIGIBLE = 1e-17


def queries_needed(over: int, share: float) -> int:
    """The fewest queries that prove `share` with `over` of them beyond the bound."""
    low = ceil(over / (1 - share))  # as many are beyond as expected: proves nothing
    high = 2 * low + 2
    while _chance(high, over, share) > 1 - CONFIDENCE:
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        if _chance(middle, over, share) <= 1 - CONFIDENCE:
            high = middle
        else:
            low = middle
    return high


def most_over(queries: int, share: float) -> int | None:
    """How many of `queries` may be beyond a bound at most and prove `share` still; None where none may."""
    low, high = -1, ceil(queries * (1 - share))
    while high - low > 1:
        middle = (low + high) // 2
        if queries_needed(middle, share) <= queries:
            low = middle
        else:
            high = middle
    return low if low >= 0 else None


def estimate(ascending: Floats, share: float) -> float | None:
    """The early-stopping estimate of a percentile: a latency that `share` of all queries are proven to be below.

    Where t may be beyond, it is the t-th highest, as MLPerf's LoadGen has it: of 2,048 queries and 90 %, 172 are
    discarded. None where there are too few queries to discard any (fewer than `queries_needed(1, share)`).
    """
    over = most_over(len(ascending), share)
    return float(ascending[len(ascending) - over]) if over else None


def _chance(queries: int, over: int, share: float) -> float:
    """Of no more than `over` beyond the bound among `queries`, each with chance 1 - share: a binomial distribution.

    Summed from its largest term down; `over` is below the mean.
    """
    beyond = 1 - share
    log_term = lgamma(queries + 1) - lgamma(over + 1) - lgamma(queries - over + 1)
    term = total = exp(log_term + over * log(beyond) + (queries - over) * log1p(-beyond))
    for k in range(over, 0, -1):
        term *= k * share / ((queries - k + 1) * beyond)
        total += term
        if term < total * _NEGLIGIBLE:
            break
    return total
