"""A batcher of sequences in virtual time: lanes, moments and draining."""

from __future__ import annotations

import asyncio
from typing import Any

from server.scheduling.sequence_policy import SequencePolicy
from server.scheduling.sequences import SequenceQueue, Step
from server.scheduling.turns import Turns
from tests.autojump import run
from tests.fakes import NamedTicket, PuppetLane
from tests.unit.batching import BatcherBench


def bench(*lanes: PuppetLane, turns: Turns | None = None, **policy: Any) -> BatcherBench:
    """A request is named by its sequence, its number, and "s" or "e" where it starts or ends it: "a1s", "a2", "a3e"."""
    numbers = {"max_rows": 2, "slots": 2, "max_idle": 100.0, "min_ready": 1, **policy}
    queue: SequenceQueue[NamedTicket] = SequenceQueue(SequencePolicy(**numbers), len(lanes), step_of)
    return BatcherBench(*lanes, queue=queue, turns=turns, lane_of=lambda batch: batch[0].step.instance)


def step_of(ticket: NamedTicket) -> Step:
    name = str(ticket.name)
    return Step(name[0], "s" in name, "e" in name)


def test_a_sequence_runs_on_its_lane_though_another_is_idle() -> None:
    async def main() -> None:
        first, second = PuppetLane(10), PuppetLane(10)
        it = bench(first, second, slots=1)
        it.submit("a1s")
        it.submit("b1s")
        await it.at(5)
        it.submit("b2")
        await it.at(20)
        it.submit("a2")
        await it.at(50)
        assert first.batches == [(0, ["a1s"]), (20, ["a2"])]
        assert second.batches == [(0, ["b1s"]), (10, ["b2"])]

    run(main())


def test_a_silent_sequence_makes_room_at_its_moment_with_a_single_ring() -> None:
    async def main() -> None:
        it = bench(PuppetLane(10), slots=1, max_rows=1)
        it.submit("a1s")
        await it.at(5)
        it.submit("b1s")
        await it.at(300)
        assert it.batches == [(0, ["a1s"]), (110, ["b1s"])], "10 to run, 100 of silence"
        assert it.clock.rings == 2, "and one for the silence of b"

    run(main())


def test_a_batch_waits_for_its_slots_to_fill_until_the_delay_is_over() -> None:
    async def main() -> None:
        it = bench(PuppetLane(1), min_ready=2, max_delay=30)
        it.submit("a1s")
        await it.at(10)
        it.submit("b1s")
        await it.at(20)
        it.submit("a2")
        await it.at(90)
        assert it.batches == [(10, ["a1s", "b1s"]), (50, ["a2"])]

    run(main())


def test_what_is_due_on_a_busy_lane_does_not_keep_the_loop_busy() -> None:
    async def main() -> None:
        it = bench(PuppetLane(1000), PuppetLane(1), slots=1, max_rows=1, max_delay=5)
        it.submit("a1s")
        it.submit("a2")
        await it.at(500)
        assert it.clock.rings <= 1
        await it.at(2500)
        assert it.lanes[0].batches == [(0, ["a1s"]), (1000, ["a2"])]

    run(main())


def test_sequences_wait_for_a_turn_like_everybody() -> None:
    async def main() -> None:
        turns = Turns(1)
        other = BatcherBench(PuppetLane(10), turns=turns)
        it = bench(PuppetLane(10), turns=turns)
        other.submit("x")
        await it.at(1)
        it.submit("a1s")
        await it.at(50)
        assert it.batches == [(10, ["a1s"])]
        assert it.waited == [9]

    run(main())


def test_sequences_that_are_over_leave_nothing_behind_however_many_slots_there_are() -> None:
    queue: SequenceQueue[NamedTicket] = SequenceQueue(SequencePolicy(1, slots=10**6, max_idle=600.0), 1, step_of)
    for _ in range(1000):
        for name in ("as", "ae"):
            queue.put(NamedTicket(name))
            queue.ended(queue.take(0.0), 0.0)
    assert queue.counts().active == 0
    assert len(queue._timers) < 40


def test_draining_runs_everything_whoever_holds_the_slots() -> None:
    async def main() -> None:
        it = bench(PuppetLane(10), slots=1, max_rows=1, max_delay=50)
        it.submit("a1s")
        await it.at(1)
        for name in ("b1s", "b2", "c1se", "d1s"):
            it.submit(name)
        await it.batcher.drain()
        assert asyncio.get_running_loop().time() == 50
        assert [names for _, names in it.batches] == [["a1s"], ["b1s"], ["b2"], ["c1se"], ["d1s"]]
        it.batcher.close()

    run(main())
