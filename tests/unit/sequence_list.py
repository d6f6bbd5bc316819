"""The rules of sequences in the fewest words: slow, and obviously right."""

from __future__ import annotations

from math import inf
from typing import Any


class Life:
    """One sequence: all its requests ever, and what became of them."""

    def __init__(self, key: object) -> None:
        self.key = key
        self.all: list[Any] = []
        self.line: list[Any] = []
        self.running: Any = None
        self.ran: Any = None
        """The last of its requests that ran, or runs."""
        self.touched = 0.0
        self.has_slot = False
        self.closed = False
        """Whether it was ended from outside."""
        self._place: tuple[int, int] | None = None

    def is_ended(self, flags: dict[Any, tuple[bool, bool]]) -> bool:
        return self.closed or any(flags[ticket][1] for ticket in self.all)

    @property
    def place(self) -> tuple[int, int]:
        """Slot and instance, which the queue chooses once. Of one that came and went in one step, the slot alone."""
        sequence = self.all[0].step.sequence
        now = sequence.slot, sequence.instance
        assert sequence.slot >= 0, "a sequence has no slot"
        if sequence.instance >= 0:
            assert self._place in (None, now), "a sequence has moved"
            self._place = now
        return self._place or now


class SequenceList:
    """All sequences that are not over, in order of arrival."""

    def __init__(self, policy: dict[str, Any], instances: int, max_bytes: int) -> None:
        self.policy = policy
        self.instances = instances
        self.max_bytes = max_bytes
        self.lives: list[Life] = []
        self.flags: dict[Any, tuple[bool, bool]] = {}
        """By request, as it came: whether it starts, and whether it ends a sequence."""
        self.limits: dict[object, int] = {}
        self.busy: dict[int, list[Any]] = {}
        """Batches that run, by instance."""
        self.reclaimed = 0
        self.gone: list[int] = []
        """Slots of sequences that are over, since somebody last looked."""

    def waiting(self) -> list[Any]:
        """In order of arrival."""
        tickets = [ticket for life in self.lives for ticket in life.line]
        return sorted(tickets, key=list(self.flags).index)

    def open(self, key: object) -> Life | None:
        lives = [life for life in self.lives if life.key == key and not life.is_ended(self.flags)]
        assert len(lives) <= 1
        return lives[0] if lives else None

    def life_of(self, ticket: Any) -> Life:
        (life,) = [life for life in self.lives if ticket in life.all]
        return life

    def bytes(self) -> int:
        return sum(ticket.size for ticket in self.waiting())

    def has_room_for(self, size: int) -> bool:
        count = len(self.waiting())
        return count < self.policy["max_queued"] and (self.bytes() == 0 or self.bytes() + size <= self.max_bytes)

    def backlog(self) -> list[Life]:
        return [life for life in self.lives if not life.has_slot]

    def placed(self) -> list[Life]:
        return [life for life in self.lives if life.has_slot]

    def free(self) -> list[tuple[int, int]]:
        every = [(slot, instance) for slot in range(self.policy["slots"]) for instance in range(self.instances)]
        return [place for place in every if place not in [life.place for life in self.placed()]]

    def idle(self) -> list[tuple[float, Life]]:
        """Sequences that go on and have nothing to do, with when they will have been silent for too long."""
        return [
            (life.touched + self.policy["max_idle"], life)
            for life in self.placed()
            if not life.line and life.running is None
        ]

    def put(self, ticket: Any, key: object, flags: tuple[bool, bool], now: float) -> None:
        """A request that the queue has taken."""
        life = self.open(key)
        if life is None:
            life = Life(key)
            self.lives.append(life)
        self.flags[ticket] = flags
        life.all.append(ticket)
        life.line.append(ticket)
        life.touched = now
        self.settle()

    def silent_too_long(self, key: object, now: float) -> bool:
        life = self.open(key)
        return any(each is life and when <= now for when, each in self.idle())

    def over(self, life: Life) -> None:
        self.lives.remove(life)
        if life.has_slot:
            self.gone.append(life.place[0])
        self.settle()

    def settle(self) -> None:
        """Let the ended go, forget who is empty in the backlog, and let the backlog have what is free."""
        for life in list(self.lives):
            nothing = not life.line and life.running is None
            if nothing and (life.is_ended(self.flags) or not life.has_slot):
                self.over(life)
                return
        room = self.policy["slots"] * self.instances - len(self.placed())
        for life in self.backlog()[:room]:
            life.has_slot = True
            assert life.place, "it has one from now on"

    def expire(self, now: float) -> list[Any]:
        """Who must leave now. End those that are silent for too long."""
        late = sorted([t for t in self.waiting() if t.deadline <= now], key=lambda ticket: ticket.deadline)
        self.skip(late)
        for when, life in self.idle():
            if when <= now:
                self.reclaimed += 1
                self.over(life)
        return late

    def skip(self, tickets: list[Any]) -> None:
        """These leave without having run."""
        for ticket in tickets:
            self.life_of(ticket).line.remove(ticket)
            self.settle()

    def starts(self, ticket: Any) -> bool:
        """Whether it or one before it was to start the sequence, since the last one that ran."""
        life = self.life_of(ticket)
        first = life.all.index(life.ran) + 1 if life.ran is not None else 0
        return any(self.flags[each][0] for each in life.all[first : life.all.index(ticket) + 1])

    def heads(self, instance: int) -> list[Any]:
        """What an instance could run at once, oldest first."""
        lives = [life for life in self.placed() if life.place[1] == instance and life.line and life.running is None]
        return sorted([life.line[0] for life in lives], key=list(self.flags).index)

    def idle_instances(self) -> list[int]:
        return [instance for instance in range(self.instances) if instance not in self.busy]

    def batch(self, now: float) -> list[Any]:
        """What runs next."""
        batches = [batch for instance in self.idle_instances() if (batch := self.batch_of(self.heads(instance), now))]
        return min(batches, key=lambda batch: list(self.flags).index(batch[0]), default=[])

    def batch_of(self, heads: list[Any], now: float) -> list[Any]:
        for head in heads:
            line = [ticket for ticket in heads if ticket.signature == head.signature]
            blocked = False
            if self.policy["in_order"]:
                if head is not heads[0]:
                    return []
                others = [heads.index(ticket) for ticket in heads if ticket.signature != head.signature]
                line = heads[: min(others, default=len(heads))]
                blocked = bool(others)
            if batch := self.worth_running(line, blocked, now):
                return batch
        return []

    def worth_running(self, line: list[Any], blocked: bool, now: float) -> list[Any]:
        policy = self.policy
        longest = line[: min(policy["max_rows"], self.limits.get(line[0].signature, inf))]
        full = len(longest) == min(policy["max_rows"], self.limits.get(line[0].signature, inf))
        due = now >= line[0].arrived + policy["max_delay"]
        if len(longest) >= policy["min_ready"] or full or due or blocked or len(longest) < len(line):
            return longest
        preferred = [size for size in policy["preferred"] if size <= len(longest)]
        return longest[: max(preferred, default=0)]

    def take(self, batch: list[Any]) -> None:
        for ticket in batch:
            life = self.life_of(ticket)
            life.line.remove(ticket)
            life.running = life.ran = ticket
        self.busy[self.life_of(batch[0]).place[1]] = batch

    def end(self, instance: int, now: float) -> None:
        for ticket in self.busy.pop(instance):
            life = self.life_of(ticket)
            life.running, life.touched = None, now
        self.settle()

    def next_due(self) -> float:
        heads = [head for instance in self.idle_instances() for head in self.heads(instance)]
        return min([head.arrived + self.policy["max_delay"] for head in heads], default=inf)

    def next_deadline(self) -> float:
        return min([t.deadline for t in self.waiting()] + [when for when, _ in self.idle()], default=inf)
