"""The requests that wait for one model version. Pure: time is an argument and a batch is a return value.

Rules of this file:
- A batch holds requests of one signature only, and is a prefix of that signature's own line: one odd shape neither
  closes nor delays anyone else's batch.
- A line is ordered by priority level (as it is after aging), then not delayed before delayed, then oldest first.
- A request leaves the queue exactly once: by `take`, `discard`, `expire` or `clear`. Its room and its bytes are free
  then.
- Nothing here knows a clock, an event loop, a thread or a tensor.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from heapq import merge
from itertools import accumulate, chain, islice, takewhile
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

from server.errors import QueueFull
from server.scheduling.budget import ByteBudget
from server.scheduling.deadlines import Deadlines
from server.scheduling.policy import LevelPolicy, WindowPolicy

if TYPE_CHECKING:
    from server.scheduling.sequences import Step


class Ticket:
    """One request's place in the queue. Subclasses add what the request is."""

    __slots__ = ("arrived", "deadline", "delay_at", "expires", "place", "rows", "signature", "size", "step", "waiting")

    step: Step
    """Its place in its sequence, set by the queue of a model that has sequences."""

    def __init__(
        self,
        rows: int,
        signature: Hashable,
        arrived: float,
        deadline: float = inf,
        level: int = 1,
        delay_at: float = inf,
        size: int = 0,
    ) -> None:
        self.rows = rows
        self.signature = signature
        """Only tickets with equal signatures share a batch."""
        self.arrived = arrived
        self.deadline = deadline
        """When it must have left the queue, on the same clock as `arrived`."""
        self.expires = deadline
        """When `expire` will remove it, if it still waits; a queue may say that this is sooner."""
        self.delay_at = delay_at
        """When it goes behind all others of its level."""
        self.place = 2 * level
        """Twice its priority level, and one more once it is delayed: who is served first, as a number."""
        self.size = size
        """Bytes that it holds while it waits."""
        self.waiting = False
        """True from `put` until it leaves."""


T = TypeVar("T", bound=Ticket)

REMEMBERED_LIMITS = 64
"""Signatures that may have smaller batches; a model with free dimensions may see any number of them."""


class _Line(Generic[T]):
    """The waiting requests of one signature, by place; those of one place oldest first."""

    __slots__ = ("places", "policy", "rows")

    def __init__(self, policy: WindowPolicy) -> None:
        self.policy = policy
        self.places: dict[int, OrderedDict[T, None]] = {}  # never an empty one
        self.rows = 0

    def requests(self) -> int:
        return sum(map(len, self.places.values()))

    def oldest_arrival(self) -> float:
        return min([next(iter(tickets)).arrived for tickets in self.places.values()])


class Load:
    """What waits at one priority level, and what may."""

    __slots__ = ("max_requests", "max_rows", "requests", "rows")

    def __init__(self, bounds: LevelPolicy) -> None:
        self.max_rows = bounds.max_queued_rows
        self.max_requests = bounds.max_queued_requests
        self.rows = 0
        self.requests = 0

    def check(self, rows: int) -> None:
        """Raise `QueueFull` where a request of so many rows has no room."""
        if self.requests >= self.max_requests or self.rows + rows > self.max_rows:
            raise QueueFull("Exceeds maximum queue size")


