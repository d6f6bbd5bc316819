"""A loaded version whose runs fail for NaN or for lack of memory: only the guilty fail, and batches shrink."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from server.errors import ExecutionFailed, OutOfMemory, Reason
from server.messages import RequestedOutput
from server.tensors import Array
from tests.unit.loaded import Bench, Function, batching_config, doubled_and_negated, run, values

FAIL_ON_NAN = {"fail_on_nan": "true"}


def rooted(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """y is NaN for what is negative; z never is."""
    x = inputs["x"]
    return {"y": np.where(x < 0, np.nan, np.sqrt(np.abs(x))).astype(np.float32), "z": x}


def sizes(bench: Bench) -> list[int]:
    """Rows of every run, without the one that kept the lane busy."""
    return [shapes["x"][0] for shapes in bench.session.shapes][1:]


def test_a_request_of_nan_fails_and_names_output_and_row_while_the_others_are_answered() -> None:
    async def main() -> None:
        bench = Bench(batching_config(parameters=FAIL_ON_NAN), rooted)
        await bench.keep_busy()
        _, first = bench.submit([4.0])
        _, poisoned = bench.submit([9.0], [-1.0])
        _, last = bench.submit([16.0])
        await bench.finish()
        error = await poisoned.error()
        assert type(error) is ExecutionFailed
        assert str(error) == "model 'm' version 3 gave NaN for output 'y', row 1 of the request"
        assert values(await first.response())["y"] == [[2.0]]
        assert values(await last.response())["y"] == [[4.0]]
        assert sizes(bench) == [4, 1, 2, 1]
        statistics = bench.version.statistics
        assert (statistics.failed_runs, statistics.failures[Reason.BACKEND]) == (2, 1)

    run(main)


def test_nan_that_one_request_gives_to_the_whole_batch_stays_with_it() -> None:
    async def main() -> None:
        def mixed(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            return {"y": inputs["x"] * 0 + inputs["x"].sum(), "z": inputs["x"]}

        bench = Bench(batching_config(parameters=FAIL_ON_NAN), mixed)
        await bench.keep_busy()
        _, poisoned = bench.submit([float("nan")])
        _, clean = bench.submit([5.0])
        await bench.finish()
        assert isinstance(await poisoned.error(), ExecutionFailed)
        assert values(await clean.response())["y"] == [[5.0]]

    run(main)


def test_a_request_of_nan_alone_fails_at_once() -> None:
    async def main() -> None:
        bench = Bench(batching_config(parameters=FAIL_ON_NAN), rooted)
        _, reply = bench.submit([-1.0])
        await bench.finish()
        assert isinstance(await reply.error(), ExecutionFailed)
        assert len(bench.session.shapes) == 1

    run(main)


def test_nan_in_an_output_that_a_request_does_not_want_is_none_of_its_business() -> None:
    async def main() -> None:
        bench = Bench(batching_config(parameters=FAIL_ON_NAN), rooted)
        await bench.keep_busy()
        _, both = bench.submit([-1.0])
        _, other = bench.submit([-1.0], outputs=[RequestedOutput("z")])
        await bench.finish()
        assert isinstance(await both.error(), ExecutionFailed)
        assert values(await other.response()) == {"z": [[-1.0]]}

    run(main)


def test_without_the_parameter_nan_is_an_answer() -> None:
    async def main() -> None:
        bench = Bench(function=rooted)
        _, reply = bench.submit([-1.0])
        await bench.finish()
        assert np.isnan(values(await reply.response())["y"][0][0])

    run(main)


def short_of_memory(max_rows: int, function: Function = doubled_and_negated) -> Function:
    """Has memory for so many rows, and none for a row of 99."""

    def run_it(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if len(inputs["x"]) > max_rows or (inputs["x"] == 99).any():
            raise OutOfMemory("it found no memory")
        return function(inputs)

    return run_it


async def send(bench: Bench, *rows: list[float]) -> None:
    """One request a row, together; every one must be answered."""
    replies = [bench.submit(row)[1] for row in rows]
    bench.gate.open(100)
    for row, reply in zip(rows, replies, strict=True):
        assert values(await reply.response())["y"] == [[2 * number for number in row]]


async def started(config: dict[str, object], function: Function) -> Bench:
    """Its lane is busy until the gate opens."""
    bench = Bench(batching_config(**config), function)  # type: ignore[arg-type]
    await bench.keep_busy()
    return bench


def test_a_batch_without_memory_is_run_in_halves_and_later_batches_are_smaller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        bench = await started({}, short_of_memory(2))
        await send(bench, *([float(n)] for n in range(8)))
        assert sizes(bench) == [8, 4, 2, 2, 4, 2, 2]
        assert bench.version.max_batch_rows == 2
        await send(bench, *([float(n)] for n in range(8)))
        assert sizes(bench)[7:] == [2, 2, 2, 2]
        statistics = bench.version.statistics
        assert (statistics.failed_runs, statistics.success.count) == (3, 17)
        await bench.finish()

    run(main)
    assert "'m' version 3 ran out of memory with a batch of 4 rows: such batches hold at most 2 rows" in caplog.text
    assert "not 8, until it is loaded again" in caplog.text


def test_the_limit_is_a_bucket_and_never_below_one_row() -> None:
    async def main() -> None:
        for memory, requests, limit in ((5, 7, 4), (2, 3, 2), (1, 2, 1)):
            bench = await started({}, short_of_memory(memory))
            await send(bench, *([float(n)] for n in range(requests)))
            assert bench.version.max_batch_rows == limit
            await bench.finish()

    run(main)


def test_the_smallest_batch_that_found_no_memory_counts() -> None:
    async def main() -> None:
        def function(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            rows, first = len(inputs["x"]), inputs["x"][0, 0]
            if rows > 2 or (rows == 2 and first == 0):  # the first pair finds none, and then the second four
                raise OutOfMemory("it found no memory")
            return doubled_and_negated(inputs)

        bench = await started({}, function)
        await send(bench, *([float(n)] for n in range(8)))
        assert sizes(bench) == [8, 4, 2, 1, 1, 2, 4, 2, 2]
        assert bench.version.max_batch_rows == 1
        await bench.finish()

    run(main)


def test_a_larger_request_still_runs_alone_and_holds_up_nobody() -> None:
    async def main() -> None:
        bench = await started({}, short_of_memory(6))
        await send(bench, *([float(n)] for n in range(8)))
        assert bench.version.max_batch_rows == 4
        _, large = bench.submit(*([float(n)] for n in range(6)))
        _, small = bench.submit([7.0])
        await bench.finish()
        assert len(values(await large.response())["y"]) == 6
        assert values(await small.response())["y"] == [[14.0]]
        assert sizes(bench)[-2:] == [6, 1]

    run(main)


def test_a_request_that_finds_no_memory_alone_is_told_to_try_again_and_shrinks_nothing() -> None:
    async def main() -> None:
        bench = await started({}, short_of_memory(8))
        _, huge = bench.submit([99.0])
        _, beside = bench.submit([1.0])
        await bench.finish()
        error = await huge.error()
        assert type(error) is OutOfMemory
        assert str(error) == "model 'm' version 3 failed to run: it found no memory"
        assert values(await beside.response())["y"] == [[2.0]]
        assert bench.version.max_batch_rows == 8

    run(main)


def test_where_nobody_finds_memory_the_size_is_not_to_blame() -> None:
    async def main() -> None:
        bench = await started({}, short_of_memory(0))
        replies = [bench.submit([float(n)])[1] for n in range(4)]
        await bench.finish()
        assert {type(await reply.error()) for reply in replies} == {OutOfMemory}
        assert bench.version.max_batch_rows == 8

    run(main)


def test_where_no_smaller_run_succeeds_for_whatever_reason_the_size_is_not_to_blame() -> None:
    async def main() -> None:
        def broken(_: Mapping[str, Array]) -> Mapping[str, Array]:
            raise RuntimeError("boom")

        bench = await started({}, short_of_memory(1, broken))
        replies = [bench.submit([float(n)])[1] for n in range(2)]
        await bench.finish()
        assert {type(await reply.error()) for reply in replies} == {ExecutionFailed}
        assert bench.version.max_batch_rows == 8

    run(main)


def test_one_shapes_limit_is_not_anothers() -> None:
    async def main() -> None:
        def function(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            if inputs["x"].shape[1] == 3 and len(inputs["x"]) > 1:
                raise OutOfMemory("it found no memory")
            return doubled_and_negated(inputs)

        bench = await started({}, function)
        await send(bench, *([[1.0, 2.0, 3.0]] * 2))
        assert bench.version.max_batch_rows == 1
        runs = len(sizes(bench))
        await send(bench, *([[1.0, 2.0]] * 4))
        assert sizes(bench)[runs:] == [4]
        await bench.finish()

    run(main)


def test_a_request_that_is_split_is_split_by_the_new_size() -> None:
    async def main() -> None:
        bench = await started({"split_oversize": True, "max_batch_size": 4}, short_of_memory(2))
        await send(bench, *([float(n)] for n in range(4)))
        assert bench.version.max_batch_rows == 2
        runs = len(sizes(bench))
        _, large = bench.submit(*([float(n)] for n in range(5)))
        await bench.finish()
        assert values(await large.response())["y"] == [[2.0 * n] for n in range(5)]
        assert sizes(bench)[runs:] == [2, 2, 1]

    run(main)
