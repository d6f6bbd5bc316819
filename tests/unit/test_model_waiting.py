"""A loaded version's requests while they wait: departures, deadlines, full queues, and what is counted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import inf
from typing import Any

import pytest

from server.errors import DeadlineExceeded, QueueFull, QueueTimeout, Reason
from server.messages import InferenceRequest, TensorSpec
from server.models.queueing import MIN_QUEUED_REQUESTS, QUEUED_BATCHES
from server.tensors import Array
from tests.fakes import OneReply
from tests.unit.loaded import Bench, batching_config, doubled_and_negated, run, turn, values


def test_a_lease_lasts_from_admission_to_answer() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.keep_busy()
        bench.submit([1.0])
        assert (bench.version.in_flight, bench.version.pending) == (2, 1)
        await bench.finish()
        assert (bench.version.in_flight, bench.version.pending) == (0, 0)

    run(main)


def test_a_request_cancelled_while_it_waits_is_neither_run_nor_answered() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.keep_busy()
        work, gone = bench.submit([1.0])
        _, stays = bench.submit([2.0])
        assert work
        work.cancel()
        assert (bench.version.in_flight, bench.version.pending) == (2, 1)
        await bench.finish()
        assert gone.answers == []
        assert values(await stays.response())["y"] == [[4.0]]
        assert bench.session.shapes[-1] == {"x": (1, 1)}
        assert bench.version.statistics.failures[Reason.CANCELLED] == 1

    run(main)


def test_a_request_cancelled_while_it_runs_is_not_answered_and_harms_nobody() -> None:
    async def main() -> None:
        bench = Bench()
        busy = await bench.keep_busy()
        work, gone = bench.submit([1.0])
        _, stays = bench.submit([2.0])
        bench.gate.open()
        await busy.answer()  # the next batch has begun before this one was answered
        assert work
        work.cancel()
        assert (bench.version.in_flight, bench.version.pending) == (2, 0)
        await bench.finish()
        assert gone.answers == []
        assert values(await stays.response())["y"] == [[4.0]]
        assert bench.version.in_flight == 0
        assert bench.version.statistics.failures[Reason.CANCELLED] == 1
        assert bench.version.statistics.success.count == 2

    run(main)


@pytest.mark.parametrize("when", ["waiting", "running", "answered"])
def test_cancelling_again_changes_nothing(when: str) -> None:
    async def main() -> None:
        bench = Bench()
        if when == "waiting":
            await bench.keep_busy()
        work, reply = bench.submit([1.0])
        await turn()
        assert work
        if when == "answered":
            bench.gate.open()
            await reply.answer()
        work.cancel()
        work.cancel()
        await bench.finish()
        work.cancel()
        assert bench.version.in_flight == 0
        assert bench.version.statistics.failures[Reason.CANCELLED] == (0 if when == "answered" else 1)

    run(main)


def test_a_request_whose_queue_time_ran_out_is_told_so() -> None:
    async def main() -> None:
        bench = Bench(batching_config(default_timeout_us=2_000_000))
        await bench.keep_busy()
        _, late = bench.submit([1.0])
        await turn()
        bench.clock.advance(1.75)
        assert late.answers == []
        bench.clock.advance(0.25)
        [error] = late.answers
        assert isinstance(error, QueueTimeout)
        assert str(error) == "Request timeout expired"
        assert bench.version.statistics.failures[Reason.TOO_LATE] == 1
        await bench.finish()

    run(main)


def test_a_request_whose_caller_stopped_waiting_is_told_so() -> None:
    async def main() -> None:
        bench = Bench(batching_config(default_timeout_us=5_000_000))
        await bench.keep_busy()
        _, late = bench.submit([1.0], deadline=1002.0)
        await turn()
        bench.clock.advance(2)
        [error] = late.answers
        assert isinstance(error, DeadlineExceeded)
        assert str(error) == "Deadline Exceeded"
        await bench.finish()
        assert bench.version.in_flight == 0

    run(main)


TIMEOUTS = {
    "none at all": ({}, 0, inf),
    "the request's own, where the model sets none": ({}, 500_000, 0.5),
    "the model's": ({"default_timeout_us": 1_000_000}, 0, 1),
    "the model's, where overriding is not allowed": ({"default_timeout_us": 1_000_000}, 500_000, 1),
    "the request's own, where overriding is allowed": (
        {"default_timeout_us": 1_000_000, "allow_timeout_override": True},
        500_000,
        0.5,
    ),
    "never more than the model's": (
        {"default_timeout_us": 1_000_000, "allow_timeout_override": True},
        2_000_000,
        1,
    ),
    "the model's, where the request asks for none": (
        {"default_timeout_us": 1_000_000, "allow_timeout_override": True},
        0,
        1,
    ),
}


@pytest.mark.parametrize(("batching", "timeout_us", "expected"), TIMEOUTS.values(), ids=TIMEOUTS)
def test_the_time_in_the_queue(batching: dict[str, Any], timeout_us: int, expected: float) -> None:
    async def main() -> None:
        bench = Bench(batching_config(**batching))
        await bench.keep_busy()
        _, reply = bench.submit([1.0], timeout_us=timeout_us)
        await turn()
        bench.clock.advance(min(expected, 1e9) - 0.125)
        assert reply.answers == []
        bench.clock.advance(0.125)
        assert [type(answer) for answer in reply.answers] == ([QueueTimeout] if expected < inf else [])
        await bench.finish()

    run(main)


def test_a_full_queue_refuses_with_the_requests_id() -> None:
    async def main() -> None:
        bench = Bench(batching_config(max_queue_size=1))
        await bench.keep_busy()
        bench.submit([1.0])
        work, reply = bench.submit([2.0], request_id="r")
        [error] = reply.answers
        assert work is None
        assert isinstance(error, QueueFull)
        assert str(error) == "[request id: r] Exceeds maximum queue size"
        assert bench.version.statistics.failures[Reason.QUEUE_FULL] == 1
        await bench.finish()
        assert bench.version.in_flight == 0

    run(main)


@pytest.mark.parametrize("max_batch_size", [1, 32])
def test_a_queue_without_a_size_of_its_own_is_bounded_in_rows(max_batch_size: int) -> None:
    async def main() -> None:
        bench = Bench(batching_config(max_batch_size=max_batch_size))
        await bench.keep_busy()
        room = max(MIN_QUEUED_REQUESTS, QUEUED_BATCHES * max_batch_size)
        for _ in range(room // max_batch_size):
            work, _ = bench.submit(*[[1.0]] * max_batch_size)
            assert work
        _, reply = bench.submit([1.0])
        assert [type(answer) for answer in reply.answers] == [QueueFull]
        await bench.finish()

    run(main)


def test_a_scripted_sequence_is_counted_exactly() -> None:
    async def main() -> None:
        def fragile(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            if inputs["x"].max() > 100:
                raise RuntimeError("boom")
            return doubled_and_negated(inputs)

        bench = Bench(batching_config(max_queue_size=4), fragile)
        before_ms = time.time_ns() // 1_000_000
        alone = await bench.keep_busy()  # batch 1: one row
        _, two = bench.submit([1.0], [1.0])  # batch 2: two rows, and three
        _, three = bench.submit([2.0], [2.0], [2.0])
        gone, _ = bench.submit([3.0])
        bench.submit([4.0], timeout_us=1_000_000)
        bench.submit([5.0])  # no room
        assert gone
        gone.cancel()
        await turn()
        bench.clock.advance(2)  # the timeout; and the others have been here for two seconds
        bench.gate.open(2)
        for reply in (alone, two, three):
            await reply.response()
        _, failing = bench.submit([999.0])
        bench.gate.open()
        await failing.error()
        _, second = bench.submit([7.0])  # batch 3: one row again
        bench.gate.open()
        await second.response()
        wrong = OneReply()
        bench.version.submit(InferenceRequest("m", "", "", (TensorSpec("x", "INT8", (1, 1)),), (b"\0",)), wrong)

        statistics = bench.version.statistics
        assert (statistics.inference_count, statistics.execution_count) == (7, 3)
        assert (statistics.success.count, statistics.success.ns) == (4, 3 * 2_000_000_000)
        assert {reason: count for reason, count in statistics.failures.items() if count} == {
            Reason.QUEUE_FULL: 1,
            Reason.TOO_LATE: 1,
            Reason.CANCELLED: 1,
            Reason.BACKEND: 1,
            Reason.INVALID: 1,
        }
        assert (statistics.fail.count, statistics.fail.ns) == (5, 1_000_000_000)
        assert statistics.queue.count == 4
        assert {rows: batch.compute_infer.count for rows, batch in statistics.batches.items()} == {1: 2, 5: 1}
        for duration in (statistics.compute_input, statistics.compute_infer, statistics.compute_output):
            assert duration.count == 4
            assert duration.ns > 0
        assert before_ms <= statistics.last_inference_ms <= time.time_ns() // 1_000_000
        await bench.finish()

    run(main)
