"""The rules of the queue in the fewest words: slow, and obviously right."""

from __future__ import annotations

from math import inf
from typing import Any


class WaitingList:
    """All requests that wait, in order of arrival, and what the rules say about them."""

    def __init__(self, policy: dict[str, Any], max_bytes: int) -> None:
        self.policy = policy
        self.max_bytes = max_bytes
        self.tickets: list[Any] = []
        self.delayed: list[Any] = []
        """Those that are behind the others of their level, in the order in which that came to them."""
        self.limits: dict[object, int] = {}
        """By signature, where batches of it may hold fewer rows."""

    def rows(self) -> int:
        return rows_of(self.tickets)

    def bytes(self) -> int:
        return sum(ticket.size for ticket in self.tickets)

    def has_room_for(self, rows: int, level: int, size: int) -> bool:
        bounds = self.policy["levels"][level - 1]
        beside = [ticket for ticket in self.tickets if level_of(ticket) == level]
        fits = rows_of(beside) + rows <= bounds["max_queued_rows"] and len(beside) < bounds["max_queued_requests"]
        return bool(fits and (self.bytes() == 0 or self.bytes() + size <= self.max_bytes))

    def max_rows(self, signature: object) -> int:
        """Rows that a batch of this signature may hold, unless it is one request."""
        return min(self.policy["max_rows"], self.limits.get(signature, self.policy["max_rows"]))

    def rank(self, ticket: Any, now: float) -> tuple[float, bool, float]:
        """Who is served first: the smallest."""
        level, aging = level_of(ticket), self.policy["aging"]
        if aging:
            climbed = inf if now == inf else (now - ticket.arrived) // aging
            level = max(1, level - climbed)
        return level, ticket in self.delayed, ticket.arrived

    def lines(self, now: float) -> dict[object, list[Any]]:
        """By signature, in order of service."""

        def order(ticket: Any) -> tuple[object, ...]:
            queue = self.delayed if ticket in self.delayed else self.tickets
            return *self.rank(ticket, now), level_of(ticket), queue.index(ticket)

        return {
            signature: sorted([ticket for ticket in self.tickets if ticket.signature == signature], key=order)
            for signature in {ticket.signature for ticket in self.tickets}
        }

    def worth_running(self, line: list[Any], now: float) -> list[Any]:
        """The batch that this line should run now, or []."""
        policy = self.policy
        max_rows = self.max_rows(line[0].signature)
        prefixes = [line[:n] for n in range(1, len(line) + 1)]
        possible = [p for p in prefixes if rows_of(p) <= max_rows and len(p) <= policy["max_requests"]]
        longest = possible[-1] if possible else line[:1]
        full = rows_of(longest) >= max_rows or len(longest) == policy["max_requests"]
        blocked = len(longest) < len(line)
        due = now >= oldest(line) + policy["max_delay"]
        if full or blocked or due:
            return longest
        preferred = [p for p in possible if rows_of(p) in policy["preferred_rows"]]
        return preferred[-1] if preferred else []

    def batches(self, now: float) -> list[list[Any]]:
        """Every batch that may go first: of the runnable ones, those whose first request is the first in rank."""
        runnable = [batch for line in self.lines(now).values() if (batch := self.worth_running(line, now))]
        first = min((self.rank(batch[0], now) for batch in runnable), default=None)
        return [batch for batch in runnable if self.rank(batch[0], now) == first]

    def expire(self, now: float) -> list[Any]:
        """Delay those whose time has come for it, and return those whose deadline has."""
        due = [t for t in self.tickets if t.delay_at <= now and t.delay_at < t.deadline and t not in self.delayed]
        self.delayed += sorted(due, key=lambda ticket: ticket.delay_at)
        return [ticket for ticket in self.tickets if ticket.deadline <= now]

    def next_deadline(self) -> float:
        moments = [t.deadline if t in self.delayed else min(t.deadline, t.delay_at) for t in self.tickets]
        return min(moments, default=inf)

    def remove(self, tickets: list[Any]) -> None:
        self.tickets = [ticket for ticket in self.tickets if ticket not in tickets]
        self.delayed = [ticket for ticket in self.delayed if ticket not in tickets]


def level_of(ticket: Any) -> int:
    """The level that it was put at."""
    return int(ticket.place) // 2


def oldest(line: list[Any]) -> float:
    return min(ticket.arrived for ticket in line)


def rows_of(tickets: list[Any]) -> int:
    return sum(ticket.rows for ticket in tickets)