class BatchQueue(Generic[T]):
    """Within a signature, by place and arrival; the signature whose first request is the first by these goes first."""

    def __init__(
        self,
        policy: WindowPolicy,
        budget: ByteBudget | None = None,
        worth_taking: Callable[[Sequence[int]], int] | None = None,
    ) -> None:
        """`worth_taking(prefix_rows)` may cut a batch that is about to run down to its first requests, at least one."""
        self._policy = policy
        self._worth_taking = worth_taking
        self._max_rows = policy.max_rows
        self._budget = budget
        self._lines: dict[Hashable, _Line[T]] = {}  # never an empty line
        self._limited: dict[Hashable, WindowPolicy] = {}  # by signature, the last to be limited last
        self._loads = [Load(level) for level in policy.levels]
        self._load_at = {2 * i + delayed: load for i, load in enumerate(self._loads, 1) for delayed in (0, 1)}
        self._deadlines: Deadlines[T] = Deadlines()

    @property
    def rows(self) -> int:
        return sum(line.rows for line in self._lines.values())

    def __len__(self) -> int:
        return sum([load.requests for load in self._loads])

    def put(self, ticket: T) -> None:
        """Add a request. Raises `QueueFull`, and `ValueError` for one that no batch can ever hold."""
        rows, place = ticket.rows, ticket.place
        if rows > self._max_rows:
            raise ValueError(f"{rows} rows never fit into a batch of {self._max_rows}")
        load = self._load_at[place]
        load.check(rows)
        if self._budget is not None:
            self._budget.take(ticket.size)
        line = self._lines.get(ticket.signature)
        if line is None:
            line = self._lines[ticket.signature] = _Line(self._limited.get(ticket.signature, self._policy))
        tickets = line.places.get(place)
        if tickets is None:
            tickets = line.places[place] = OrderedDict()
        tickets[ticket] = None
        line.rows += rows
        load.rows += rows
        load.requests += 1
        ticket.waiting = True
        when = ticket.deadline if ticket.deadline < ticket.delay_at else ticket.delay_at
        if when < inf:
            self._deadlines.add(when, ticket, len(self))

    def discard(self, ticket: T) -> bool:
        """Forget a request whose caller went away. False where it is not waiting here any more."""
        if not ticket.waiting:
            return False
        self._remove((ticket,))
        return True

    def expire(self, now: float) -> list[T]:
        """Remove and return every request whose deadline has come, soonest first; delay those whose time for it has."""
        late: list[T] = []
        while due := self._deadlines.pop(now):
            when, ticket = due
            if when < ticket.deadline:
                self._delay(ticket)
            else:
                self._remove((ticket,))
                late.append(ticket)
        return late

    def take(self, now: float, hurry: bool = False) -> list[T]:
        """Remove and return the batch to run now; [] where waiting is better. In a hurry, it never is."""
        now = inf if hurry else now
        best: list[T] = []
        for line in self._lines.values():
            if best and self._rank(next(iter(self._in_order(line, now))), now) >= self._rank(best[0], now):
                continue
            batch = self._runnable(line, now)
            if batch:
                best = batch
        if best:
            self._remove(best)
        return best

    def ended(self, batch: Sequence[T], now: float) -> None:
        """A batch that was taken has ended. This queue does not mind: its policy knows no costs."""

    def answered(self, batch: Sequence[T], now: float) -> None:
        """The requests of a batch have been answered. This queue does not mind either."""

    def clear(self) -> list[T]:
        """Remove and return everything that waits, oldest first."""
        lines = tuple(self._lines.values())
        tickets = [ticket for line in lines for in_place in line.places.values() for ticket in in_place]
        for ticket in tickets:
            self._remove((ticket,))
        return sorted(tickets, key=lambda ticket: ticket.arrived)

    def limit_rows(self, max_rows: int, signature: Hashable) -> None:
        """Let batches of this signature hold at most so many rows from now on. A larger request runs alone."""
        policy = self._limited.pop(signature, self._policy).limited(max_rows)
        self._limited[signature] = policy
        if len(self._limited) > REMEMBERED_LIMITS:
            del self._limited[next(iter(self._limited))]
        line = self._lines.get(signature)
        if line is not None:
            line.policy = policy

    def oldest_arrival(self) -> float:
        """When the request that has waited longest came; inf where nothing waits."""
        return min((line.oldest_arrival() for line in self._lines.values()), default=inf)

    def next_due(self) -> float:
        """When the next batch will be worth running even if nothing joins it; inf where nothing waits."""
        return min((self._policy.due(line.oldest_arrival()) for line in self._lines.values()), default=inf)

    def next_deadline(self) -> float:
        """When `expire` has something to do next; inf where it never has."""
        return self._deadlines.next()

    def _rank(self, ticket: T, now: float) -> tuple[int, int, float]:
        """Who is served first: the smallest."""
        level = self._policy.level_at(ticket.place >> 1, ticket.arrived, now)
        return level, ticket.place & 1, ticket.arrived

    def _in_order(self, line: _Line[T], now: float) -> Iterable[T]:
        places = line.places
        if len(places) == 1:
            return next(iter(places.values()))
        in_turn = [places[place] for place in sorted(places)]
        if self._policy.aging:
            return merge(*in_turn, key=lambda ticket: self._rank(ticket, now))
        return chain.from_iterable(in_turn)

    def _runnable(self, line: _Line[T], now: float) -> list[T]:
        policy = line.policy
        arrived = line.oldest_arrival()  # it is in the batch, or the batch is full without it
        if not policy.might_run(line.rows, line.requests(), arrived, now):
            return []
        # At least one row a request: no batch has more requests than rows.
        batch = list(islice(self._in_order(line, now), min(policy.max_requests, policy.max_rows)))
        prefix_rows = list(accumulate([ticket.rows for ticket in batch]))
        if prefix_rows[-1] > policy.max_rows:
            del prefix_rows[max(1, bisect_right(prefix_rows, policy.max_rows)) :]  # larger than a limit: alone
        more_wait = len(prefix_rows) < line.requests()
        taken = policy.choose(prefix_rows, more_wait, arrived, now)
        if taken and self._worth_taking is not None:
            taken = self._worth_taking(prefix_rows[:taken])
        return batch[:taken]

    def _remove(self, tickets: Sequence[T]) -> None:
        """Let requests of one signature go."""
        signature = tickets[0].signature
        line = self._lines[signature]
        rows = place = 0
        for ticket in tickets:
            if ticket.place != place:  # a batch has few places: look them up once
                place = ticket.place
                in_place, load = line.places[place], self._load_at[place]
            del in_place[ticket]
            if not in_place:
                del line.places[place]
            rows += ticket.rows
            load.rows -= ticket.rows
            load.requests -= 1
            ticket.waiting = False
        line.rows -= rows
        if not line.places:
            del self._lines[signature]
        if self._budget is not None:
            self._budget.give_back(sum([ticket.size for ticket in tickets]))

    def _delay(self, ticket: T) -> None:
        places = self._lines[ticket.signature].places
        del places[ticket.place][ticket]
        if not places[ticket.place]:
            del places[ticket.place]
        ticket.place += 1
        tickets = places.setdefault(ticket.place, OrderedDict())
        tickets[ticket] = None
        # Where timeouts differ, one that arrived later may have been delayed earlier.
        younger = list(takewhile(lambda other: other is ticket or other.arrived > ticket.arrived, reversed(tickets)))
        for other in reversed(younger[1:]):
            tickets.move_to_end(other)
        if ticket.deadline < inf:
            self._deadlines.add(ticket.deadline, ticket, len(self))
