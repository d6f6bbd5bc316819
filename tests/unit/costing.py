"""Cost tables for tests: what a batch takes, as a function of its rows."""

from __future__ import annotations

from collections.abc import Callable

from server.scheduling.costs import CostTable, bucket_sizes

Seconds = Callable[[int], float]


def linear(fixed: float, per_row: float) -> Seconds:
    """A fixed part for the batch, and one for every row."""
    return lambda rows: fixed + per_row * rows


def flat(seconds: float) -> Seconds:
    """A batch takes what a row takes."""
    return lambda _: seconds


def stepped(seconds: float, width: int) -> Seconds:
    """So many rows run beside each other."""
    return lambda rows: seconds * -(-rows // width)


def measure(costs: CostTable, seconds: Seconds, worst: float = 1.0) -> None:
    """Calibrate a table: every bucket has typically taken `seconds`, and once in a while `worst` times that."""
    for size in costs.sizes:
        for factor in (1.0, 1.0, 1.0, worst):
            costs.observe(size, seconds(size) * factor)


def cost_table(max_rows: int, seconds: Seconds, worst: float = 1.0) -> CostTable:
    """A calibrated table of the usual buckets."""
    costs = CostTable(bucket_sizes(max_rows))
    measure(costs, seconds, worst)
    return costs
