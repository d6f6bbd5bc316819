"""A batcher over puppet lanes, for the tests of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from server.scheduling.batcher import Batcher, Queue
from server.scheduling.clock import LoopClock
from server.scheduling.policy import LevelPolicy, WindowPolicy
from server.scheduling.queue import BatchQueue
from server.scheduling.turns import Turns
from tests.fakes import CountingClock, NamedTicket, PuppetLane, names


def window_policy(**policy: Any) -> WindowPolicy:
    """Batches of 4 rows; fields of `LevelPolicy` are those of its only level."""
    bounds = {name: policy.pop(name) for name in ("max_queued_rows", "max_queued_requests") if name in policy}
    return WindowPolicy(**{"max_rows": 4, "levels": (LevelPolicy(**bounds),), **policy})


class BatcherBench:
    """A batcher over puppet lanes, and all that it reported."""

    def __init__(
        self,
        *lanes: PuppetLane,
        queue: Queue[NamedTicket] | None = None,
        turns: Turns | None = None,
        lane_of: Callable[[Sequence[NamedTicket]], int] | None = None,
        **policy: Any,
    ) -> None:
        self.lanes = lanes or (PuppetLane(),)
        self.loop = asyncio.get_running_loop()
        self.clock = CountingClock(LoopClock(self.loop))
        self.finished: list[tuple[float, list[object], object]] = []
        self.expired: list[tuple[float, object]] = []
        self.waited: list[float] = []
        """Seconds, each time that a turn was waited for."""
        self.batcher: Batcher[NamedTicket, object] = Batcher(
            BatchQueue(window_policy(**policy)) if queue is None else queue,
            self.lanes,
            self.clock,
            finished=self._finished,
            expired=lambda ticket: self.expired.append((self.loop.time(), ticket.name)),
            turns=turns,
            waited=self.waited.append,
            lane_of=lane_of,
        )

    def submit(
        self,
        name: object,
        rows: int = 1,
        *,
        signature: object = None,
        timeout: float = inf,
        delay: float = inf,
        level: int = 1,
    ) -> NamedTicket:
        now = self.clock.now()
        ticket = NamedTicket(name, rows, signature, now, now + timeout, level=level, delay_at=now + delay)
        self.batcher.submit(ticket)
        return ticket

    async def at(self, when: float) -> None:
        """Wait for a moment of virtual time."""
        await asyncio.sleep(when - self.loop.time())

    @property
    def batches(self) -> list[tuple[float, list[object]]]:
        return sorted(batch for lane in self.lanes for batch in lane.batches)

    def _finished(self, batch: Sequence[NamedTicket], outcome: object) -> None:
        self.finished.append((self.loop.time(), names(batch), outcome))
