"""A batcher that is going down: everything runs, nothing waits for company, and then it is done. In virtual time."""

from __future__ import annotations

import asyncio

from server.scheduling.batcher import Batcher
from server.scheduling.policy import WindowPolicy
from server.scheduling.queue import BatchQueue
from tests.autojump import run
from tests.fakes import NamedTicket, PuppetClock, PuppetLane, names
from tests.unit.batching import BatcherBench


def test_draining_runs_everything_without_waiting_for_company_and_then_returns() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(10), max_rows=2, max_delay=1000)
        for name in "abc":
            bench.submit(name)
        await bench.at(1)
        await bench.batcher.drain()
        assert bench.loop.time() == 20
        assert [batch for _, batch, _ in bench.finished] == [["a", "b"], ["c"]]

    run(main())


def test_in_a_hurry_neither_what_waits_nor_what_comes_waits_for_company() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(10), max_delay=1000)
        bench.submit("a")
        await bench.at(1)
        bench.batcher.hurry()
        await bench.at(20)
        bench.submit("b")
        await bench.at(21)
        assert bench.batches == [(1, ["a"]), (20, ["b"])]

    run(main())


def test_draining_an_idle_batcher_returns_at_once() -> None:
    async def main() -> None:
        bench = BatcherBench()
        await bench.batcher.drain()
        await bench.batcher.drain()
        assert bench.loop.time() == 0

    run(main())


def test_draining_ends_when_the_last_waiting_request_is_cancelled() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(10), max_rows=1)
        bench.submit("a")
        last = bench.submit("b")
        drain = asyncio.create_task(bench.batcher.drain())
        await bench.at(5)
        assert bench.batcher.cancel(last)
        await drain
        assert bench.loop.time() == 10

    run(main())


def test_draining_ends_when_the_last_waiting_request_expires() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(10), max_rows=1)
        bench.submit("a")
        bench.submit("b", timeout=3)
        await bench.batcher.drain()
        assert bench.loop.time() == 10
        assert bench.expired == [(3, "b")]

    run(main())


def test_who_comes_and_goes_just_before_a_drain_does_not_touch_the_alarm_after_it() -> None:
    async def main() -> None:
        raised: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
        queue = BatchQueue[NamedTicket](WindowPolicy(1))
        batcher: Batcher[NamedTicket, object] = Batcher(
            queue, [PuppetLane()], PuppetClock(), finished=lambda *_: None, expired=lambda _: None
        )
        ticket = NamedTicket("a")
        batcher.submit(ticket)
        assert batcher.cancel(ticket)
        await batcher.drain()
        batcher.close()
        await asyncio.sleep(0)
        assert not raised  # as an alarm does that is set after it was closed

    run(main())


def test_whoever_stops_waiting_for_a_drain_does_not_stop_it() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(10))
        bench.submit("a")
        impatient = asyncio.create_task(bench.batcher.drain())
        await bench.at(1)
        impatient.cancel()
        await bench.batcher.drain()
        assert bench.loop.time() == 10

    run(main())


def test_requests_submitted_during_a_drain_run_too() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(10), max_delay=1000)
        bench.submit("a")
        drain = asyncio.create_task(bench.batcher.drain())
        await bench.at(5)
        bench.submit("b")
        await drain
        assert bench.batches == [(0, ["a"]), (10, ["b"])]

    run(main())


def test_closing_closes_the_lanes_and_the_alarm() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(1), PuppetLane(1))
        await bench.batcher.drain()
        bench.batcher.close()
        assert [lane.closed for lane in bench.lanes] == [True, True]

    run(main())


def test_what_is_cleared_does_not_run_and_keeps_no_drain_waiting() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(10), max_rows=1)
        for name in "abc":
            bench.submit(name)
        drain = asyncio.create_task(bench.batcher.drain())
        await bench.at(5)
        assert names(bench.batcher.clear()) == ["b", "c"]
        await drain
        assert bench.loop.time() == 10
        assert ([batch for _, batch, _ in bench.finished], bench.expired) == ([["a"]], [])

    run(main())
