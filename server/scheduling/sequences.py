"""The requests of a stateful model: which sequence has which slot, and what runs next. Pure: time is an argument.

Rules of this file:
- A sequence is the requests of one id, from one that starts it to one that ends it. It has one slot of one instance
  from when there is one for it until it is over: all its requests run there, in order of arrival, one at a time.
- While no slot is free, sequences stand in the backlog, and whoever stands there longest has the next one.
- A sequence is over when the request that ends it has run, or when nothing of it has waited or run for `max_idle`.
- A request that starts a sequence which goes on already starts it anew, in its slot.
- Whoever leaves without having run never was: the next of its sequence takes over its start, and its end ends the
  sequence all the same. A sequence in the backlog of which nothing waits any more is forgotten.
- An instance runs one batch at a time, with at most one request of each sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count, dropwhile, islice
from math import inf
from typing import Any, Generic, NamedTuple, TypeVar

from server.errors import SequenceNotStarted
from server.scheduling.budget import ByteBudget
from server.scheduling.deadlines import Deadlines
from server.scheduling.heads import Heads
from server.scheduling.queue import REMEMBERED_LIMITS, Load, Ticket
from server.scheduling.sequence_policy import SequencePolicy

T = TypeVar("T", bound=Ticket)


class Step:
    """One request's place in its sequence."""

    __slots__ = ("correlation_id", "ends", "instance", "key", "number", "sequence", "slot", "starts")

    sequence: _Sequence[Any]
    """Set while it waits or runs, as the three below."""
    number: int
    """In order of arrival, of all requests."""

    def __init__(self, key: Hashable, starts: bool, ends: bool, correlation_id: int | str = 0) -> None:
        self.key = key
        """Which sequence: of those that go on, no two have equal ones."""
        self.starts = starts
        """Whether the model's state begins anew with it."""
        self.ends = ends
        self.correlation_id = correlation_id
        """What the model is told."""
        self.instance = self.slot = 0
        """Where it runs, from `take` on."""


class SequenceCounts(NamedTuple):
    """What a queue of sequences holds."""

    slots: int
    """Of all instances."""
    active: int
    """Sequences that have a slot."""
    backlog: int
    """Sequences that wait for one."""


class _Sequence(Generic[T]):
    __slots__ = ("ended", "idle_at", "instance", "key", "line", "owes_start", "running", "slot", "timed", "touched")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.line: dict[T, None] = {}  # what waits, in order
        self.running = False
        self.ended = False  # its last request has come
        self.owes_start = False  # the request that started it left, and none came after
        self.instance = self.slot = -1  # -1: in the backlog
        self.touched = 0.0  # when something of it last came or ran
        self.idle_at = inf  # when it will have been silent for too long
        self.timed = False  # whether the heap of timers has it


def _unheard(*_: int) -> None:
    pass


