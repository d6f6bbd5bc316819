"""Several servers behind a balancer: each request goes to one of them, and each has a queue and lanes of its own."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from math import nextafter

import numpy as np

from loadtest.simulation.engine import Engine
from loadtest.simulation.tally import Tally


class Balancer(StrEnum):
    """Which server a request goes to."""

    ROUND_ROBIN = "round-robin"
    """The next one: what a gRPC client with `round_robin` does."""
    RANDOM = "random"
    """Any: what many clients that take turns, each by itself, come to."""
    LEAST = "least"
    """The one with the fewest requests that wait or run: nginx with `least_conn`, as the only one of its kind."""


class Fleet:
    """What `Engine` is for one server, for several. They count into one tally."""

    def __init__(self, engines: Sequence[Engine], balancer: Balancer, rng: np.random.Generator) -> None:
        self._engines = engines
        self._balancer = balancer
        self._rng = rng
        self._next = 0

    @property
    def tally(self) -> Tally:
        return self._engines[0].tally

    @tally.setter
    def tally(self, tally: Tally) -> None:
        for engine in self._engines:
            engine.tally = tally

    @property
    def present(self) -> int:
        """Requests that wait or run."""
        return sum(engine.present for engine in self._engines)

    def run(self, times: list[float], rows: list[int] | None, until: float) -> None:
        """Let these requests arrive, all before `until`, and do everything that happens before it."""
        if self._balancer is Balancer.LEAST and len(self._engines) > 1:
            for i, when in enumerate(times):
                chosen = self._least(when)
                chosen.run([when], None if rows is None else [rows[i]], nextafter(when, until))
            times, rows = [], None
        chosen_by = self._chosen(len(times))
        for number, engine in enumerate(self._engines):
            mine = np.flatnonzero(chosen_by == number).tolist()
            engine.run([times[i] for i in mine], None if rows is None else [rows[i] for i in mine], until)

    def _chosen(self, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Servers by number for so many requests, whatever state they are in."""
        servers = len(self._engines)
        if self._balancer is Balancer.RANDOM:
            return self._rng.integers(servers, size=count)
        first, self._next = self._next, (self._next + count) % servers
        return (first + np.arange(count)) % servers

    def _least(self, when: float) -> Engine:
        """The server with the fewest requests at this time; of several the next in turn."""
        for engine in self._engines:
            if engine.next_event < when:
                engine.run([], None, when)
        servers = len(self._engines)
        turns = [(self._next + i) % servers for i in range(servers)]
        chosen = min(turns, key=lambda number: self._engines[number].present)
        self._next = (chosen + 1) % servers
        return self._engines[chosen]
