"""Requests of more rows than a batch may hold: queued in parts, of which nothing waits once their fate is known."""

from __future__ import annotations

from collections.abc import Sequence

from server.errors import TooLarge, Unavailable
from server.models.execution import BatchResult, Run, note_runs
from server.models.work import Answer, Whole, Work
from server.scheduling.batcher import Batcher


class Parts:
    """Of one version. On the event loop's thread."""

    def __init__(self, batcher: Batcher[Work, BatchResult], model: str) -> None:
        """`model` is its name, for refusals."""
        self._batcher = batcher
        self._model = model

    def submit(self, whole: Whole, max_rows: int, most_rows: int) -> None:
        """Queue all parts of a request, each of at most `max_rows`, or none.

        Raises `Unavailable`, and `TooLarge` where they never fit: no more than `most_rows` may wait.
        """
        if whole.rows > most_rows:
            raise TooLarge(
                f"{whole.request.label()}inference request batch-size must be <= {most_rows} for '{self._model}': "
                "no more may wait, even in parts"
            )
        queued: list[Work] = []
        try:
            for part in whole.split(max_rows):
                self._batcher.submit(part)
                queued.append(part)
        except Unavailable:
            for part in queued:
                self._batcher.cancel(part)
            raise

    def give_up(self, whole: Whole) -> bool:
        """Let no other part of a request run that does not run already. False where the request is done with."""
        if whole.done:
            return False
        whole.done = True
        self._drop(whole)
        return True

    def collect(self, whole: Whole, part: Work, answer: Answer, started_ns: int, runs: Sequence[Run]) -> Answer | None:
        """A part has ended: return the whole's answer where it is known now."""
        part.inputs = []
        if whole.done:
            return None
        if whole.request.record is not None:
            note_runs(whole.request.record, part, runs)
        joined = whole.collect(part, answer, started_ns)
        if joined is not None:
            self._drop(whole)  # where it failed, some may wait
        return joined

    def _drop(self, whole: Whole) -> None:
        for part in whole.parts:
            self._batcher.cancel(part)
        whole.parts = []  # they know the whole: nothing should wait for a garbage collection
