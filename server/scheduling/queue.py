"""The requests that wait for one model version. Pure: time is an argument and a batch is a return value.

Rules of this file:
- A batch holds requests of one signature only, oldest first, and is a prefix of that signature's own line: one odd
  shape neither closes nor delays anyone else's batch.
- A request leaves the queue exactly once: by `take`, `discard` or `expire`.
- Nothing here knows a clock, an event loop, a thread or a tensor.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Generic, TypeVar

from server.errors import QueueFull
from server.scheduling.policy import WindowPolicy


class Ticket:
    """One request's place in the queue. Subclasses add what the request is."""

    __slots__ = ("arrived", "deadline", "rows", "signature", "waiting")

    def __init__(self, rows: int, signature: Hashable, arrived: float, deadline: float = inf) -> None:
        self.rows = rows
        self.signature = signature
        """Only tickets with equal signatures share a batch."""
        self.arrived = arrived
        self.deadline = deadline
        """When it must have left the queue, on the same clock as `arrived`."""
        self.waiting = False
        """True from `put` until it leaves."""


T = TypeVar("T", bound=Ticket)


class _Line(Generic[T]):
    """The waiting requests of one signature, oldest first."""

    __slots__ = ("rows", "tickets")

    def __init__(self) -> None:
        self.tickets: OrderedDict[T, None] = OrderedDict()
        self.rows = 0

    def oldest(self) -> T:
        return next(iter(self.tickets))


class BatchQueue(Generic[T]):
    """First come, first served within a signature; the signature whose oldest request came first goes first."""

    def __init__(self, policy: WindowPolicy) -> None:
        self._policy = policy
        self._lines: dict[Hashable, _Line[T]] = {}  # never an empty line
        self._deadlines: list[tuple[float, int, T]] = []  # a heap; may name tickets that have left
        self._serial = count()
        self._rows = 0
        self._requests = 0

    @property
    def rows(self) -> int:
        return self._rows

    def __len__(self) -> int:
        return self._requests

    def put(self, ticket: T) -> None:
        """Add a request. Raises `QueueFull`, and `ValueError` for one that no batch can ever hold."""
        policy = self._policy
        if ticket.rows > policy.max_rows:
            raise ValueError(f"{ticket.rows} rows never fit into a batch of {policy.max_rows}")
        if self._requests >= policy.max_queued_requests or self._rows + ticket.rows > policy.max_queued_rows:
            raise QueueFull("Exceeds maximum queue size")
        line = self._lines.get(ticket.signature)
        if line is None:
            line = self._lines[ticket.signature] = _Line()
        line.tickets[ticket] = None
        line.rows += ticket.rows
        self._rows += ticket.rows
        self._requests += 1
        ticket.waiting = True
        if ticket.deadline < inf:
            self._remember_deadline(ticket)

    def discard(self, ticket: T) -> bool:
        """Forget a request whose caller went away. False where it is not waiting here any more."""
        if not ticket.waiting:
            return False
        self._remove(ticket)
        return True

    def expire(self, now: float) -> list[T]:
        """Remove and return every request whose deadline has come, soonest first."""
        late: list[T] = []
        while self.next_deadline() <= now and self._deadlines:  # an infinite now is no reason to pop from nothing
            ticket = heappop(self._deadlines)[2]
            self._remove(ticket)
            late.append(ticket)
        return late

    def take(self, now: float) -> list[T]:
        """Remove and return the batch to run now, or [] where waiting is better."""
        best: list[T] = []
        for line in self._lines.values():
            if best and line.oldest().arrived >= best[0].arrived:
                continue
            batch = self._runnable(line, now)
            if batch:
                best = batch
        for ticket in best:
            self._remove(ticket)
        return best

    def next_due(self) -> float:
        """When the next batch will be worth running even if nothing joins it; inf where nothing waits."""
        return min((self._policy.due(line.oldest().arrived) for line in self._lines.values()), default=inf)

    def next_deadline(self) -> float:
        """When the next waiting request runs out of time; inf where none can."""
        heap = self._deadlines
        while heap and not heap[0][2].waiting:
            heappop(heap)
        return heap[0][0] if heap else inf

    def _runnable(self, line: _Line[T], now: float) -> list[T]:
        policy = self._policy
        arrived = line.oldest().arrived
        if not policy.might_run(line.rows, len(line.tickets), arrived, now):
            return []
        batch: list[T] = []
        prefix_rows: list[int] = []
        rows = 0
        for ticket in line.tickets:
            rows += ticket.rows
            if rows > policy.max_rows or len(batch) == policy.max_requests:
                break
            batch.append(ticket)
            prefix_rows.append(rows)
        return batch[: policy.choose(prefix_rows, len(batch) < len(line.tickets), arrived, now)]

    def _remove(self, ticket: T) -> None:
        line = self._lines[ticket.signature]
        del line.tickets[ticket]
        line.rows -= ticket.rows
        self._rows -= ticket.rows
        self._requests -= 1
        ticket.waiting = False
        if not line.tickets:
            del self._lines[ticket.signature]

    def _remember_deadline(self, ticket: T) -> None:
        heap = self._deadlines
        # Far deadlines outlive their requests: without this, a busy queue would keep every request of the last minute.
        if len(heap) > 64 + 2 * self._requests:
            heap[:] = [entry for entry in heap if entry[2].waiting]
            heapify(heap)
        heappush(heap, (ticket.deadline, next(self._serial), ticket))
