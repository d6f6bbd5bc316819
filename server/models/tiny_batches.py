"""Which batches are so quick that the event loop's own thread runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from server.models.work import Work
from server.scheduling.costs import CostTable

TINY_BATCH_SECONDS = 300e-6
"""A batch that is expected to take less than this runs on the event loop's thread: handing it over and back costs a
fifth to a third more CPU, and no answer comes sooner (docs/performance.md). It holds up the event loop for as long."""

STALLED = 10
"""A tiny batch that the kernel held up may have taken so many times as long. Where one took longer, what a run takes
depends on what it is given, and the event loop is no place for it."""


class TinyBatches:
    """Those of one version."""

    __slots__ = ("_costs", "_run_rows", "_seconds")

    def __init__(self, costs: CostTable, run_rows: Callable[[Sequence[Work]], int] | None, seconds: float) -> None:
        """`run_rows` gives the rows of a batch's run; None where they are those of its requests together. `seconds`:
        what takes less is tiny."""
        self._costs = costs
        self._run_rows = run_rows
        self._seconds = seconds

    def has(self, batch: Sequence[Work]) -> bool:
        """Whether this batch is one, by what batches of its size took."""
        # By batches of requests alone: on made-up inputs, a model that loops may be quick for no reason.
        rows = sum([work.rows for work in batch]) if self._run_rows is None else self._run_rows(batch)
        costs, seconds = self._costs, self._seconds
        return costs.typical_served(rows) < seconds and costs.worst_served(rows) < STALLED * seconds
