"""Batchers that share the cores, in virtual time."""

from __future__ import annotations

import asyncio

from server.scheduling.turns import Turns
from tests.autojump import run
from tests.fakes import PuppetLane
from tests.unit.batching import BatcherBench


def flood(bench: BatcherBench, *names: str) -> None:
    for name in names:
        bench.submit(name)


def test_two_models_that_share_one_turn_alternate_however_many_instances_one_of_them_has() -> None:
    async def main() -> None:
        turns = Turns(1)
        many = BatcherBench(PuppetLane(10), PuppetLane(10), PuppetLane(10), turns=turns, max_rows=1)
        one = BatcherBench(PuppetLane(10), turns=turns, max_rows=1)
        flood(many, *"abcd")
        flood(one, *"xyz")
        await many.at(100)
        assert many.batches == [(0, ["a"]), (20, ["b"]), (40, ["c"]), (60, ["d"])]
        assert one.batches == [(10, ["x"]), (30, ["y"]), (50, ["z"])]
        assert turns.running == 0

    run(main())


def test_as_many_batches_run_as_there_are_turns() -> None:
    async def main() -> None:
        turns = Turns(2)
        bench = BatcherBench(PuppetLane(10), PuppetLane(10), PuppetLane(10), turns=turns, max_rows=1)
        flood(bench, *"abcd")
        await bench.at(1)
        assert (turns.running, bench.batcher.running, bench.batcher.pending) == (2, 2, 2)
        await bench.at(100)
        assert bench.batches == [(0, ["a"]), (0, ["b"]), (10, ["c"]), (10, ["d"])]

    run(main())


def test_requests_gather_in_the_queue_while_their_model_waits_for_a_turn() -> None:
    async def main() -> None:
        turns = Turns(1)
        slow = BatcherBench(PuppetLane(100), turns=turns)
        bench = BatcherBench(PuppetLane(100), turns=turns)
        slow.submit("s")
        for when, name in ((1, "a"), (50, "b"), (99, "c")):
            await bench.at(when)
            bench.submit(name)
        await bench.at(300)
        assert bench.batches == [(100, ["a", "b", "c"])]
        assert bench.waited == [99]
        assert slow.waited == []

    run(main())


def test_a_deadline_is_exact_while_its_model_waits_for_a_turn() -> None:
    async def main() -> None:
        turns = Turns(1)
        slow = BatcherBench(PuppetLane(100), turns=turns)
        bench = BatcherBench(PuppetLane(1), turns=turns)
        slow.submit("s")
        await bench.at(1)
        bench.submit("a", timeout=7)
        bench.submit("b", timeout=60)
        await bench.at(300)
        assert bench.expired == [(8, "a"), (61, "b")]
        assert bench.batches == []
        assert turns.running == 0

    run(main())


def test_waiting_for_a_turn_wakes_nobody_up() -> None:
    async def main() -> None:
        turns = Turns(1)
        slow = BatcherBench(PuppetLane(1000), turns=turns)
        bench = BatcherBench(PuppetLane(1), turns=turns, max_delay=5)
        slow.submit("s")
        await bench.at(1)
        bench.submit("a")
        await bench.at(900)
        assert bench.clock.rings == 0

    run(main())


def test_a_model_whose_requests_went_away_passes_its_turn_on() -> None:
    async def main() -> None:
        turns = Turns(1)
        slow, gone, bench = (BatcherBench(PuppetLane(10), turns=turns) for _ in range(3))
        slow.submit("s")
        await bench.at(1)
        ticket = gone.submit("gone")
        await bench.at(2)
        bench.submit("a")
        await bench.at(3)
        assert gone.batcher.cancel(ticket)
        await bench.at(50)
        assert (gone.batches, bench.batches) == ([], [(10, ["a"])])

    run(main())


def test_a_model_whose_requests_went_away_is_in_nobodys_way() -> None:
    async def main() -> None:
        turns = Turns(1)
        busy, gone = (BatcherBench(PuppetLane(10), turns=turns, max_rows=1) for _ in range(2))
        flood(busy, *"ab")
        await gone.at(1)
        ticket = gone.submit("gone")
        await gone.at(2)
        assert gone.batcher.cancel(ticket)
        await gone.at(50)
        assert busy.batches == [(0, ["a"]), (10, ["b"])]
        assert (gone.waited, busy.waited) == ([1], [])

    run(main())


def test_a_turn_that_comes_before_the_window_ends_is_passed_on_and_asked_for_again() -> None:
    async def main() -> None:
        turns = Turns(1)
        slow, early, bench = (BatcherBench(PuppetLane(10), turns=turns, max_delay=delay) for delay in (0, 25, 0))
        slow.submit("s")
        await bench.at(1)
        early.submit("e")
        await bench.at(12)
        bench.submit("a")
        await bench.at(60)
        assert bench.batches == [(12, ["a"])]
        assert early.batches == [(26, ["e"])]

    run(main())


def test_a_short_batch_runs_beside_long_ones_without_a_turn() -> None:
    async def main() -> None:
        turns = Turns(2)
        slow = BatcherBench(PuppetLane(100), PuppetLane(100), turns=turns, max_rows=1)
        fast = BatcherBench(PuppetLane(1), PuppetLane(1), turns=turns, max_rows=1)
        flood(slow, "measured")
        flood(fast, "measured")
        await fast.at(200)
        flood(slow, *"abcd")
        await fast.at(210)
        flood(fast, *"xyz")
        await fast.at(500)
        assert slow.batches[1:] == [(200, ["a"]), (200, ["b"]), (300, ["c"]), (300, ["d"])]
        assert fast.batches[1:] == [(210, ["x"]), (211, ["y"]), (212, ["z"])], "one at a time"

    run(main())


def test_draining_ends_while_others_want_turns_too() -> None:
    async def main() -> None:
        turns = Turns(1)
        busy, bench = (BatcherBench(PuppetLane(10), turns=turns, max_rows=1, max_delay=1000) for _ in range(2))
        flood(busy, *"abcd")
        flood(bench, *"xy")
        await bench.at(1)
        await bench.batcher.drain()
        bench.batcher.close()
        assert bench.loop.time() == 40
        assert bench.batches == [(10, ["x"]), (30, ["y"])]
        await bench.at(200)
        assert [batch for _, batch in busy.batches] == [["a"], ["b"], ["c"], ["d"]]

    run(main())


def test_draining_ends_when_the_last_request_that_waits_for_a_turn_is_cancelled() -> None:
    async def main() -> None:
        turns = Turns(1)
        busy, bench = (BatcherBench(PuppetLane(10), turns=turns) for _ in range(2))
        busy.submit("a")
        await bench.at(1)
        last = bench.submit("x")
        drain = asyncio.create_task(bench.batcher.drain())
        await bench.at(5)
        assert bench.batcher.cancel(last)
        await drain
        bench.batcher.close()
        assert bench.loop.time() == 5
        await bench.at(50)
        assert bench.batches == []

    run(main())


def test_a_batch_that_fails_gives_its_turn_back() -> None:
    async def main() -> None:
        def broken(_: object) -> object:
            raise RuntimeError("broken")

        turns = Turns(1)
        bad = BatcherBench(PuppetLane(10, outcome=broken), turns=turns)
        good = BatcherBench(PuppetLane(10), turns=turns)
        bad.submit("a")
        good.submit("x")
        await good.at(50)
        assert good.batches == [(10, ["x"])]
        assert turns.running == 0

    run(main())
