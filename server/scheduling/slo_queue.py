"""The requests that wait for a model with a latency objective: those that are due first go first. Pure, as `queue`.

Rules of this file:
- A batch holds requests of one signature only. Strict priority levels, earliest due time first within a level.
- A request is due at its own deadline, or when the objective says, whichever is sooner.
- Once the cost table is calibrated: what cannot be answered in time is refused by `put`, and what can no longer be,
  because a batch took too long or somebody more urgent came, leaves by `expire` as soon as that is certain.
  Before that, the objective refuses and drops nothing.
- A request leaves the queue exactly once: by `take`, `discard` or `expire`. Its room and its bytes are free then.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator, Sequence
from itertools import count, takewhile
from math import inf
from typing import Generic, TypeVar

from server.errors import Overloaded
from server.scheduling.budget import ByteBudget
from server.scheduling.costs import CostTable
from server.scheduling.deadlines import Deadlines
from server.scheduling.queue import Load, Ticket
from server.scheduling.slo import BatchPlan, Guard, SloPolicy, make_plan

GAP_WEIGHT = 1 / 32
"""Of the newest time between two arrivals in their moving average."""

LEAST_GAP = 1e-9
"""Seconds; so that nothing is divided by zero where all requests arrive in one moment."""

PLAN_SECONDS = 0.1
"""How long a plan is kept: making one takes about a microsecond for each row of its batch."""

T = TypeVar("T", bound=Ticket)

_Entry = tuple[float, int, T]
"""When it is due, a number that no two share, and the ticket."""


class _Rank(Generic[T]):
    """The waiting requests of one signature and one level, by due time."""

    __slots__ = ("entries", "rows")

    def __init__(self) -> None:
        self.entries: list[_Entry[T]] = []
        self.rows = 0

    def rows_before(self, due: float) -> int:
        """Rows that go before a newcomer; those before a place in the middle are not counted but estimated."""
        entries = self.entries
        if not entries or due >= entries[-1][0]:
            return self.rows
        return self.rows * bisect_left(entries, (due,)) // len(entries)


_Line = dict[int, _Rank[T]]
"""The ranks of one signature by place, the most urgent the smallest; never an empty rank."""


class SloQueue(Generic[T]):
    """Earliest due time first, with admission by predicted costs."""

    def __init__(self, policy: SloPolicy, costs: CostTable, lanes: int, budget: ByteBudget | None = None) -> None:
        self._policy = policy
        self._objective = policy.objective
        self._max_rows = policy.max_rows  # of a batch; less once it was limited
        self._costs = costs
        self._lanes = lanes
        self._budget = budget
        self._lines: dict[Hashable, _Line[T]] = {}  # never an empty line
        self._loads = {2 * i: Load(level) for i, level in enumerate(policy.levels, 1)}
        self._serial = count()
        self._deadlines: Deadlines[T] = Deadlines()
        self._running: dict[T, float] = {}  # a batch's first request → when the batch is expected to end
        self._latest = -inf
        """The latest time that anybody has spoken of."""
        self._last_arrival = -inf
        self._gap = inf
        self._plan: BatchPlan | None = None
        self._planned_at = -inf
        self.guard = Guard()
        self._replan()

    def __len__(self) -> int:
        return sum([load.requests for load in self._loads.values()])

    @property
    def rows(self) -> int:
        return sum([load.rows for load in self._loads.values()])

    def put(self, ticket: T) -> None:
        """Add a request that arrives now. Raises `QueueFull`, `Overloaded` where it cannot be answered in time, and
        `ValueError` for one that no batch can ever hold."""
        rows, place = ticket.rows, ticket.place
        now = ticket.arrived
        if now < self._latest:  # its pictures have been decoded first
            now = self._latest
        if rows > self._policy.max_rows:
            raise ValueError(f"{rows} rows never fit into a batch of {self._policy.max_rows}")
        plan = self._plan
        load = self._loads[place]
        load.check(rows)
        line = self._lines.get(ticket.signature)
        due = ticket.arrived + self._objective
        if ticket.deadline < due:
            due = ticket.deadline
        if plan is not None:
            self._admit(plan, ticket, due, line, now)
            ticket.expires = due - (plan.typical[rows] if rows <= plan.rows else self._costs.typical(rows))
        if self._budget is not None:
            self._budget.take(ticket.size)
        if line is None:
            line = self._lines[ticket.signature] = {}
        rank = line.get(place)
        if rank is None:
            rank = line[place] = _Rank()
        entry = (due, next(self._serial), ticket)
        if not rank.entries or rank.entries[-1] < entry:
            rank.entries.append(entry)
        else:
            insort(rank.entries, entry)
        rank.rows += rows
        load.rows += rows
        load.requests += 1
        ticket.waiting = True
        if ticket.deadline < inf:
            self._deadlines.add(ticket.deadline, ticket, len(self))
        gap = now - self._last_arrival
        self._gap = LEAST_GAP + (gap if self._gap == inf else self._gap + GAP_WEIGHT * (gap - self._gap))
        self._last_arrival = now

    def discard(self, ticket: T) -> bool:
        """Forget a request whose caller went away. False where it is not waiting here any more."""
        if not ticket.waiting:
            return False
        entries = self._lines[ticket.signature][ticket.place].entries
        index = next(i for i, entry in enumerate(entries) if entry[2] is ticket)
        self._remove(ticket.signature, ticket.place, index, index + 1)
        return True

    def expire(self, now: float) -> list[T]:
        """Remove and return the requests that cannot be answered in time any more."""
        self._latest = now
        late: list[T] = []
        while due := self._deadlines.pop(now):
            self.discard(due[1])
            late.append(due[1])
        if self._next_hopeless() <= now:
            late += self._drop_hopeless(now)
        if self._lines and self._plan is not None and len(self._running) < self._lanes:
            late += self._drop_for_the_others(self._plan, now)
        return late

    def take(self, now: float, hurry: bool = False) -> list[T]:
        """Remove and return the batch to run now; [] where waiting is better. In a hurry, it never is."""
        if not self._lines:
            return []
        # Where a batch that has just been taken leaves a hopeless one at the head, `expire` has its turn first.
        if not hurry and (now < self.next_due() or self._next_hopeless() <= now):
            return []
        signature, line = self._most_urgent()
        plan = self._plan
        batch, _ = _prefix(line, plan.rows if plan else self._max_rows)
        if plan is not None and not hurry:
            batch = batch[: _kept(plan, batch, now)]
        tickets = [ticket for _, _, ticket in batch]
        places: dict[int, int] = {}
        for ticket in tickets:
            places[ticket.place] = places.get(ticket.place, 0) + 1
        for place, requests in places.items():
            self._remove(signature, place, 0, requests)
        typical = self._costs.typical(sum([ticket.rows for ticket in tickets]))
        self._running[tickets[0]] = now + typical if typical < inf else now
        return tickets

    def ended(self, batch: Sequence[T], now: float) -> None:
        """A batch that was taken has ended: its lane is free."""
        del self._running[batch[0]]

    def answered(self, batch: Sequence[T], now: float) -> None:
        """The requests of a batch have been answered."""
        if self._plan is not None:
            late = sum([now > min(ticket.deadline, ticket.arrived + self._objective) for ticket in batch])
            self.guard.observe(len(batch), late)
        if self._plan is None or now >= self._planned_at + PLAN_SECONDS:
            self._replan()
            self._planned_at = now

    def clear(self) -> list[T]:
        """Remove and return everything that waits, oldest first."""
        tickets: list[T] = []
        for signature, line in tuple(self._lines.items()):
            for place, rank in tuple(line.items()):
                tickets += self._remove(signature, place, 0, len(rank.entries))
        return sorted(tickets, key=lambda ticket: ticket.arrived)

    def limit_rows(self, max_rows: int, _: Hashable) -> None:
        """Let batches hold at most so many rows from now on, of any signature: there is one plan for all of them."""
        self._max_rows = min(max_rows, self._max_rows)
        self._replan()

    def oldest_arrival(self) -> float:
        """When the request that has waited longest came; inf where nothing waits."""
        ranks = [rank for line in self._lines.values() for rank in line.values()]
        return min((ticket.arrived for rank in ranks for _, _, ticket in rank.entries), default=inf)

    def next_due(self) -> float:
        """When `take` will have a batch even if nothing joins it; inf where nothing waits."""
        if self._plan is None:
            return -inf if self._lines else inf
        return min([self._start_by(self._plan, line) for line in self._lines.values()], default=inf)

    def next_deadline(self) -> float:
        """When `expire` has something to do next; inf where it never has."""
        return min(self._deadlines.next(), self._next_hopeless())

    def _next_hopeless(self) -> float:
        if self._plan is None or self._is_alone():
            return inf
        return min([rank.entries[0][2].expires for line in self._lines.values() for rank in line.values()], default=inf)

    def _drop_hopeless(self, now: float) -> list[T]:
        dropped: list[T] = []
        for signature, line in tuple(self._lines.items()):
            for place, rank in sorted(line.items()):
                hopeless = len(list(takewhile(lambda entry: entry[2].expires <= now, rank.entries)))
                if hopeless:
                    dropped += self._remove(signature, place, 0, hopeless)
        self.guard.observe(len(dropped), len(dropped))
        return dropped

    def _drop_for_the_others(self, plan: BatchPlan, now: float) -> list[T]:
        """Drop the first requests of the next batch where they have so little time left that most of it could not run
        with them, and would then be late itself. Only for others of their own level."""
        _, line = self._most_urgent()
        batch, _ = _prefix(line, plan.rows)
        place = batch[0][2].place
        batch = [entry for entry in batch if entry[2].place == place]
        kept = _kept(plan, batch, now)
        if kept == len(batch):
            return []
        kept_rows = sum([ticket.rows for _, _, ticket in batch[:kept]])
        start = now + plan.typical[kept_rows]
        waiting = sum([rank.rows for rank in line.values()]) - kept_rows + int((start - now) / self._gap)
        if start + plan.worst[min(plan.rows, waiting)] <= batch[kept][0]:
            return []
        for sacrifice in range(1, len(batch) - kept):
            rest = batch[sacrifice:]
            if _kept(plan, rest, now) == len(rest):
                dropped = [ticket for _, _, ticket in batch[:sacrifice]]
                for ticket in dropped:
                    self.discard(ticket)
                self.guard.observe(len(dropped), len(dropped))
                return dropped
        return []

    def _most_urgent(self) -> tuple[Hashable, _Line[T]]:
        return min(self._lines.items(), key=lambda item: _first(item[1]))

    def _replan(self) -> None:
        if self._costs.calibrated:
            self._plan = make_plan(self._costs, self._max_rows, self._objective)

    def _is_alone(self) -> bool:
        """Whether at most one request is here: it is let in, and run, whatever the objective says.

        An objective that cannot be kept at all must not turn everybody away; and costs change only where batches run.
        """
        return not self._running and len(self) <= 1

    def _admit(self, plan: BatchPlan, ticket: T, due: float, line: _Line[T] | None, now: float) -> None:
        """Raise `Overloaded` where the request, or one that it would push back, could not be answered in time."""
        place, rows = ticket.place, ticket.rows
        starts_now = not self._lines and len(self._running) < self._lanes
        # Where its 99th percentile is too long it may still be in time; the lane that turned it away would stand idle.
        if starts_now and (not self._running or now + self._costs.typical(rows) <= due):
            return
        rank = line.get(place) if line else None
        pushed_back = rank.entries[-1] if rank is not None and rank.entries[-1][0] > due else None
        if rank is not None and pushed_back is None and len(self._lines) == len(self._loads) == 1:
            rows_ahead = rank.rows
        else:
            rows_ahead = self._rows_ahead(place, due)
        late = self._finish(plan, rows_ahead, rows, now) - now - self.guard.share * (due - now)
        if pushed_back is not None:
            last_due, _, last = pushed_back
            ahead_of_last = self._rows_ahead(place, last_due) - last.rows + rows
            late = max(late, self._finish(plan, ahead_of_last, last.rows, now) - last_due)
        if late > 0:
            raise Overloaded("too much work is ahead of it", late)

    def _rows_ahead(self, place: int, due: float) -> int:
        """Rows that go before a request of this place that is due then, itself included where it waits."""
        return sum(
            [
                rank.rows_before(due) if at == place else rank.rows
                for line in self._lines.values()
                for at, rank in line.items()
                if at <= place
            ]
        )

    def _finish(self, plan: BatchPlan, rows_ahead: int, rows: int, now: float) -> float:
        """When a request of these rows will be answered, behind so many others."""
        batches, together = divmod(rows_ahead, plan.rows)
        together += rows
        if together > plan.rows:  # no place in the last of these batches
            batches += together > rows
            together = rows
        start = self._start(batches, plan.seconds, now)
        if together > plan.rows:
            return start + self._costs.worst(together)
        if start > now and together < plan.rows:  # others will join it until then
            together = min(plan.rows, together + int((start - now) / self._gap))
        return start + plan.worst[together]

    def _start(self, batches: int, seconds: float, now: float) -> float:
        """When a lane will be free behind so many batches of `seconds` that nobody runs yet."""
        if self._lanes == 1:
            for end in self._running.values():
                return (end if end > now else now) + batches * seconds
            return now + batches * seconds
        free = sorted([end if end > now else now for end in self._running.values()])
        idle = self._lanes - len(free)
        rounds, lane = divmod(batches, self._lanes)
        return (now if lane < idle else free[lane - idle]) + rounds * seconds

    def _start_by(self, plan: BatchPlan, line: _Line[T]) -> float:
        """Until when this line's next batch may wait for company."""
        batch, rows = _prefix(line, plan.rows)
        if rows >= plan.rows or len(batch) < sum([len(rank.entries) for rank in line.values()]):
            return -inf
        patience = plan.patience(rows)
        if self._gap >= patience:
            return -inf
        return min(min(batch)[0] - plan.worst[rows + 1], self._last_arrival + patience)

    def _remove(self, signature: Hashable, place: int, start: int, end: int) -> list[T]:
        """Let the requests of one rank, from index `start` to before `end`, go."""
        line = self._lines[signature]
        rank, load = line[place], self._loads[place]
        tickets = [entry[2] for entry in rank.entries[start:end]]
        del rank.entries[start:end]
        rows = 0
        for ticket in tickets:
            rows += ticket.rows
            ticket.waiting = False
        rank.rows -= rows
        load.rows -= rows
        load.requests -= len(tickets)
        if not rank.entries:
            del line[place]
            if not line:
                del self._lines[signature]
        if self._budget is not None:
            self._budget.give_back(sum([ticket.size for ticket in tickets]))
        return tickets


