"""Virtual time around a queue: what `server.scheduling.batcher` does around it on the event loop.

Each turn goes to the next event: an arrival, the end of a batch, or the queue's alarm. The queue sees the same calls
in the same order with the same times as from `Batcher`; a test holds the two against each other. What is left out can
have no effect: nothing is asked of a queue that is known to be empty.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count
from math import exp, inf

from loadtest.errors import LoadTestError
from loadtest.simulation.tally import Tally
from server.errors import Unavailable
from server.scheduling.batcher import Queue
from server.scheduling.queue import Ticket

MAX_RINGS = 10_000
"""Alarms in a row at one moment: then time stands still, and the server would spin."""

_Batch = tuple[float, int, list[Ticket], int, float]
"""When it ends, a serial number, who is in it, its rows, its seconds."""


class Engine:
    """One model version: a queue, its lanes, and what batches take."""

    def __init__(
        self,
        queue: Queue[Ticket],
        lanes: int,
        tally: Tally,
        *,
        typical: list[float],
        spread: list[float],
        normals: Iterator[float],
        rows: int = 1,
        timeout: float = inf,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        """`typical[n]` and `spread[n]`: median seconds of n rows, sigma of their logarithm. `rows`: of a request that
        brings none. `timeout`: from arrival to a ticket's deadline. `observe(rows, seconds)` hears of every batch."""
        self.tally = tally
        self._queue = queue
        self._idle = lanes
        self._typical = typical
        self._spread = spread
        self._normals = normals
        self._rows = rows
        self._timeout = timeout
        self._observe = observe
        self._running: list[_Batch] = []  # a heap: the first to end is first
        self._waiting = 0
        self._alarm = inf
        self._serial = count()
        self._now = 0.0

    @property
    def present(self) -> int:
        """Requests that wait or run."""
        return self._waiting + sum(len(batch) for _, _, batch, _, _ in self._running)

    @property
    def next_event(self) -> float:
        """When something happens here next if nothing arrives."""
        return min(self._running[0][0], self._alarm) if self._running else self._alarm

    def run(self, times: list[float], rows: list[int] | None, until: float) -> None:
        """Let these requests arrive, all before `until`, and do everything that happens before it.

        One long function, since in Python a call costs more than most of what is done here for a request.
        """
        queue, running, tally = self._queue, self._running, self.tally
        put, expire, take, ended, answered = queue.put, queue.expire, queue.take, queue.ended, queue.answered
        next_due, next_deadline = queue.next_due, queue.next_deadline
        typical, spread, normals, observe = self._typical, self._spread, self._normals, self._observe
        own_rows, timeout, serial, refused = self._rows, self._timeout, self._serial, tally.refused
        idle, waiting, alarm, now = self._idle, self._waiting, self._alarm, self._now
        arrivals: list[float] = []
        ends: list[float] = []
        batch_requests: list[int] = []
        batch_rows: list[int] = []
        batch_seconds: list[float] = []
        i, total, rings = 0, len(times), 0
        while True:
            end = running[0][0] if running else inf
            event = end if end < alarm else alarm
            if event > until:
                event = until
            if event < now:  # an alarm for a time past rings at once
                event = now
            now = event
            if i < total and times[i] < event:
                first = i
                if idle:  # what arrives at one moment may share a batch
                    now = times[i]
                    last = bisect_right(times, now, i)
                    soonest = -inf
                else:  # only an expiry can come before the event
                    last = bisect_left(times, event, i)
                    soonest = alarm
                turned_away = 0
                for i in range(first, last):
                    when = times[i]
                    ticket = Ticket(own_rows if rows is None else rows[i], None, when, when + timeout)
                    try:
                        put(ticket)
                    except Unavailable as error:
                        refused[type(error).__name__] += 1
                        turned_away += 1
                        continue
                    if ticket.expires < soonest:
                        now = when
                        break
                i += 1
                waiting += i - first - turned_away
            done = None
            if now == event:
                if event == until:
                    break
                if event == end:
                    done = heappop(running)
                    idle += 1
                    ended(done[2], now)
                    rings = 0
                else:
                    rings += 1
                    if rings > MAX_RINGS:
                        raise LoadTestError(f"the policy sets its alarm again and again, at {now} s, and does nothing")
            # From here on as `Batcher._pump`, and for a batch that ended as what follows it.
            late = expire(now) if waiting else ()
            if late:
                waiting -= len(late)
                tally.expired += len(late)
                rings = 0
            while idle and waiting and (batch := take(now)):
                waiting -= len(batch)
                idle -= 1
                size = len(batch) * own_rows if rows is None else sum([ticket.rows for ticket in batch])
                seconds = typical[size] * exp(spread[size] * next(normals))
                heappush(running, (now + seconds, next(serial), batch, size, seconds))
            alarm = inf
            if waiting:
                alarm = next_deadline()
                if idle and (due := next_due()) < alarm:
                    alarm = due
            if done is not None:
                _, _, batch, size, seconds = done
                ends.append(now)
                batch_requests.append(len(batch))
                batch_rows.append(size)
                batch_seconds.append(seconds)
                arrivals += [ticket.arrived for ticket in batch]
                if observe is not None:
                    observe(size, seconds)
                answered(batch, now)
        self._idle, self._waiting, self._alarm, self._now = idle, waiting, alarm, now
        tally.arrived += total
        tally.record(arrivals, ends, batch_requests, batch_rows, batch_seconds)
