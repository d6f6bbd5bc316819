"""The event-loop shell around a queue: one alarm, lanes that are idle or busy, and draining.

Everything here runs on the event loop's thread. Callers are answered through the two callbacks given to the
constructor, never from inside `submit`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from math import inf
from typing import Generic, Protocol, TypeVar

from server.scheduling.clock import Clock
from server.scheduling.lanes import Lane
from server.scheduling.queue import Ticket
from server.scheduling.turns import Taker, Turns

T = TypeVar("T", bound=Ticket)
R = TypeVar("R")


class Queue(Protocol[T]):
    """Who waits, who runs next, and when. Pure: `now` is an argument. `queue.BatchQueue` is one."""

    @property
    def rows(self) -> int:
        """Of all requests that wait."""
        ...

    def __len__(self) -> int:
        """Requests that wait."""
        ...

    def put(self, ticket: T) -> None:
        """Add a request that arrives now. Raises `Unavailable` where it is turned away."""
        ...

    def discard(self, ticket: T) -> bool:
        """Forget a request whose caller went away. False where it is not waiting here any more."""
        ...

    def expire(self, now: float) -> list[T]:
        """Remove and return the requests that must not run any more."""
        ...

    def take(self, now: float, hurry: bool = False) -> list[T]:
        """Remove and return the batch to run now; [] where waiting is better. In a hurry, it never is."""
        ...

    def ended(self, batch: Sequence[T], now: float) -> None:
        """A batch that was taken has ended, well or not: its lane is free."""
        ...

    def answered(self, batch: Sequence[T], now: float) -> None:
        """The requests of a batch that ended have been answered."""
        ...

    def clear(self) -> list[T]:
        """Remove and return everything that waits, oldest first."""
        ...

    def limit_rows(self, max_rows: int, signature: Hashable) -> None:
        """Let batches of this signature hold at most so many rows from now on. A larger request runs alone."""
        ...

    def oldest_arrival(self) -> float:
        """When the request that has waited longest came; inf where nothing waits."""
        ...

    def next_due(self) -> float:
        """When `take` will have a batch, even if nothing joins it; inf where nothing waits."""
        ...

    def next_deadline(self) -> float:
        """When `expire` has something to do next; inf where it never has."""
        ...


def _unheard(_: float) -> None:
    pass


class Batcher(Generic[T, R]):
    """Feeds the lanes of one model version from its queue.

    `finished(batch, outcome)` is called once for every batch that ran; `expired(ticket)` once for every request whose
    deadline came while it waited. A request that `cancel` took out of the queue is reported to neither.

    With `turns`, which batchers share, a batch is formed only when it may run beside those of the others; the requests
    wait in the queue until then. `waited(seconds)` is told for how long, each time.

    `lane_of(batch)` is the lane that a batch must run on, by its place in `lanes`, for a queue that gives out only
    batches of idle ones; without it, any idle lane will do.
    """

    def __init__(
        self,
        queue: Queue[T],
        lanes: Sequence[Lane[T, R]],
        clock: Clock,
        *,
        finished: Callable[[Sequence[T], R | Exception], None],
        expired: Callable[[T], None],
        turns: Turns | None = None,
        waited: Callable[[float], None] = _unheard,
        lane_of: Callable[[Sequence[T]], int] | None = None,
    ) -> None:
        self._queue = queue
        self._lanes = tuple(lanes)
        self._idle = list(lanes)
        self._busy_seconds = dict.fromkeys(self._lanes, 0.0)
        self._busy_since: dict[Lane[T, R], float] = {}
        self._clock = clock
        self._finished = finished
        self._expired = expired
        self._turns = turns or Turns()
        self._taker = Taker(self._pump)
        self._waited = waited
        self._lane_of = lane_of
        self._in_line_since: float | None = None
        self._loop = asyncio.get_running_loop()
        self._alarm = clock.alarm(self._pump)
        self._pump_scheduled = False
        self._draining = False
        self._drained: asyncio.Future[None] | None = None

    @property
    def pending(self) -> int:
        """Requests that wait for a batch."""
        return len(self._queue)

    @property
    def pending_rows(self) -> int:
        """Their rows."""
        return self._queue.rows

    @property
    def running(self) -> int:
        """Batches that are running."""
        return len(self._lanes) - len(self._idle)

    def oldest_arrival(self) -> float:
        """When the request that has waited longest came; inf where nothing waits."""
        return self._queue.oldest_arrival()

    def busy_seconds(self) -> list[float]:
        """For how long each lane has had a batch so far, from when it was handed over until the loop had it back."""
        now = self._clock.now()
        since = self._busy_since
        return [seconds + now - since.get(lane, now) for lane, seconds in self._busy_seconds.items()]

    def submit(self, ticket: T) -> None:
        """Queue a request. Raises `Unavailable` where it is turned away."""
        self._queue.put(ticket)
        # With every lane busy, only a deadline can come before the next batch ends.
        if not self._pump_scheduled and (self._idle or ticket.expires < self._alarm.when):
            # Not at once: the rest of what the loop has just read from the sockets may share the batch.
            self._pump_soon()

    def cancel(self, ticket: T) -> bool:
        """Take a request out of the queue. False where it runs already or is done."""
        left = self._queue.discard(ticket)
        if left and (self._idle or self._draining):
            self._pump_soon()  # those behind it may be a preferred size now, or it may have been the last one
        return left

    def limit_rows(self, max_rows: int, signature: Hashable) -> None:
        """Let batches of this signature hold at most so many rows from now on. A larger request runs alone."""
        self._queue.limit_rows(max_rows, signature)
        if self._queue:
            self._pump_soon()  # what waits may be a full batch now

    def clear(self) -> list[T]:
        """Take everything out of the queue and return it, oldest first. It is reported to neither callback."""
        return self._queue.clear()

    def hurry(self) -> None:
        """From now on, nothing waits for company."""
        self._draining = True
        self._pump()

    async def drain(self) -> None:
        """Run what is queued without waiting for company; return when all of it is finished.

        Requests submitted meanwhile are run too: refusing them is the caller's affair.
        """
        if self._drained is None:
            self._drained = self._loop.create_future()
        self.hurry()
        await asyncio.shield(self._drained)

    def close(self) -> None:
        """Release the alarm and stop the lanes. Only after `drain`."""
        self._alarm.close()
        for lane in self._lanes:
            lane.close()

    def _pump_soon(self) -> None:
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self._scheduled_pump)

    def _scheduled_pump(self) -> None:
        self._pump_scheduled = False
        self._pump()

    def _pump(self) -> None:
        """Do everything that can be done now, then set the alarm for the next thing."""
        queue = self._queue
        now = self._clock.now()
        late = queue.expire(now)
        self._start_batches(now)
        # With every lane busy, a due batch waits for one of them and not for the clock; and so it does for a turn.
        clock_decides = self._idle and self._in_line_since is None
        self._alarm.set(min(queue.next_deadline(), queue.next_due() if clock_decides else inf))
        for ticket in late:
            self._expired(ticket)
        # A pump that is still to come must not find the alarm closed.
        under_way = queue or self.running or self._pump_scheduled
        if self._drained and not self._drained.done() and not under_way:
            self._drained.set_result(None)

    def _start_batches(self, now: float) -> None:
        """Start what may run now. Stand in line where only other batchers' batches are in the way."""
        queue, turns, taker = self._queue, self._turns, self._taker
        while self._idle and turns.may_begin(taker) and (batch := queue.take(now, self._draining)):
            if self._in_line_since is not None:
                self._leave_line(now)
            has_turn = turns.begin(taker)
            lane = self._idle.pop() if self._lane_of is None else self._claim(self._lane_of(batch))
            self._busy_since[lane] = now
            lane.submit(batch, partial(self._done, lane, batch, has_turn, now))
        if self._idle and not turns.may_begin(taker) and queue:
            turns.wait(taker, queue.next_due(), queue.next_deadline())
            if self._in_line_since is None:
                self._in_line_since = now
        elif self._in_line_since is not None:
            self._leave_line(now)

    def _claim(self, index: int) -> Lane[T, R]:
        lane = self._lanes[index]
        self._idle.remove(lane)
        return lane

    def _leave_line(self, now: float) -> None:
        assert self._in_line_since is not None
        self._turns.leave(self._taker)
        self._waited(now - self._in_line_since)
        self._in_line_since = None

    def _done(
        self, lane: Lane[T, R], batch: Sequence[T], had_turn: bool, started: float, outcome: R | Exception
    ) -> None:
        now = self._clock.now()
        seconds = now - started
        self._busy_seconds[lane] += seconds
        del self._busy_since[lane]
        self._idle.append(lane)
        self._queue.ended(batch, now)
        self._turns.end(self._taker, had_turn, seconds)
        # Before answering, so that this lane, and whoever is called, works while the answers are written.
        self._pump()
        self._turns.call_next()
        self._finished(batch, outcome)
        self._queue.answered(batch, self._clock.now())