def _first(line: _Line[T]) -> tuple[int, float, int]:
    place = min(line)
    due, serial, _ = line[place].entries[0]
    return place, due, serial


def _in_order(line: _Line[T]) -> Iterator[_Entry[T]]:
    for place in sorted(line):
        yield from line[place].entries


def _prefix(line: _Line[T], limit: int) -> tuple[list[_Entry[T]], int]:
    """The first requests of a line up to so many rows, at least one; and their rows."""
    if len(line) == 1:
        for rank in line.values():
            if rank.rows == len(rank.entries):  # a row each, as nearly always
                batch = rank.entries[:limit]
                return batch, len(batch)
    batch = []
    rows = 0
    for entry in _in_order(line):
        more = entry[2].rows
        if batch and rows + more > limit:
            break
        batch.append(entry)
        rows += more
    return batch, rows


def _kept(plan: BatchPlan, batch: Sequence[_Entry[T]], now: float) -> int:
    """How many of these, from the first, may run together without making one of them late; at least one."""
    if now + plan.slowest <= min(batch)[0]:
        return len(batch)
    rows = 0
    soonest = inf
    for index, (due, _, ticket) in enumerate(batch):
        rows += ticket.rows
        soonest = min(soonest, due)
        if index and now + plan.worst[rows] > soonest:
            return index
    return len(batch)
