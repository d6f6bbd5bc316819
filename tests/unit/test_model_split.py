"""A loaded version's requests that are too large for a batch, and answers in order of arrival."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from server import tensors
from server.errors import DeadlineExceeded, ExecutionFailed, InvalidRequest, QueueFull, QueueTimeout, Reason
from server.messages import InferenceRequest, RequestedOutput, TensorSpec
from server.models.config import QueuePolicy, TensorConfig
from server.scheduling.budget import ByteBudget
from server.tensors import Array
from tests.fakes import Gate, OneReply, model_config
from tests.unit.loaded import Bench, batching_config, doubled_and_negated, request, run, turn, values


def splitting(**more: Any) -> Bench:
    function = more.pop("function", doubled_and_negated)
    return Bench(batching_config(max_batch_size=2, split_oversize=True, **more), function)


def column(*numbers: float) -> list[list[float]]:
    return [[float(number)] for number in numbers]


def sizes(bench: Bench) -> list[int]:
    return [shapes["x"][0] for shapes in bench.session.shapes]


def test_a_request_larger_than_a_batch_is_run_in_parts_and_answered_once() -> None:
    async def main() -> None:
        bench = splitting()
        _, reply = bench.submit(*column(1, 2, 3, 4, 5), request_id="r")
        assert (bench.version.in_flight, bench.version.pending) == (1, 3)
        await bench.finish()
        answer = await reply.response()
        assert (answer.model_name, answer.model_version, answer.request_id) == ("m", "3", "r")
        assert values(answer) == {"y": column(2, 4, 6, 8, 10), "z": column(-1, -2, -3, -4, -5)}
        assert sizes(bench) == [2, 2, 1]
        statistics = bench.version.statistics
        assert (statistics.inference_count, statistics.execution_count) == (5, 3)
        assert (statistics.success.count, statistics.queue.count, statistics.fail.count) == (1, 1, 0)
        assert statistics.compute_infer.count == 3
        assert bench.version.in_flight == 0

    run(main)


def test_what_is_left_over_shares_a_batch_with_others() -> None:
    async def main() -> None:
        bench = splitting()
        await bench.keep_busy()
        _, large = bench.submit(*column(1, 2, 3))
        _, small = bench.submit(*column(7))
        await bench.finish()
        assert values(await large.response())["y"] == column(2, 4, 6)
        assert values(await small.response())["y"] == column(14)
        assert sizes(bench) == [1, 2, 2]

    run(main)


def test_classes_of_parts_are_joined_too() -> None:
    async def main() -> None:
        bench = splitting()
        _, reply = bench.submit([0.0, 1.0], [2.0, 1.0], [0.0, 3.0], outputs=[RequestedOutput("y", 1)])
        await bench.finish()
        assert values(await reply.response()) == {"y": [[b"2.000000:1:one"], [b"4.000000:0:zero"], [b"6.000000:1:one"]]}

    run(main)


def test_text_and_typed_contents_are_split() -> None:
    async def main() -> None:
        words = TensorConfig("x", tensors.BYTES, (1,))
        number = TensorConfig("n", tensors.FP32, (2,))
        config = model_config(
            [words, number], [TensorConfig("y", tensors.BYTES, (1,))], max_batch_size=2, split_oversize=True
        )
        bench = Bench(config, lambda inputs: {"y": inputs["x"] + str(inputs["n"].sum())})  # type: ignore[operator]
        specs = (TensorSpec("x", "BYTES", (3, 1)), TensorSpec("n", "FP32", (3, 2)))
        reply = OneReply()
        text = b"\1\0\0\0a\1\0\0\0b\1\0\0\0c"
        bench.version.submit(InferenceRequest("m", "", "", specs, (text, np.arange(6, dtype=np.float32))), reply)
        await bench.finish()
        assert values(await reply.response()) == {"y": [["a6.0"], ["b6.0"], ["c9.0"]]}

    run(main)


def test_without_the_option_a_request_larger_than_a_batch_is_refused() -> None:
    async def main() -> None:
        bench = Bench(batching_config(max_batch_size=2))
        _, reply = bench.submit(*column(1, 2, 3), request_id="r")
        error = await reply.error()
        assert isinstance(error, InvalidRequest)
        assert str(error) == "[request id: r] inference request batch-size must be <= 2 for 'm'"
        await bench.finish()

    run(main)


def test_a_part_that_fails_fails_the_request_once() -> None:
    async def main() -> None:
        def fragile(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            if inputs["x"].max() > 100:
                raise RuntimeError("boom")
            return doubled_and_negated(inputs)

        bench = splitting(function=fragile)
        await bench.keep_busy()
        _, reply = bench.submit(*column(1, 2, 999, 4, 5, 6, 7))
        bench.gate.open(3)
        assert isinstance(await reply.error(), ExecutionFailed)
        assert (bench.version.in_flight, bench.version.pending) == (0, 0)
        await bench.finish()
        assert len(reply.answers) == 1
        assert bench.version.statistics.failures[Reason.BACKEND] == 1
        assert bench.version.statistics.fail.count == 1

    run(main)


@pytest.mark.parametrize("when", ["waiting", "running", "answered"])
def test_a_caller_who_leaves_takes_all_parts_along(when: str) -> None:
    async def main() -> None:
        bench = splitting()
        if when == "waiting":
            await bench.keep_busy()
        work, reply = bench.submit(*column(1, 2, 3, 4, 5))
        await turn()
        if when == "answered":
            bench.gate.open(3)
            await reply.answer()
        assert work
        work.cancel()
        work.cancel()
        assert bench.version.pending == 0
        await bench.finish()
        assert len(reply.answers) == (1 if when == "answered" else 0)
        assert bench.version.in_flight == 0
        assert bench.version.statistics.failures[Reason.CANCELLED] == (0 if when == "answered" else 1)
        assert sizes(bench) == {"waiting": [1], "running": [2], "answered": [2, 2, 1]}[when]

    run(main)


def test_a_request_whose_time_runs_out_is_told_so_once_whatever_its_parts_do() -> None:
    async def main() -> None:
        bench = splitting()
        _, reply = bench.submit(*column(1, 2, 3, 4, 5), timeout_us=1_000_000)
        await turn()
        assert bench.version.pending == 2  # one runs
        bench.clock.advance(2)
        assert [type(answer) for answer in reply.answers] == [QueueTimeout]
        assert bench.version.in_flight == 0
        await bench.finish()
        assert len(reply.answers) == 1
        assert bench.version.statistics.failures[Reason.TOO_LATE] == 1

    run(main)


def test_the_parts_of_a_request_find_room_together_or_not_at_all() -> None:
    async def main() -> None:
        bench = splitting(max_queue_size=3)
        await bench.keep_busy()
        _, first = bench.submit(*column(1, 2, 3))
        _, refused = bench.submit(*column(1, 2, 3, 4))
        assert isinstance(await refused.error(), QueueFull)
        assert (bench.version.in_flight, bench.version.pending) == (2, 2)
        await bench.finish()
        assert values(await first.response())["y"] == column(2, 4, 6)

    run(main)


def test_a_request_larger_than_a_whole_queue_is_refused_for_good() -> None:
    async def main() -> None:
        bench = splitting(max_queue_size=2)
        _, reply = bench.submit(*column(*range(5)))
        error = await reply.error()
        assert isinstance(error, InvalidRequest)
        assert "inference request batch-size must be <= 4 for 'm'" in str(error)
        await bench.finish()

    run(main)


class Lag:
    """A model whose first request ends when the test says so; all others end at once."""

    def __init__(self, **more: Any) -> None:
        self.gate = Gate()
        self.replied: list[int] = []

        def lagging(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            if inputs["x"][0, 0] == 0:
                self.gate.wait()
            if inputs["x"][0, 0] == 13:
                raise RuntimeError("boom")
            return doubled_and_negated(inputs)

        config = batching_config(instances=2, max_batch_size=1, preserve_ordering=True, **more)
        self.bench = Bench(config, lagging)
        self.bench.gate.open(1000)

    def submit(self, number: int, **more: Any) -> Any:
        return self.bench.version.submit(request([float(number)], **more), lambda _: self.replied.append(number))

    async def until_executed(self, count: int) -> None:
        while self.bench.version.statistics.execution_count < count:
            await turn()


def test_with_order_preserved_answers_leave_in_order_of_arrival() -> None:
    async def main() -> None:
        lag = Lag()
        for number in (0, 1, 2, 13, 3):
            lag.submit(number)
        await lag.until_executed(3)
        assert lag.replied == []
        assert lag.bench.version.in_flight == 5
        lag.gate.open()
        await lag.bench.finish()
        assert lag.replied == [0, 1, 2, 13, 3]
        assert lag.bench.version.in_flight == 0
        assert lag.bench.version.statistics.success.count == 4

    run(main)


def test_with_order_preserved_whoever_expires_or_leaves_the_queue_holds_nobody_up() -> None:
    async def main() -> None:
        lag = Lag()
        for number in (0, 0):
            lag.submit(number)
        await turn()
        assert lag.bench.version.pending == 0
        lag.submit(1, timeout_us=1_000_000)
        gone = lag.submit(2)
        lag.submit(3)
        await turn()
        lag.bench.clock.advance(1)
        assert lag.replied == [1]
        gone.cancel()
        lag.gate.open(2)
        await lag.bench.finish()
        assert lag.replied == [1, 0, 0, 3]
        assert lag.bench.version.in_flight == 0

    run(main)


def test_with_order_preserved_who_leaves_while_an_answer_is_held_back_is_not_answered() -> None:
    async def main() -> None:
        lag = Lag()
        lag.submit(0)
        gone = lag.submit(1)
        lag.submit(2)
        await lag.until_executed(2)
        gone.cancel()
        lag.gate.open()
        await lag.bench.finish()
        assert lag.replied == [0, 2]
        assert lag.bench.version.statistics.failures[Reason.CANCELLED] == 1
        assert lag.bench.version.in_flight == 0

    run(main)


def test_priorities_decide_who_runs_next() -> None:
    async def main() -> None:
        levels = (QueuePolicy(), QueuePolicy(), QueuePolicy())
        bench = Bench(batching_config(max_batch_size=1, levels=levels, default_level=2))
        await bench.keep_busy()
        done: list[int] = []
        for number, priority in ((1, 3), (2, 0), (3, 1), (4, 2), (5, 9)):
            ask = request([float(number)], priority=priority)
            bench.version.submit(ask, lambda _, number=number: done.append(number))
        await bench.finish()
        assert done == [3, 2, 4, 5, 1]

    run(main)


def test_each_level_has_its_own_timeout_and_what_follows_from_it() -> None:
    async def main() -> None:
        levels = (QueuePolicy(default_timeout_us=1_000_000), QueuePolicy(default_timeout_us=1_000_000, delay=True))
        bench = Bench(batching_config(levels=levels))
        await bench.keep_busy()
        _, rejected = bench.submit([1.0], priority=1)
        _, delayed = bench.submit([2.0], priority=2)
        _, impatient = bench.submit([3.0], priority=2, deadline=1003.0)
        await turn()
        bench.clock.advance(1)
        assert [type(answer) for answer in rejected.answers] == [QueueTimeout]
        assert delayed.answers == []
        bench.clock.advance(2)
        assert [type(answer) for answer in impatient.answers] == [DeadlineExceeded]
        await bench.finish()
        assert values(await delayed.response())["y"] == [[4.0]]

    run(main)


def test_models_share_the_bytes_that_may_wait() -> None:
    async def main() -> None:
        budget = ByteBudget(10)
        one, other = (Bench(budget=budget) for _ in range(2))
        for bench in (one, other):
            await bench.keep_busy()
        work, _ = one.submit([1.0], [2.0])
        _, refused = other.submit([1.0], request_id="r")
        error = await refused.error()
        assert isinstance(error, QueueFull)
        assert str(error).startswith("[request id: r] Exceeds maximum queued bytes of the server: 8 of 10 bytes")
        assert work
        work.cancel()
        _, taken = other.submit([1.0])
        for bench in (one, other):
            await bench.finish()
        assert await taken.response()
        assert budget.used == 0

    run(main)
