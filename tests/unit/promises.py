"""The rules of the queue that keeps an objective, in the fewest words: slow, and obviously right."""

from __future__ import annotations

from itertools import takewhile
from math import inf
from typing import Any

from server.scheduling.costs import CostTable
from server.scheduling.slo_queue import LEAST_GAP
from tests.unit.waiting_list import level_of, rows_of


class Promises:
    """All requests that wait, in order of arrival, the lanes, and what the rules say about them."""

    def __init__(self, policy: dict[str, Any], lanes: int, max_bytes: int, costs: CostTable) -> None:
        self.policy = policy
        self.lanes = lanes
        self.max_bytes = max_bytes
        self.costs = costs
        self.plan = 0
        """Rows of the planned batch; 0 while costs are not known."""
        self.tickets: list[Any] = []
        self.unpromised: list[Any] = []
        self.running: dict[Any, float] = {}
        """By a batch's first request, when it is expected to end."""
        self.last_arrival = -inf
        self.gap = inf
        """A moving average of the time between two arrivals."""

    def replan(self) -> None:
        """Of the sizes that leave time for half a batch before them, the one with the most rows per second."""
        typical, worst = self.costs.typical, self.costs.worst
        sizes = range(1, self.policy["max_rows"] + 1)
        possible = [size for size in sizes if typical(size) / 2 + worst(size) <= self.policy["objective"]]
        self.plan = max(possible or [1], key=lambda size: size / typical(size))

    def due(self, ticket: Any) -> float:
        return min(ticket.deadline, ticket.arrived + self.policy["objective"])

    def last_start(self, ticket: Any) -> float:
        """When it must have begun to be in time; who came before costs were known has only a deadline."""
        return float(
            ticket.deadline if ticket in self.unpromised else self.due(ticket) - self.costs.typical(ticket.rows)
        )

    def rank(self, ticket: Any) -> tuple[int, float, int]:
        """Who is served first: the smallest."""
        return level_of(ticket), self.due(ticket), self.tickets.index(ticket)

    def lines(self) -> list[list[Any]]:
        """The requests of each signature in order of service, the most urgent signature first."""
        by_signature: dict[object, list[Any]] = {}
        for ticket in sorted(self.tickets, key=self.rank):
            by_signature.setdefault(ticket.signature, []).append(ticket)
        return list(by_signature.values())

    def has_room_for(self, rows: int, level: int) -> bool:
        bounds = self.policy["levels"][level - 1]
        beside = [ticket for ticket in self.tickets if level_of(ticket) == level]
        return bool(rows_of(beside) + rows <= bounds["max_queued_rows"] and len(beside) < bounds["max_queued_requests"])

    def has_bytes_for(self, size: int) -> bool:
        used = self.bytes()
        return used == 0 or used + size <= self.max_bytes

    def bytes(self) -> int:
        return sum(ticket.size for ticket in self.tickets)

    def accept(self, ticket: Any) -> None:
        self.tickets.append(ticket)
        if not self.plan:
            self.unpromised.append(ticket)
        gap = ticket.arrived - self.last_arrival
        self.gap = LEAST_GAP + (gap if self.gap == inf else self.gap + (gap - self.gap) / 32)
        self.last_arrival = ticket.arrived

    def lateness(self, ticket: Any, share: float, now: float) -> float | None:
        """By how much a newcomer is expected to be too late, or None where there is more to it.

        That is where it goes before others of its level, and where lanes end so far apart that one serves two batches
        before another serves one.
        """
        if any(level_of(t) == level_of(ticket) and self.due(t) > self.due(ticket) for t in self.tickets):
            return None
        ends = [max(end, now) for end in self.running.values()]
        free = sorted(ends + [now] * (self.lanes - len(ends)))
        seconds, plan = self.costs.typical(self.plan), self.plan
        if free[-1] - free[0] > seconds:
            return None
        ahead = rows_of([t for t in self.tickets if level_of(t) <= level_of(ticket)])
        batches, beside = divmod(ahead, plan)
        if beside + ticket.rows > plan:
            batches, beside = batches + (beside > 0), 0
        for _ in range(batches):
            free = sorted([*free[1:], free[0] + seconds])
        rows = beside + ticket.rows
        if free[0] > now and rows < plan:
            rows = min(plan, rows + int((free[0] - now) / self.gap))
        return free[0] + self.costs.worst(rows) - now - share * (self.due(ticket) - now)

    def prefix(self, line: list[Any], limit: int) -> list[Any]:
        """The longest that fits, at least one."""
        return max((line[:n] for n in range(1, len(line) + 1) if n == 1 or rows_of(line[:n]) <= limit), key=len)

    def in_time(self, batch: list[Any], now: float) -> list[Any]:
        """As many of these, from the first, as run together without one of them being late; at least one."""
        for count in range(2, len(batch) + 1):
            some = batch[:count]
            if now + self.costs.worst(rows_of(some)) > min(map(self.due, some)):
                return batch[: count - 1]
        return batch

    def batch(self, now: float, hurry: bool) -> list[Any]:
        """The batch to run, were it time to run one."""
        lines = self.lines()
        if not lines:
            return []
        batch = self.prefix(lines[0], self.plan or self.policy["max_rows"])
        if hurry or not self.plan or rows_of(batch) > self.plan:
            return batch
        return self.in_time(batch, now)

    def start_by(self, line: list[Any]) -> float:
        """Until when a line waits for company."""
        batch = self.prefix(line, self.plan or self.policy["max_rows"])
        rows = rows_of(batch)
        if not self.plan or rows >= self.plan or len(batch) < len(line):
            return -inf
        patience = (rows + 1) * self.costs.typical(rows) / rows - self.costs.typical(rows + 1)
        if self.gap >= patience:
            return -inf
        return min(min(map(self.due, batch)) - self.costs.worst(rows + 1), self.last_arrival + patience)

    def next_due(self) -> float:
        return min(map(self.start_by, self.lines()), default=inf)

    def lets_in_at_once(self, ticket: Any, now: float) -> bool:
        """Whether it is not asked for its worst time: it would run at once, typically in time or else quite alone."""
        if self.tickets or len(self.running) >= self.lanes:
            return False
        return not self.running or now + self.costs.typical(ticket.rows) <= self.due(ticket)

    def is_alone(self) -> bool:
        return not self.running and len(self.tickets) <= 1

    def heads(self) -> list[Any]:
        """The first of every signature and level."""
        return [t for line in self.lines() for i, t in enumerate(line) if not i or line[i - 1].place != t.place]

    def next_deadline(self) -> float:
        hopeless = [self.last_start(ticket) for ticket in self.heads()] if self.plan and not self.is_alone() else []
        return min([ticket.deadline for ticket in self.tickets] + hopeless, default=inf)

    def past_deadline(self, now: float) -> list[Any]:
        return [ticket for ticket in self.tickets if ticket.deadline <= now]

    def hopeless(self, now: float) -> list[Any]:
        """Of each signature and level, the first ones that can be in time no more."""
        if not self.plan or self.is_alone():
            return []
        ranks: dict[object, list[Any]] = {}
        for ticket in sorted(self.tickets, key=self.rank):
            ranks.setdefault((ticket.signature, ticket.place), []).append(ticket)
        return [t for rank in ranks.values() for t in takewhile(lambda t: self.last_start(t) <= now, rank)]

    def given_up(self, now: float) -> list[Any]:
        """The fewest first requests without whom the next batch runs whole, if that serves more of them."""
        lines = self.lines()
        if not self.plan or not lines or len(self.running) == self.lanes:
            return []
        batch = self.prefix(lines[0], self.plan)
        batch = [ticket for ticket in batch if ticket.place == batch[0].place]
        kept = self.in_time(batch, now)
        if kept == batch:
            return []
        start = now + self.costs.typical(rows_of(kept))
        waiting = rows_of(lines[0]) - rows_of(kept) + int((start - now) / self.gap)
        if start + self.costs.worst(min(self.plan, waiting)) <= self.due(batch[len(kept)]):
            return []
        for count in range(1, len(batch)):
            rest = batch[count:]
            if len(rest) > len(kept) and self.in_time(rest, now) == rest:
                return batch[:count]
        return []

    def remove(self, tickets: list[Any]) -> None:
        self.tickets = [ticket for ticket in self.tickets if ticket not in tickets]
