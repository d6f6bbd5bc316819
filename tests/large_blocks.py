"""Pages of large requests, made when a test says so."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import NamedTuple

from server.pages import Populator


class Asked(NamedTuple):
    """Whoever waits for pages."""

    length: int
    go_on: Callable[[], object]


class PagesOnDemand(Populator):
    """Makes none, and says so to whoever waits when the test calls `go_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: SimpleQueue[Asked] = SimpleQueue()

    def populate(self, loop: AbstractEventLoop, address: int, length: int, then: Callable[[], None]) -> None:
        self.asked.put(Asked(length, partial(loop.call_soon_threadsafe, then)))
