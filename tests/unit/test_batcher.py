"""The event-loop shell around the queue, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import inf
from time import process_time

import pytest

from server.errors import QueueFull
from server.scheduling.batcher import Batcher
from server.scheduling.clock import LoopClock
from server.scheduling.policy import WindowPolicy
from server.scheduling.queue import BatchQueue
from tests.autojump import run
from tests.fakes import NamedTicket, PuppetLane, names
from tests.unit.batching import BatcherBench, window_policy


def test_the_window_is_counted_from_arrival() -> None:
    async def main() -> None:
        bench = BatcherBench(max_delay=100)
        for when, name in ((0, "a"), (60, "b"), (99, "c"), (150, "d")):
            await bench.at(when)
            bench.submit(name)
        await bench.at(300)
        assert bench.batches == [(100, ["a", "b", "c"]), (250, ["d"])]

    run(main())


def test_the_window_of_a_request_that_waited_for_a_lane_has_passed_already() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(seconds=50), max_delay=10, max_rows=1)
        bench.submit("a")
        await bench.at(1)
        bench.submit("b")
        await bench.at(100)
        assert bench.batches == [(0, ["a"]), (50, ["b"])]

    run(main())


def test_without_a_window_a_request_runs_as_soon_as_a_lane_is_idle() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(seconds=10))
        bench.submit("a")
        for when, name in ((1, "b"), (2, "c")):
            await bench.at(when)
            bench.submit(name)
        await bench.at(30)
        assert bench.batches == [(0, ["a"]), (10, ["b", "c"])]

    run(main())


def test_a_burst_of_one_loop_turn_shares_a_batch() -> None:
    async def main() -> None:
        bench = BatcherBench()
        for name in "abc":
            bench.submit(name)
        assert bench.batches == []  # nothing runs inside submit
        await bench.at(1)
        assert bench.batches == [(0, ["a", "b", "c"])]

    run(main())


def test_a_full_batch_runs_at_once() -> None:
    async def main() -> None:
        bench = BatcherBench(max_delay=100)
        for name in "abcd":
            bench.submit(name)
        await bench.at(1)
        assert bench.batches == [(0, ["a", "b", "c", "d"])]

    run(main())


def test_several_lanes_run_batches_beside_each_other() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(10), PuppetLane(10), max_rows=1)
        for name in "abc":
            bench.submit(name)
        await bench.at(1)
        assert (bench.batcher.running, bench.batcher.pending) == (2, 1)
        await bench.at(30)
        assert bench.batches == [(0, ["a"]), (0, ["b"]), (10, ["c"])]
        assert (bench.batcher.running, bench.batcher.pending) == (0, 0)

    run(main())


def test_an_outcome_is_reported_with_its_batch() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(10, outcome=lambda batch: [f"{ticket.name}!" for ticket in batch]))
        bench.submit("a")
        bench.submit("b")
        await bench.at(20)
        assert bench.finished == [(10, ["a", "b"], ["a!", "b!"])]

    run(main())


def test_the_next_batch_starts_before_the_last_one_is_reported() -> None:
    async def main() -> None:
        running: list[int] = []
        lane = PuppetLane(10)
        clock = LoopClock(asyncio.get_running_loop())
        batcher: Batcher[NamedTicket, object] = Batcher(
            BatchQueue(WindowPolicy(1)),
            [lane],
            clock,
            finished=lambda _batch, _outcome: running.append(batcher.running),
            expired=lambda _: None,
        )
        for name in "ab":
            batcher.submit(NamedTicket(name))
        await asyncio.sleep(30)
        assert running == [1, 0]

    run(main())


def test_a_deadline_is_exact_while_a_lane_is_idle() -> None:
    async def main() -> None:
        bench = BatcherBench(max_delay=100)
        bench.submit("a", timeout=7)
        bench.submit("b")
        await bench.at(200)
        assert bench.expired == [(7, "a")]
        assert bench.batches == [(100, ["b"])]

    run(main())


def test_a_deadline_is_exact_while_every_lane_is_busy() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(1000), max_rows=1)
        bench.submit("a")
        await bench.at(1)
        bench.submit("late", timeout=60)
        await bench.at(2)
        bench.submit("soon", timeout=5)
        await bench.at(500)
        assert bench.expired == [(7, "soon"), (61, "late")]

    run(main())


def test_a_request_that_arrives_too_late_expires_and_does_not_run() -> None:
    async def main() -> None:
        bench = BatcherBench()
        bench.submit("a", timeout=0)
        await bench.at(1)
        assert (bench.expired, bench.batches) == ([(0, "a")], [])

    run(main())


def test_a_deadline_does_not_touch_what_runs() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(10))
        bench.submit("a", timeout=5)
        await bench.at(20)
        assert bench.expired == []
        assert [batch for _, batch, _ in bench.finished] == [["a"]]

    run(main())


def test_a_cancelled_request_frees_its_room() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(10), max_rows=1, max_queued_rows=1)
        bench.submit("a")
        await bench.at(1)
        waiting = bench.submit("b")
        with pytest.raises(QueueFull):
            bench.submit("c")
        assert bench.batcher.cancel(waiting)
        bench.submit("d")
        await bench.at(50)
        assert bench.batches == [(0, ["a"]), (10, ["d"])]
        assert [batch for _, batch, _ in bench.finished] == [["a"], ["d"]]
        assert bench.expired == []

    run(main())


def test_what_runs_cannot_be_cancelled() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(10))
        ticket = bench.submit("a")
        await bench.at(1)
        assert not bench.batcher.cancel(ticket)
        await bench.at(20)
        assert [batch for _, batch, _ in bench.finished] == [["a"]]

    run(main())


def test_a_departure_that_leaves_a_preferred_size_lets_it_run_at_once() -> None:
    async def main() -> None:
        bench = BatcherBench(max_rows=8, max_delay=100, preferred_rows=(2,))
        gone = bench.submit("gone", rows=3)
        bench.submit("a", rows=2)
        await bench.at(1)
        bench.batcher.cancel(gone)
        await bench.at(2)
        assert bench.batches == [(1, ["a"])]

    run(main())


def test_a_queue_without_room_refuses_the_caller() -> None:
    async def main() -> None:
        bench = BatcherBench(max_rows=1, max_queued_rows=1)
        bench.submit("a")
        with pytest.raises(QueueFull):
            bench.submit("b")
        await bench.at(9)
        assert bench.batches == [(0, ["a"])]

    run(main())


def test_a_lanes_exception_reaches_its_batch_and_the_batcher_goes_on() -> None:
    async def main() -> None:
        def outcome(batch: Sequence[NamedTicket]) -> object:
            if "bad" in names(batch):
                raise RuntimeError("broken")
            return "fine"

        bench = BatcherBench(PuppetLane(1, outcome), max_rows=1)
        bench.submit("bad")
        bench.submit("good")
        await bench.at(5)
        [(_, first, error), (_, second, fine)] = bench.finished
        assert (first, second, fine) == (["bad"], ["good"], "fine")
        assert isinstance(error, RuntimeError)

    run(main())


def test_an_idle_batcher_sets_no_alarm() -> None:
    async def main() -> None:
        bench = BatcherBench(max_delay=1)
        await bench.at(3600)
        assert bench.clock.rings == 0

    run(main())


def test_a_window_costs_one_wake_up() -> None:
    async def main() -> None:
        bench = BatcherBench(max_delay=8)
        bench.submit("a")
        await bench.at(4)
        bench.submit("b")
        await bench.at(3600)
        assert (bench.clock.rings, bench.batches) == (1, [(8, ["a", "b"])])

    run(main())


def test_natural_batching_sets_no_alarm() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(1))
        for second in range(10):
            await bench.at(second / 2)
            bench.submit(second)
        await bench.at(100)
        assert bench.clock.rings == 0
        assert sum(len(batch) for _, batch, _ in bench.finished) == 10

    run(main())


def test_an_hour_of_traffic_takes_no_time() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(seconds=0.01), max_delay=0.005)
        for second in range(3600):
            await bench.at(second)
            bench.submit(second, timeout=60)
        await bench.at(3600)
        assert len(bench.finished) == 3600
        assert bench.expired == []

    started = process_time()
    run(main())
    assert process_time() - started < 5


def test_what_waits_may_be_a_full_batch_once_batches_are_smaller() -> None:
    async def main() -> None:
        bench = BatcherBench(max_rows=8, max_delay=100)
        for name in "abc":
            bench.submit(name)
        await bench.at(1)
        bench.submit("d", signature="other")
        bench.submit("e", signature="other")
        bench.batcher.limit_rows(2, "other")
        await bench.at(5)
        assert bench.batches == [(1, ["d", "e"])]  # those of the first signature may still be more

    run(main())


def test_a_lane_is_busy_from_when_it_has_a_batch_until_the_loop_has_it_back() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(seconds=10), PuppetLane(seconds=10), max_rows=1)
        busy: list[list[float]] = []
        for when, name in ((1, "a"), (5, "b"), (30, "c")):
            await bench.at(when)
            bench.submit(name)
        for when in (32, 100):
            await bench.at(when)
            busy.append(sorted(bench.batcher.busy_seconds()))
        assert busy == [[10, 12], [10, 20]]  # "c" has run for two seconds when first asked

    run(main())


def test_the_oldest_arrival_is_that_of_who_waits_and_not_of_who_runs() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(seconds=10), max_rows=1)
        assert bench.batcher.oldest_arrival() == inf
        for when, name in ((1, "a"), (2, "b"), (3, "c")):
            await bench.at(when)
            bench.submit(name)
        await bench.at(4)
        assert bench.batcher.oldest_arrival() == 2

    run(main())


class Watched(BatchQueue[NamedTicket]):
    """A queue that counts how often it is looked at."""

    looks = 0

    def expire(self, now: float) -> list[NamedTicket]:
        self.looks += 1
        return super().expire(now)


def test_a_request_that_finds_every_lane_busy_is_not_looked_at_before_one_is_idle() -> None:
    async def main() -> None:
        queue = Watched(window_policy(max_rows=1))
        bench = BatcherBench(PuppetLane(seconds=10), queue=queue)
        bench.submit("a")
        await bench.at(1)
        looks = queue.looks
        bench.submit("b")
        await bench.at(9)
        assert queue.looks == looks
        await bench.at(30)
        assert bench.batches == [(0, ["a"]), (10, ["b"])]

    run(main())


def test_cancelling_what_waits_no_more_is_no_reason_to_look() -> None:
    async def main() -> None:
        queue = Watched(window_policy())
        bench = BatcherBench(PuppetLane(seconds=10), queue=queue)
        ticket = bench.submit("a")
        await bench.at(20)
        looks = queue.looks
        assert not bench.batcher.cancel(ticket)
        await bench.at(30)
        assert queue.looks == looks

    run(main())
