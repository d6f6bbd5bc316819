"""A client's stream of requests, in the test's hands."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from tests.engines.hosting import PATIENCE_SECONDS


class Requests:
    """A request stream that the test fills and ends."""

    def __init__(self, *first: Any) -> None:
        self._queued = list(first)
        self._ended = False
        self._changed = threading.Condition()

    def put(self, request: Any) -> None:
        with self._changed:
            self._queued.append(request)
            self._changed.notify()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: self._queued or self._ended, PATIENCE_SECONDS)
            if not self._queued:
                raise StopIteration
            return self._queued.pop(0)
