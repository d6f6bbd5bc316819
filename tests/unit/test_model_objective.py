"""A loaded version with a latency objective: refusals, drops, parts, and what is counted.

Batches take 1 s by the cost table, and as long as the gate is shut by the clock.
"""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import DeadlineExceeded, ObjectiveMissed, Overloaded, Reason
from server.models.queueing import queue_policy
from server.scheduling.policy import WindowPolicy
from server.scheduling.slo import SloPolicy
from tests.fakes import model_config
from tests.unit.costing import cost_table, flat
from tests.unit.loaded import Bench, X, Y, Z, batching_config, run, turn, values

ROW = [1.0]


def bench_with(objective_ms: float = 2000, max_batch_size: int = 4, **more: Any) -> Bench:
    config = batching_config(max_batch_size=max_batch_size, objective_ms=objective_ms, **more)
    return Bench(config, costs=cost_table(max_batch_size, flat(1)))


@pytest.mark.parametrize(("max_batch_size", "most"), [(0, 1), (1, 1), (8, 8)])
def test_an_objective_in_milliseconds_is_a_policy_in_seconds(max_batch_size: int, most: int) -> None:
    config = model_config([X], [Y, Z], max_batch_size=max_batch_size, objective_ms=2.5)
    policy = queue_policy(config)
    assert isinstance(policy, SloPolicy)
    assert (policy.objective, policy.max_rows) == (0.0025, most)


def test_without_an_objective_there_is_a_window() -> None:
    assert isinstance(queue_policy(batching_config()), WindowPolicy)


def test_who_cannot_be_answered_in_time_is_told_which_objective_of_which_model_and_when_to_come_again() -> None:
    async def main() -> None:
        bench = bench_with(objective_ms=2500)
        await bench.keep_busy()
        _, accepted = bench.submit(*[ROW] * 4)
        work, refused = bench.submit(ROW, request_id="r")
        assert work is None
        error = await refused.error()
        assert isinstance(error, Overloaded)
        assert str(error) == (
            "[request id: r] model 'm' cannot answer within its objective of 2500 ms: too much work is ahead of it"
        )
        assert error.retry_after == 0.5
        assert (bench.version.in_flight, bench.version.pending) == (2, 1)
        await bench.finish()
        assert await accepted.response()
        assert bench.version.statistics.failures[Reason.OVERLOADED] == 1

    run(main)


def test_who_can_no_longer_be_answered_in_time_is_told_so_at_that_moment_and_is_not_run() -> None:
    async def main() -> None:
        bench = bench_with()
        await bench.keep_busy()
        _, late = bench.submit(ROW, request_id="r")
        await turn()
        bench.clock.advance(0.999)
        assert late.answers == []
        bench.clock.advance(0.001)  # a batch takes the second that is left
        error = await late.error()
        assert isinstance(error, ObjectiveMissed)
        assert str(error) == "[request id: r] model 'm' can no longer answer within its objective of 2000 ms"
        await bench.finish()
        assert len(bench.session.shapes) == 1
        assert bench.version.statistics.failures[Reason.TOO_LATE] == 1

    run(main)


def test_a_callers_own_deadline_that_passes_is_no_matter_of_the_objective() -> None:
    async def main() -> None:
        bench = bench_with()
        _, late = bench.submit(ROW, deadline=bench.clock.now())
        await turn()
        assert isinstance(await late.error(), DeadlineExceeded)
        await bench.finish()
        assert bench.version.statistics.failures[Reason.TOO_LATE] == 1

    run(main)


@pytest.mark.parametrize(("seconds", "met", "missed"), [(2, 1, 0), (2.001, 0, 1)])
def test_answers_are_counted_by_whether_they_met_the_objective(seconds: float, met: int, missed: int) -> None:
    async def main() -> None:
        bench = bench_with()
        await bench.keep_busy()
        bench.clock.advance(seconds)
        await bench.finish()
        statistics = bench.version.statistics
        assert (statistics.objective_met, statistics.objective_missed) == (met, missed)
        assert statistics.success.count == 1

    run(main)


def test_without_an_objective_none_is_counted() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.keep_busy()
        await bench.finish()
        assert (bench.version.statistics.objective_met, bench.version.statistics.objective_missed) == (0, 0)

    run(main)


def test_costs_are_learned_from_traffic_and_nobody_is_turned_away_before() -> None:
    async def main() -> None:
        bench = Bench(batching_config(max_batch_size=1, objective_ms=1e-3))  # which nothing keeps
        replies = [bench.submit(ROW)[1] for _ in range(20)]
        bench.clock.advance(60)
        bench.gate.open(20)
        for reply in replies:
            assert await reply.response()
        assert bench.version.costs.calibrated
        await turn()
        await bench.keep_busy()
        _, refused = bench.submit(ROW)
        assert isinstance(await refused.error(), Overloaded)
        await bench.finish()

    run(main)


def test_a_request_that_comes_alone_is_run_although_the_objective_cannot_be_kept() -> None:
    async def main() -> None:
        bench = bench_with(objective_ms=1)
        _, reply = bench.submit(ROW)
        await bench.finish()
        assert values(await reply.response())["y"] == [[2.0]]

    run(main)


def test_the_first_request_of_all_may_come_in_parts() -> None:
    async def main() -> None:
        bench = bench_with(objective_ms=10_000, max_batch_size=2, split_oversize=True)
        _, reply = bench.submit(*[ROW] * 7)
        await bench.finish()
        assert len(values(await reply.response())["y"]) == 7
        assert bench.version.statistics.objective_met == 1

    run(main)


def test_where_one_part_is_refused_all_are() -> None:
    async def main() -> None:
        bench = bench_with(objective_ms=3000, max_batch_size=2, split_oversize=True)
        busy = await bench.keep_busy()
        _, refused = bench.submit(*[ROW] * 6)  # the first two parts would be in time
        error = await refused.error()
        assert isinstance(error, Overloaded)
        assert error.retry_after == 1
        assert (bench.version.in_flight, bench.version.pending) == (1, 0)
        await bench.finish()
        assert await busy.response()
        assert len(bench.session.shapes) == 1
        assert bench.version.statistics.failures[Reason.OVERLOADED] == 1

    run(main)


def test_where_one_part_can_no_longer_be_in_time_no_other_runs() -> None:
    async def main() -> None:
        bench = bench_with(objective_ms=3000, max_batch_size=2, split_oversize=True)
        await bench.keep_busy()
        _, late = bench.submit(*[ROW] * 3)
        await turn()
        bench.clock.advance(2)
        assert isinstance(await late.error(), ObjectiveMissed)
        assert (bench.version.in_flight, bench.version.pending) == (1, 0)
        await bench.finish()
        assert len(late.answers) == 1
        assert len(bench.session.shapes) == 1
        assert bench.version.statistics.failures[Reason.TOO_LATE] == 1

    run(main)
