"""The event-loop shell around a queue that keeps an objective, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from statistics import quantiles

import pytest

from server.errors import Unavailable
from server.scheduling.policy import WindowPolicy
from server.scheduling.queue import BatchQueue
from server.scheduling.slo import SloPolicy
from server.scheduling.slo_queue import SloQueue
from tests.autojump import run
from tests.fakes import NamedTicket, PuppetLane
from tests.unit.batching import BatcherBench
from tests.unit.costing import Seconds, cost_table, flat, linear


def slo_bench(
    seconds: Seconds, objective: float, *, max_rows: int = 4, lanes: int = 1, stuck: float = 0.0
) -> BatcherBench:
    """Lanes that take as long as predicted, or `stuck` seconds more."""
    queue: SloQueue[NamedTicket] = SloQueue(
        SloPolicy(max_rows, objective=objective), cost_table(max_rows, seconds), lanes
    )
    puppets = [PuppetLane(lambda rows: seconds(rows) + stuck) for _ in range(lanes)]
    return BatcherBench(*puppets, queue=queue)


def test_a_request_that_becomes_hopeless_while_every_lane_is_busy_leaves_at_that_moment() -> None:
    async def main() -> None:
        bench = slo_bench(flat(1), objective=3, stuck=97)
        bench.submit("busy")
        await bench.at(0.25)
        bench.submit("a")
        await bench.at(0.5)
        bench.submit("b", timeout=1.75)
        await bench.at(50)
        assert bench.expired == [(1.25, "b"), (2.25, "a")]

    run(main())


def test_on_an_idle_lane_what_waits_for_company_begins_before_it_is_hopeless_and_what_came_too_late_leaves() -> None:
    async def main() -> None:
        bench = slo_bench(linear(fixed=4, per_row=1), objective=100)
        bench.submit("too late", timeout=0)
        await bench.at(1)
        bench.submit("a", timeout=6.5)
        bench.submit("b")
        await bench.at(30)
        assert bench.expired == [(0, "too late")]
        assert bench.batches == [(1, ["a", "b"])]

    run(main())


def test_a_batch_waits_for_company_exactly_as_long_as_that_pays() -> None:
    async def main() -> None:
        bench = slo_bench(linear(fixed=4, per_row=1), objective=100)
        for when, name in ((0, "a"), (20, "b"), (21, "c")):
            await bench.at(when)
            bench.submit(name)
        await bench.at(50)
        assert bench.batches == [(0, ["a"]), (20, ["b"]), (25, ["c"])]  # c is expected to be alone for 20 s
        for when, name in ((100, "d"), (100.5, "e"), (101, "f")):
            await bench.at(when)
            bench.submit(name)
        await bench.at(200)
        assert bench.batches[3:] == [(100, ["d"]), (105, ["e", "f"])]

    run(main())


def test_while_a_batch_waits_for_company_the_loop_does_not_turn_in_vain() -> None:
    async def main() -> None:
        bench = slo_bench(linear(fixed=4, per_row=1), objective=100)
        for i in range(3):  # a burst; the expected gap is next to nothing
            bench.submit(i)
        await bench.at(50)
        assert [names for _, names in bench.batches] == [[0, 1, 2]]
        assert bench.batches[0][0] == pytest.approx(4 / 3)
        assert bench.clock.rings == 1

    run(main())


def test_signatures_that_wait_beside_a_ready_one_do_not_keep_the_loop_busy() -> None:
    async def main() -> None:
        bench = slo_bench(linear(fixed=4, per_row=1), objective=100)
        bench.submit("odd", signature="odd")
        for i in range(4):
            bench.submit(i)
        await bench.at(50)
        assert bench.batches == [(0, ["odd"]), (5, [0, 1, 2, 3])]
        assert bench.clock.rings == 0

    run(main())


def test_draining_runs_what_waits_for_company() -> None:
    async def main() -> None:
        bench = slo_bench(linear(fixed=4, per_row=1), objective=100)
        for i in range(3):
            bench.submit(i)
        await bench.batcher.drain()
        assert bench.batches == [(0, [0, 1, 2])]

    run(main())


def test_of_batches_that_begin_together_none_begins_too_late() -> None:
    async def main() -> None:
        bench = slo_bench(linear(fixed=0, per_row=1), objective=10, lanes=2, stuck=5)
        for name in ("busy", "too"):  # until 6
            bench.submit(name)
        await bench.at(0.5)
        bench.submit("first", timeout=9)  # may begin at 8.5
        bench.submit("large", rows=4, timeout=9.4)  # may begin at 5.9
        await bench.at(50)
        assert bench.expired == [(6, "large")]
        assert bench.batches[2:] == [(6, ["first"])]

    run(main())


SECONDS = linear(fixed=0.004, per_row=0.001)
MAX_ROWS = 8
OBJECTIVE = 5 * SECONDS(1)
CAPACITY = MAX_ROWS / SECONDS(MAX_ROWS)
"""Rows per second."""
RUN_SECONDS = 20.0


def answers(make_bench: Callable[[], BatcherBench], load: float) -> list[float]:
    """The seconds that each answered request took, under Poisson arrivals of so many times the capacity."""
    latencies: list[float] = []

    async def main() -> None:
        dice, bench, when = random.Random(11), make_bench(), 0.0
        while (when := when + dice.expovariate(load * CAPACITY)) < RUN_SECONDS:
            await bench.at(when)
            with suppress(Unavailable):
                bench.submit(bench.loop.time())  # its name is when it came
        await bench.batcher.drain()
        latencies.extend(ended - float(str(came)) for ended, batch, _ in bench.finished for came in batch)

    run(main())
    return latencies


def goodput(latencies: list[float]) -> float:
    """Answers within the objective, as a share of what full batches one after another would give."""
    return sum(latency <= OBJECTIVE for latency in latencies) / (CAPACITY * RUN_SECONDS)


def with_objective() -> BatcherBench:
    return slo_bench(SECONDS, OBJECTIVE, max_rows=MAX_ROWS)


def with_window() -> BatcherBench:
    return BatcherBench(PuppetLane(SECONDS), queue=BatchQueue(WindowPolicy(MAX_ROWS, max_delay=0.005)))


@pytest.mark.parametrize("load", [1.0, 2.0])
def test_under_overload_who_is_let_in_is_answered_in_time_and_capacity_is_used(load: float) -> None:
    latencies = answers(with_objective, load)
    assert quantiles(latencies, n=100)[98] <= OBJECTIVE
    assert goodput(latencies) >= 0.9


def test_below_capacity_nearly_everybody_is_answered_in_time() -> None:
    latencies = answers(with_objective, 0.7)
    assert quantiles(latencies, n=100)[98] <= OBJECTIVE
    assert goodput(latencies) >= 0.97 * 0.7


def test_under_overload_a_window_answers_nearly_everybody_late() -> None:
    assert goodput(answers(with_window, 2.0)) < 0.1
