"""A loaded version and what its batches cost: where they run, how they are filled up, and what was predicted."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from server.models.model import LoadedVersion
from server.scheduling.costs import CostTable
from server.tensors import Array
from tests.fakes import OneReply, PuppetClock, PuppetSession, fp32
from tests.unit.loaded import Bench, batching_config, doubled_and_negated, request, run, values


def test_a_model_that_is_quick_on_made_up_inputs_does_not_run_on_the_loop_for_it() -> None:
    async def main() -> None:
        threads: list[int] = []

        def function(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            threads.append(threading.get_ident())
            return doubled_and_negated(inputs)

        session = PuppetSession([fp32("x", -1, -1)], [fp32("y", -1, -1), fp32("z", -1, -1)], function)
        costs = CostTable((1, 2, 4, 8))
        for size in costs.sizes:
            costs.profile(size, 1e-6)
        version = LoadedVersion(batching_config(), 3, [session], PuppetClock(now=1000), costs=costs)
        reply = OneReply()
        version.submit(request([1.0]), reply)
        await reply.response()
        await version.drain()
        assert threads != [threading.get_ident()]

    run(main)


def test_a_batch_is_filled_up_where_the_session_wants_fixed_shapes_and_nobody_sees_it() -> None:
    async def main() -> None:
        bench = Bench(batching_config(pad_to_bucket=True))
        await bench.keep_busy()
        _, two = bench.submit([1.0], [2.0])
        _, one = bench.submit([3.0])
        await bench.finish()
        assert values(await two.response()) == {"y": [[2.0], [4.0]], "z": [[-1.0], [-2.0]]}
        assert values(await one.response()) == {"y": [[6.0]], "z": [[-3.0]]}
        assert [shapes["x"] for shapes in bench.session.shapes] == [(1, 1), (4, 1)]
        statistics = bench.version.statistics
        assert (statistics.inference_count, statistics.batch_rows.total) == (1 + 3, 1 + 3)
        assert [line.rows for line in bench.version.costs.lines()] == [1, 4]

    run(main)


def test_a_batch_that_would_be_mostly_filling_is_cut_down() -> None:
    async def main() -> None:
        costs = CostTable((1, 2, 4, 8), fills=True)
        for size in costs.sizes:
            costs.profile(size, size * 1.0)
        bench = Bench(batching_config(pad_to_bucket=True), costs=costs)
        await bench.keep_busy()
        replies = [bench.submit([float(n)])[1] for n in range(5)]
        await bench.finish()
        assert [values(await reply.response())["y"] for reply in replies] == [[[2.0 * n]] for n in range(5)]
        assert [shapes["x"][0] for shapes in bench.session.shapes] == [1, 4, 1]

    run(main)


def test_what_was_predicted_is_counted_beside_what_came_of_it() -> None:
    async def main() -> None:
        costs = CostTable((1, 2, 4, 8))
        costs.profile(1, 100.0)
        bench = Bench(costs=costs)
        _, reply = bench.submit([1.0])
        await bench.finish()
        await reply.response()
        statistics = bench.version.statistics
        assert statistics.predicted_seconds == 100
        assert 0 < statistics.actual_seconds < 100
        assert sum(statistics.prediction_ratio.counts) == 1

    run(main)
