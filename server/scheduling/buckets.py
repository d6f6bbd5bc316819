"""Which rows run together where a batch is filled up to a bucket. Pure: numbers and a cost table in, numbers out.

A runtime that plans for one shape at a time (a GPU's graphs, a compiled engine) wants few shapes; filling a batch up
costs as much as if the rows were real. So a batch that ends a little above a bucket may be better cut down to it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import inf

from server.scheduling.costs import CostTable


def padded(rows: int, sizes: Sequence[int]) -> int:
    """Rows to run for so many: the next of `sizes`, or as many where there is none."""
    i = bisect_left(sizes, rows)
    return sizes[i] if i < len(sizes) else rows


def worth_taking(prefix_rows: Sequence[int], costs: CostTable) -> int:
    """How many of the first requests to run now, filled up to a bucket: what yields the most rows a second.

    `prefix_rows[i]` is the rows of the first i+1 requests. Two choices are compared: all of them, in the next larger
    bucket, and those that fit into the next smaller one; the others wait. No request is split. Without known costs,
    and where both are as good, all. `costs` are those of a table that fills.
    """
    rows = prefix_rows[-1]
    sizes = costs.sizes
    i = bisect_left(sizes, rows)
    if i in (0, len(sizes)) or sizes[i] == rows:
        return len(prefix_rows)
    fewer = bisect_right(prefix_rows, sizes[i - 1])
    if not fewer:
        return len(prefix_rows)
    fewer_rows = prefix_rows[fewer - 1]
    up, down = costs.typical(rows), costs.typical(fewer_rows)
    return fewer if up < inf and fewer_rows * up > rows * down else len(prefix_rows)
