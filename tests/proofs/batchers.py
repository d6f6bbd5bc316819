"""A batcher, its queue and its lanes, to which one thing happens at a time, in any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from server.errors import ConvoyError
from server.scheduling.batcher import Batcher, Queue
from server.scheduling.queue import Ticket
from server.scheduling.turns import Turns
from tests.fakes import PuppetAlarm, PuppetClock
from tests.proofs.exploring import Move
from tests.proofs.loops import ManualLoop

WAITS, RUNS, ENDED = "waits", "runs", "ended"
ANSWERED, EXPIRED, CANCELLED, REFUSED = "answered", "expired", "cancelled", "refused"


@dataclass(frozen=True)
class Kind:
    """What may be asked for."""

    rows: int = 1
    signature: str = "x"
    patience: float = inf
    """From its arrival to its deadline."""
    level: int = 1
    delay: float = inf
    """From its arrival until it goes behind the others of its level."""
    batcher: int = 0
    size: int = 0
    sequence: tuple[str, bool, bool] = ("", False, False)
    """Its id, and whether the request starts and ends it."""


class Asked(Ticket):
    """A request, and what has become of it."""

    __slots__ = ("fate", "kind", "number")

    def __init__(self, number: int, kind: Kind, now: float) -> None:
        super().__init__(kind.rows, kind.signature, now, now + kind.patience, kind.level, now + kind.delay, kind.size)
        self.number = number
        self.kind = kind
        self.fate = WAITS

    def becomes(self, fate: str, before: str) -> None:
        assert self.fate == before, f"request {self.number} {fate}, which was {self.fate}"
        self.fate = fate


class ManualLane:
    """Runs one batch until it is told to end."""

    def __init__(self, system: BatcherSystem, number: int, max_rows: int) -> None:
        self.system = system
        self.number = number
        self.max_rows = max_rows
        self.batch: Sequence[Asked] = ()
        self.done: Callable[[Any], None] | None = None

    def submit(self, batch: Sequence[Asked], done: Callable[[Any], None]) -> None:
        assert self.done is None, "a lane was given a batch while it ran another"
        assert len({asked.signature for asked in batch}) == 1, "a batch of several signatures"
        assert sum(asked.rows for asked in batch) <= self.max_rows, "a batch that is too large"
        for asked in batch:
            asked.becomes(RUNS, WAITS)
            assert asked.deadline > self.system.clock.time, f"request {asked.number} began to run too late"
        self.batch, self.done = batch, done
        self.system.begun(self, batch)

    def end(self, outcome: Any) -> None:
        assert self.done is not None
        done, batch, self.batch, self.done = self.done, self.batch, (), None
        for asked in batch:
            asked.becomes(ENDED, RUNS)
        done(outcome)

    def close(self) -> None:
        """It has nothing that could be released."""


class BatcherSystem:
    """Batchers of one server, one for each queue, and the requests that come, leave, expire, run and end."""

    def __init__(
        self,
        queues: Sequence[Queue[Asked]],
        kinds: Sequence[Kind],
        *,
        requests: int,
        seconds: int,
        lanes: int = 1,
        max_rows: int = 2,
        turns: Turns | None = None,
        lane_of: Callable[[Sequence[Asked]], int] | None = None,
        failures: bool = False,
        hurries: bool = True,
        cancels: bool = True,
    ) -> None:
        """`requests` come at most, and `seconds` pass; what else may happen does so as often as it can."""
        self.loop = ManualLoop()
        self.clock = PuppetClock()
        self.kinds = tuple(kinds)
        self.came = 0
        self.asked: dict[int, Asked] = {}
        """Those that wait or run. Whoever holds on to another notices if it is answered again."""
        self.requests, self.seconds = requests, seconds
        self.failures, self.may_hurry, self.cancels = failures, hurries, cancels
        self.queues = list(queues)
        self.turns = turns
        self.lanes = [[ManualLane(self, i, max_rows) for i in range(lanes)] for _ in queues]
        with self.loop.running():
            self.batchers: list[Batcher[Asked, Any]] = [
                Batcher(
                    queue,
                    own_lanes,
                    self.clock,
                    finished=self._finished,
                    expired=self._expired,
                    turns=turns,
                    lane_of=lane_of,
                )
                for queue, own_lanes in zip(queues, self.lanes, strict=True)
            ]

    @property
    def alarms(self) -> list[PuppetAlarm]:
        return self.clock.alarms

    def moves(self) -> list[Move]:
        found: list[Move] = []
        if self.came < self.requests:
            found += [("put", number) for number in range(len(self.kinds))]
        if self.cancels:
            found += [("cancel", number) for number in self.asked]
        if self.loop.ready:
            found.append(("turn",))
        for batcher, lanes in enumerate(self.lanes):
            for lane in lanes:
                if lane.done is not None:
                    found.append(("end", batcher, lane.number, "well"))
                    if self.failures:
                        found.append(("end", batcher, lane.number, "failed"))
        if self.clock.time < self.seconds:
            found.append(("second",))
        found += [("ring", number) for number, alarm in enumerate(self.alarms) if alarm.when <= self.clock.time]
        if self.may_hurry:
            found.append(("hurry",))
        return found

    def do(self, move: Move) -> None:
        getattr(self, f"_{move[0]}")(*move[1:])
        self.check()

    def settle(self) -> None:
        """Lanes end, alarms ring and time passes until nothing is under way; then nobody may be left over."""
        for _ in range(100):
            if self.loop.ready:
                self.loop.turn()
            elif busy := [lane for lanes in self.lanes for lane in lanes if lane.done is not None]:
                busy[0].end(None)
            elif (soonest := min(self.alarms, key=lambda alarm: alarm.when)).when < inf:
                self.clock.time = max(self.clock.time, soonest.when)
                self._ring(self.alarms.index(soonest))
            else:
                break
            self.check()
        else:
            raise AssertionError("it never settles")
        assert not self.asked, f"requests {[*self.asked]} are lost"
        assert all(batcher.pending == batcher.running == 0 for batcher in self.batchers)

    def check(self) -> None:
        """What holds between any two moves."""
        for number, (batcher, queue) in enumerate(zip(self.batchers, self.queues, strict=True)):
            own = [asked for asked in self.asked.values() if asked.kind.batcher == number]
            waiting = [asked for asked in own if asked.fate == WAITS]
            assert batcher.pending == len(queue) == len(waiting), "the batcher has lost count of those that wait"
            assert all(asked.waiting is (asked.fate == WAITS) for asked in own)
            assert batcher.running == sum(lane.done is not None for lane in self.lanes[number])
            self.check_alarm(number)

    def check_alarm(self, number: int) -> None:
        """Where nothing else will wake the batcher, its alarm does, in time."""
        if self.loop.ready or self.turns is not None:
            return
        queue, alarm = self.queues[number], self.alarms[number]
        waiting = [asked for asked in self.asked.values() if asked.fate == WAITS and asked.kind.batcher == number]
        soonest = min([asked.expires for asked in waiting], default=inf)
        assert alarm.when <= soonest, "nothing will ring at the next deadline"
        if any(lane.done is None for lane in self.lanes[number]):
            soonest = min(queue.next_due(), queue.next_deadline())
            assert alarm.when <= max(soonest, self.clock.time), "nothing will ring when there is something to do"

    def begun(self, lane: ManualLane, batch: Sequence[Asked]) -> None:
        """A lane has been given a batch."""

    def ended(self, batch: Sequence[Asked]) -> None:
        """A batch was reported."""

    def leaves(self, asked: Asked, fate: str, before: str) -> None:
        asked.becomes(fate, before)
        del self.asked[asked.number]

    def make(self, kind: Kind) -> Asked:
        return Asked(self.came, kind, self.clock.time)

    def _put(self, number: int) -> None:
        kind = self.kinds[number]
        asked = self.asked[self.came] = self.make(kind)
        self.came += 1
        try:
            self.batchers[kind.batcher].submit(asked)
        except ConvoyError:
            self.leaves(asked, REFUSED, WAITS)
        assert asked.fate in {WAITS, REFUSED}, "a request was answered before submit returned"

    def _cancel(self, number: int) -> None:
        asked = self.asked[number]
        waits = asked.fate == WAITS
        assert self.batchers[asked.kind.batcher].cancel(asked) is waits
        if waits:
            self.leaves(asked, CANCELLED, WAITS)

    def _turn(self) -> None:
        self.loop.turn()

    def _end(self, batcher: int, lane: int, outcome: str) -> None:
        self.lanes[batcher][lane].end(outcome if outcome == "well" else RuntimeError(outcome))

    def _second(self) -> None:
        self.clock.time += 1

    def _ring(self, number: int) -> None:
        alarm = self.alarms[number]
        alarm.when = inf
        alarm.callback()

    def _hurry(self) -> None:
        self.may_hurry = False
        for batcher in self.batchers:
            batcher.hurry()

    def _finished(self, batch: Sequence[Asked], _: Any) -> None:
        for asked in batch:
            self.leaves(asked, ANSWERED, ENDED)
        self.ended(batch)

    def _expired(self, asked: Asked) -> None:
        self.leaves(asked, EXPIRED, WAITS)
        assert asked.expires <= self.clock.time, f"request {asked.number} expired too early"
