"""The simulator's virtual time: against the theory of queues, and against the server's own batcher."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, repeat
from math import exp, inf
from operator import itemgetter

import numpy as np
import pytest

from loadtest.errors import LoadTestError
from loadtest.simulation.costs import normals
from loadtest.simulation.engine import Engine
from loadtest.simulation.tally import Tally
from server.errors import Unavailable
from server.scheduling.batcher import Batcher, Queue
from server.scheduling.clock import LoopClock
from server.scheduling.costs import CostTable
from server.scheduling.policy import LevelPolicy, WindowPolicy
from server.scheduling.queue import BatchQueue, Ticket
from server.scheduling.slo import SloPolicy
from server.scheduling.slo_queue import SloQueue
from tests import autojump
from tests.fakes import NamedTicket, PuppetLane

MAX_ROWS = 8
TICK = 2.0**-30
"""Times of the comparison are whole ticks, a nanosecond each: floats add them without error."""
SECONDS = [round(n * 2**17) * TICK + 2**-12 for n in range(MAX_ROWS + 1)]
"""Of a batch, by rows: 0.24 ms, and 0.12 ms for each row."""


@dataclass
class RecordedQueue:
    """A queue that remembers when it gave away which requests, by their times of arrival, and whom it refused."""

    queue: Queue[Ticket]
    taken: list[tuple[float, list[float]]] = field(default_factory=list)
    expired: list[tuple[float, list[float]]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.discard, self.ended, self.answered = self.queue.discard, self.queue.ended, self.queue.answered
        self.clear, self.limit_rows = self.queue.clear, self.queue.limit_rows
        self.next_due, self.next_deadline = self.queue.next_due, self.queue.next_deadline

    def __len__(self) -> int:
        return len(self.queue)

    def put(self, ticket: Ticket) -> None:
        try:
            self.queue.put(ticket)
        except Unavailable:
            self.refused.append(ticket.arrived)
            raise

    def expire(self, now: float) -> list[Ticket]:
        if late := self.queue.expire(now):
            self.expired.append((now, [ticket.arrived for ticket in late]))
        return late

    def take(self, now: float, hurry: bool = False) -> list[Ticket]:
        if batch := self.queue.take(now, hurry):
            self.taken.append((now, [ticket.arrived for ticket in batch]))
        return batch


class CostLane(PuppetLane):
    """A lane that is as fast as `SECONDS` say."""

    def submit(self, batch: Sequence[NamedTicket], done: object) -> None:
        self.seconds = SECONDS[sum(ticket.rows for ticket in batch)]
        super().submit(batch, done)  # type: ignore[arg-type]


def in_the_batcher(
    queue: RecordedQueue, lanes: int, times: Sequence[float], rows: Sequence[int], timeout: float, until: float
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        batcher: Batcher[Ticket, object] = Batcher(
            queue, [CostLane() for _ in range(lanes)], LoopClock(loop), finished=lambda *_: None, expired=lambda _: None
        )

        def arrive(when: float, sizes: Sequence[int]) -> None:
            assert loop.time() == when
            for size in sizes:
                with suppress(Unavailable):
                    batcher.submit(NamedTicket("", size, None, when, when + timeout))

        # Together, since the loop runs timers of one moment in no order.
        for when, group in groupby(zip(times, rows, strict=True), key=itemgetter(0)):
            loop.call_at(when, arrive, when, [size for _, size in group])
        await asyncio.sleep(until)

    autojump.run(main())


def in_the_simulator(
    queue: RecordedQueue, lanes: int, times: Sequence[float], rows: Sequence[int], timeout: float, until: float
) -> None:
    tally = Tally(1.0, MAX_ROWS)
    engine = Engine(
        queue, lanes, tally, typical=SECONDS, spread=[0.0] * (MAX_ROWS + 1), normals=repeat(0.0), timeout=timeout
    )
    half = len(times) // 2  # as from two blocks
    engine.run(list(times[:half]), list(rows[:half]), times[half])
    engine.run(list(times[half:]), list(rows[half:]), until)


def slo_queue(lanes: int) -> Queue[Ticket]:
    """It takes batches to be faster than they are, so that it accepts what will expire."""
    costs = CostTable((1, 2, 4, 8))
    for size in costs.sizes:
        costs.observe(size, 0.6 * SECONDS[size])
    return SloQueue(SloPolicy(MAX_ROWS, objective=2.0**-10 + 2.0**-14), costs, lanes)


QUEUES: dict[str, Callable[[int], Queue[Ticket]]] = {
    "natural": lambda _: BatchQueue(WindowPolicy(MAX_ROWS)),
    "window": lambda _: BatchQueue(WindowPolicy(MAX_ROWS, max_delay=2.0**-9)),
    "preferred": lambda _: BatchQueue(WindowPolicy(MAX_ROWS, max_delay=2.0**-8, preferred_rows=(3, 6))),
    "bounded": lambda _: BatchQueue(WindowPolicy(MAX_ROWS, (LevelPolicy(max_queued_rows=12),), max_delay=2.0**-10)),
    "slo": slo_queue,
}


@pytest.mark.parametrize("timeout", [inf, 2.0**-8 + 2.0**-13])
@pytest.mark.parametrize("load", [0.3, 0.9, 2.0])
@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("policy", QUEUES)
def test_the_simulator_and_the_batcher_take_the_same_batches(
    policy: str, lanes: int, load: float, timeout: float
) -> None:
    rng = np.random.default_rng(7)
    count = 600
    gap = SECONDS[MAX_ROWS] / MAX_ROWS / lanes / load * 1.5
    gaps = rng.exponential(gap / TICK, count).astype(int) * (rng.random(count) < 0.9)  # some arrive together
    times = ((1 + np.cumsum(gaps)) * TICK).tolist()
    times[count // 2 :] = [when + 1000 * TICK for when in times[count // 2 :]]  # none together across two blocks
    rows = rng.integers(1, 3, count).tolist()
    queues = [RecordedQueue(QUEUES[policy](lanes)) for _ in range(2)]
    for run, queue in zip((in_the_batcher, in_the_simulator), queues, strict=True):
        run(queue, lanes, times, rows, timeout, times[-1] + 1.0)
    real, simulated = queues
    assert simulated.taken == real.taken
    assert simulated.expired == real.expired
    assert simulated.refused == real.refused
    if policy == "slo" and load > 1:
        assert simulated.expired and simulated.refused
    left = sum(len(who) for _, who in simulated.taken + simulated.expired) + len(simulated.refused)
    assert left == count


@pytest.mark.parametrize(("load", "spread"), [(0.5, 0.0), (0.8, 0.0), (0.6, 0.4)])
def test_single_rows_wait_as_pollaczek_and_khinchine_say(load: float, spread: float) -> None:
    mean, square = exp(spread**2 / 2), exp(2 * spread**2)  # of a lognormal with median 1
    rate = load / mean
    rng = np.random.default_rng(11)
    times = np.cumsum(rng.exponential(1 / rate, 150_000))
    tally = Tally(1.0, 1)
    engine = Engine(
        BatchQueue(WindowPolicy(1)), 1, tally, typical=[0.0, 1.0], spread=[0.0, spread], normals=normals(rng)
    )
    engine.run(times.tolist(), None, inf)
    assert tally.answered == len(times)
    assert tally.mean_latency - mean == pytest.approx(rate * square / 2 / (1 - load), rel=0.03)


def test_what_is_running_or_waiting_at_the_end_is_present() -> None:
    tally = Tally(1.0, 2)
    engine = Engine(
        BatchQueue(WindowPolicy(2)), 1, tally, typical=[0.0, 1.0, 1.0], spread=[0.0] * 3, normals=repeat(0.0)
    )
    engine.run([0.0, 0.25, 0.5, 0.75], None, 1.5)
    assert (tally.arrived, tally.answered, tally.good, engine.present) == (4, 1, 1, 3)
    engine.run([], None, 10.0)
    assert (tally.answered, tally.good, engine.present) == (4, 1, 0)
    assert tally.batches.tolist() == [0, 2, 1]
    assert tally.busy == 3.0


def test_batches_are_reported_to_whoever_observes_costs() -> None:
    observed: list[tuple[int, float]] = []
    engine = Engine(
        BatchQueue(WindowPolicy(4)),
        1,
        Tally(1.0, 4),
        typical=[0.0, 1.0, 2.0, 3.0, 4.0],
        spread=[0.0] * 5,
        normals=repeat(0.0),
        rows=2,
        observe=lambda rows, seconds: observed.append((rows, seconds)),
    )
    engine.run([0.0, 0.5, 0.6], None, inf)
    assert observed == [(2, 2.0), (4, 4.0)]


class Restless(BatchQueue[Ticket]):
    """Wants to be asked at once, and has nothing."""

    def take(self, now: float, hurry: bool = False) -> list[Ticket]:
        return []

    def next_due(self) -> float:
        return -inf


def test_a_policy_that_makes_time_stand_still_is_an_error() -> None:
    engine = Engine(
        Restless(WindowPolicy(1)), 1, Tally(1.0, 1), typical=[0.0, 1.0], spread=[0.0, 0.0], normals=repeat(0.0)
    )
    with pytest.raises(LoadTestError, match=r"again and again, at 0\.5 s"):
        engine.run([0.5], None, 1.0)