class SequenceQueue(Generic[T]):
    """A `batcher.Queue` of requests that belong to sequences. Every request is one row."""

    def __init__(
        self,
        policy: SequencePolicy,
        instances: int,
        step_of: Callable[[T], Step],
        budget: ByteBudget | None = None,
        released: Callable[[int, int], None] = _unheard,
        reclaimed: Callable[[], None] = _unheard,
    ) -> None:
        """`step_of` says where a request stands, and may raise; `released(instance, slot)` is told of slots that have
        become free, `reclaimed()` of each sequence that was silent for too long."""
        self._policy = policy
        self._step_of = step_of
        self._budget = budget
        self._released = released
        self._reclaimed = reclaimed
        self.when_empty: Callable[[], None] = _unheard
        """Called each time that the last sequence is over; it must not call back."""
        self._load = Load(policy.levels[0])
        self._waiting: dict[T, None] = {}  # in order of arrival
        self._open: dict[Hashable, _Sequence[T]] = {}  # those whose last request has not come
        self._backlog: dict[_Sequence[T], None] = {}  # in order of arrival; empty while a slot is free
        self._ready: list[Heads[T]] = [Heads() for _ in range(instances)]  # of those with a slot and a line
        self._busy = [False] * instances
        self._free: list[tuple[int, int]] = []  # slot and instance, of those that have been in use
        self._opened = 0  # those that have been in use, counted slot by slot across instances
        self._limited: dict[Hashable, SequencePolicy] = {}
        self._deadlines: Deadlines[T] = Deadlines()
        self._timers: list[tuple[float, int, _Sequence[T]]] = []  # at most one for each sequence; some too early
        self._numbers = count()
        self._slots = policy.slots * instances

    @property
    def rows(self) -> int:
        return self._load.rows

    def __len__(self) -> int:
        return len(self._waiting)

    def counts(self) -> SequenceCounts:
        return SequenceCounts(self._slots, self._active(), len(self._backlog))

    def has(self, key: Hashable) -> bool:
        """Whether a sequence of this id goes on here."""
        return key in self._open

    def end(self, key: Hashable) -> None:
        """Nothing more comes of this sequence, if there is one: it is over once what waits of it has run."""
        sequence = self._open.pop(key, None)
        if sequence is not None:
            sequence.ended = True
            self._rest(sequence)

    def put(self, ticket: T) -> None:
        """Add a request. Raises `QueueFull`, `SequenceNotStarted`, and whatever `step_of` raises."""
        step, now = self._step_of(ticket), ticket.arrived
        sequence = self._open.get(step.key)
        if sequence is not None and sequence.idle_at <= now:  # the alarm has not rung yet
            self._reclaim(sequence)
            sequence = None
        if sequence is None and not step.starts:
            raise SequenceNotStarted("the first request of a sequence must start it")
        self._load.check(ticket.rows)
        if self._budget is not None:
            self._budget.take(ticket.size)
        if sequence is None:
            sequence = self._open[step.key] = _Sequence(step.key)
            place = self._free_place()
            if place is None:
                self._backlog[sequence] = None
            else:
                self._place(sequence, *place)
        if step.ends:
            sequence.ended = True
            del self._open[step.key]
        step.starts |= sequence.owes_start
        sequence.owes_start = False
        step.sequence, step.number = sequence, next(self._numbers)
        ticket.step = step
        if not sequence.line and sequence.instance >= 0:
            self._ready[sequence.instance].add(ticket)
        sequence.line[ticket] = None
        sequence.touched, sequence.idle_at = now, inf
        self._waiting[ticket] = None
        self._load.rows += ticket.rows
        self._load.requests += 1
        ticket.waiting = True
        if ticket.deadline < inf:
            self._deadlines.add(ticket.deadline, ticket, len(self))

    def discard(self, ticket: T) -> bool:
        """Forget a request whose caller went away. False where it is not waiting here any more."""
        if not ticket.waiting:
            return False
        self._skip(ticket)
        return True

    def expire(self, now: float) -> list[T]:
        """Remove and return every request whose deadline has come, soonest first; end the sequences that are idle."""
        late: list[T] = []
        while due := self._deadlines.pop(now):
            self._skip(due[1])
            late.append(due[1])
        while self._next_idle() <= now and self._timers:
            self._reclaim(self._timers[0][2])
        return late

    def take(self, now: float, hurry: bool = False) -> list[T]:
        """Remove and return the batch to run now, for an instance that runs none; [] where waiting is better.

        In a hurry it never is, and idle sequences make room for the backlog.
        """
        if hurry:
            now = inf
            while self._backlog and self._next_idle() < inf:
                self._release(self._timers[0][2])
        best: list[T] = []
        for ready, busy in zip(self._ready, self._busy, strict=True):
            if ready.count and not busy:
                batch = self._runnable(ready, now)
                if batch and (not best or batch[0].step.number < best[0].step.number):
                    best = batch
        for ticket in best:
            sequence = ticket.step.sequence
            self._leave(ticket)
            sequence.running = True
            ticket.step.instance, ticket.step.slot = sequence.instance, sequence.slot
        if best:
            self._busy[best[0].step.instance] = True
        return best

    def ended(self, batch: Sequence[T], now: float) -> None:
        """A batch that was taken has ended: its instance is free."""
        self._busy[batch[0].step.instance] = False
        for ticket in batch:
            sequence = ticket.step.sequence
            sequence.running, sequence.touched = False, now
            self._rest(sequence)

    def answered(self, batch: Sequence[T], now: float) -> None:
        """The requests of a batch have been answered. This queue does not mind."""

    def clear(self) -> list[T]:
        """Remove and return everything that waits, oldest first."""
        tickets = list(self._waiting)
        for ticket in tickets:
            self._skip(ticket)
        return tickets

    def limit_rows(self, max_rows: int, signature: Hashable) -> None:
        """Let batches of this signature hold at most so many requests from now on."""
        self._limited[signature] = self._limited.pop(signature, self._policy).limited(max_rows)
        if len(self._limited) > REMEMBERED_LIMITS:
            del self._limited[next(iter(self._limited))]

    def oldest_arrival(self) -> float:
        """When the request that has waited longest came; inf where nothing waits."""
        return next(iter(self._waiting)).arrived if self._waiting else inf

    def next_due(self) -> float:
        """When `take` will have a batch, even if nothing joins it; inf where no clock decides that."""
        free = [ready for ready, busy in zip(self._ready, self._busy, strict=True) if ready.count and not busy]
        lines = [line for ready in free for line in islice(ready.lines(), 1 if self._policy.in_order else None)]
        return self._policy.due(min([line[0].arrived for line in lines])) if lines else inf

    def next_deadline(self) -> float:
        """When `expire` has something to do next; inf where it never has."""
        return min(self._deadlines.next(), self._next_idle())

    def _runnable(self, ready: Heads[T], now: float) -> list[T]:
        if self._policy.in_order:
            return self._chosen(ready.first_of_all(self._policy.max_rows), ready.count, now)
        return next(filter(None, (self._chosen(line, len(line), now) for line in ready.lines())), [])

    def _chosen(self, line: list[T], waiting: int, now: float) -> list[T]:
        """Of requests of one signature, oldest first, those to run now. `waiting` may count others behind them."""
        policy = self._limited.get(line[0].signature, self._policy)
        batch = line[: policy.max_rows]
        rows = list(range(1, len(batch) + 1))
        return batch[: policy.choose(rows, waiting > len(batch), line[0].arrived, now)]

    def _active(self) -> int:
        return self._opened - len(self._free)

    def _free_place(self) -> tuple[int, int] | None:
        """Slot and instance for one more sequence; None where all are taken. The lowest slot first: it keeps batches of
        fixed slots small, and instances evenly filled."""
        if self._free:
            return heappop(self._free)
        if self._opened == self._slots:
            return None
        self._opened += 1
        return divmod(self._opened - 1, len(self._busy))

    def _place(self, sequence: _Sequence[T], slot: int, instance: int) -> None:
        sequence.slot, sequence.instance = slot, instance
        if sequence.line:
            self._ready[instance].add(_head(sequence))

    def _skip(self, ticket: T) -> None:
        """Let a request go that has not run."""
        sequence = ticket.step.sequence
        if ticket.step.starts:
            after = next(islice(dropwhile(lambda other: other is not ticket, sequence.line), 1, None), None)
            if after is None:
                sequence.owes_start = True
            else:
                after.step.starts = True
        self._leave(ticket)
        self._rest(sequence)

    def _leave(self, ticket: T) -> None:
        sequence = ticket.step.sequence
        was_first = sequence.instance >= 0 and _head(sequence) is ticket
        del sequence.line[ticket]
        if was_first:
            ready = self._ready[sequence.instance]
            ready.remove(ticket)
            if sequence.line:
                ready.add(_head(sequence))
        del self._waiting[ticket]
        self._load.rows -= ticket.rows
        self._load.requests -= 1
        ticket.waiting = False
        if self._budget is not None:
            self._budget.give_back(ticket.size)

    def _rest(self, sequence: _Sequence[T]) -> None:
        """Where nothing of a sequence waits or runs: it is over, or idle from when it was last touched."""
        if sequence.line or sequence.running:
            return
        if sequence.instance < 0:
            del self._backlog[sequence]
            self._close(sequence)
        elif sequence.ended:
            self._release(sequence)
        else:
            sequence.idle_at = sequence.touched + self._policy.max_idle
            if not sequence.timed:
                self._time(sequence)

    def _reclaim(self, sequence: _Sequence[T]) -> None:
        self._reclaimed()
        self._release(sequence)

    def _release(self, sequence: _Sequence[T]) -> None:
        """It is over: its slot goes to the backlog's first."""
        self._close(sequence)
        sequence.idle_at = inf
        instance, slot = sequence.instance, sequence.slot
        sequence.instance = -1
        self._released(instance, slot)
        if self._backlog:
            heir = next(iter(self._backlog))
            del self._backlog[heir]
            self._place(heir, slot, instance)
        else:
            heappush(self._free, (slot, instance))
            if not self._active():
                self.when_empty()

    def _close(self, sequence: _Sequence[T]) -> None:
        if self._open.get(sequence.key) is sequence:
            del self._open[sequence.key]

    def _time(self, sequence: _Sequence[T]) -> None:
        timers = self._timers
        if len(timers) > 2 * self._active() + 32:  # sequences that are over leave theirs behind
            timers[:] = [timer for timer in timers if timer[2].instance >= 0]
            heapify(timers)
        sequence.timed = True
        heappush(timers, (sequence.idle_at, next(self._numbers), sequence))

    def _next_idle(self) -> float:
        """When the next sequence will have been idle for too long. Timers that are too early are put right."""
        timers = self._timers
        while timers and timers[0][0] != timers[0][2].idle_at:
            sequence = heappop(timers)[2]
            sequence.timed = False
            if sequence.idle_at < inf:
                self._time(sequence)
        return timers[0][0] if timers else inf


def _head(sequence: _Sequence[T]) -> T:
    return next(iter(sequence.line))
