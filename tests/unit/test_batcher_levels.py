"""The event-loop shell with priority levels, delays and a budget of bytes, in virtual time."""

from __future__ import annotations

from math import inf

from server.scheduling.policy import LevelPolicy
from tests.autojump import run
from tests.fakes import PuppetLane
from tests.unit.batching import BatcherBench

TWO = (LevelPolicy(), LevelPolicy())


def test_the_urgent_overtake_those_who_wait_for_a_lane() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(10), max_rows=1, levels=TWO)
        bench.submit("running", level=2)
        await bench.at(1)
        bench.submit("low", level=2)
        await bench.at(2)
        bench.submit("high", level=1)
        await bench.at(50)
        assert bench.batches == [(0, ["running"]), (10, ["high"]), (20, ["low"])]

    run(main())


def test_with_aging_the_patient_are_served_under_a_flood_of_urgent_requests() -> None:
    async def served_at(aging: float) -> float:
        bench = BatcherBench(PuppetLane(1), max_rows=1, levels=TWO, aging=aging)
        bench.submit("low", level=2)
        for second in range(100):  # two come where one can be served
            bench.submit("high", level=1)
            bench.submit("high", level=1)
            await bench.at(second + 1)
        return next((when for when, batch in bench.batches if batch == ["low"]), inf)

    assert run(served_at(aging=0)) == inf
    assert run(served_at(aging=20)) == 20  # it is the oldest of them then


def test_delayed_requests_run_after_the_others_and_are_not_refused() -> None:
    async def main() -> None:
        bench = BatcherBench(PuppetLane(10), max_rows=1)
        bench.submit("running")
        await bench.at(1)
        bench.submit("late", delay=5)
        bench.submit("patient")
        await bench.at(50)
        assert bench.batches == [(0, ["running"]), (10, ["patient"]), (20, ["late"])]
        assert bench.expired == []

    run(main())


def test_a_delay_does_not_end_or_lengthen_the_window() -> None:
    async def main() -> None:
        bench = BatcherBench(max_delay=10)
        bench.submit("late", delay=3)
        await bench.at(5)
        bench.submit("b")
        await bench.at(50)
        assert bench.batches == [(10, ["b", "late"])]

    run(main())


def test_a_bound_changes_no_batching() -> None:
    async def batches(**policy: object) -> list[tuple[float, list[object]]]:
        bench = BatcherBench(PuppetLane(3), PuppetLane(5), max_delay=2, preferred_rows=(2,), **policy)
        for name in range(40):
            bench.submit(name, rows=1 + name % 3, signature=name % 2, level=1)
            await bench.at(name * 0.7)
        await bench.at(200)
        return bench.batches

    plain = run(batches())
    assert run(batches(levels=(LevelPolicy(100, 100),))) == plain
