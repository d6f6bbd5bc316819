"""When something must happen to tickets that wait, soonest first. Pure: a heap that forgets whoever has left."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Generic, Protocol, TypeVar


class Waits(Protocol):
    """What may wait."""

    @property
    def waiting(self) -> bool: ...


T = TypeVar("T", bound=Waits)


class Deadlines(Generic[T]):
    """Tickets by time. One that waits no more (`Ticket.waiting`) needs no removal."""

    __slots__ = ("_heap", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._serial = count()

    def add(self, when: float, ticket: T, waiting: int) -> None:
        """Remember a ticket; `waiting` is how many there are in all."""
        heap = self._heap
        serial = next(self._serial)
        heappush(heap, (when, serial, ticket))
        # Far deadlines outlive their requests: without this, a busy queue would keep every request of the last minute.
        if serial % 32 == 0 and len(heap) > 32 + 2 * waiting:
            heap[:] = [entry for entry in heap if entry[2].waiting]
            heapify(heap)

    def next(self) -> float:
        """The soonest time of a ticket that waits; inf where there is none."""
        heap = self._heap
        while heap and not heap[0][2].waiting:
            heappop(heap)
        return heap[0][0] if heap else inf

    def pop(self, now: float) -> tuple[float, T] | None:
        """Forget and return the soonest that has come by now, with its time; None where none has."""
        if self.next() > now or not self._heap:  # an infinite now is no reason to pop from nothing
            return None
        when, _, ticket = heappop(self._heap)
        return when, ticket
