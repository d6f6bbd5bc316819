"""What a loaded version counts beside its answers: deadlines, reasons, ages, and how busy it is."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import Reason
from server.messages import InferenceRequest, TensorSpec
from server.models.config import ModelConfig
from server.summaries import LatencySummaries, quantiles
from tests.fakes import OneReply
from tests.unit.loaded import Bench, batching_config, run, turn


def deadlines(bench: Bench) -> tuple[int, int]:
    """Met and missed."""
    return bench.version.statistics.deadline_met, bench.version.statistics.deadline_missed


PROMISES: dict[str, tuple[ModelConfig, dict[str, Any]]] = {
    "the caller's deadline": (batching_config(), {"deadline": 1002.0}),
    "its timeout": (batching_config(), {"timeout_us": 2_000_000}),
    "its timeout, longer than that of the model": (
        batching_config(default_timeout_us=9_000_000, allow_timeout_override=True),
        {"timeout_us": 2_000_000},
    ),
    "the objective": (batching_config(objective_ms=2000), {}),
    "the soonest of them": (batching_config(objective_ms=2000), {"deadline": 1009.0, "timeout_us": 8_000_000}),
}


@pytest.mark.parametrize(("config", "fields"), PROMISES.values(), ids=PROMISES)
@pytest.mark.parametrize(("seconds", "counts"), [(2.0, (1, 0)), (2.5, (0, 1))], ids=["in time", "late"])
def test_an_answer_is_measured_by(
    config: ModelConfig, fields: dict[str, Any], seconds: float, counts: tuple[int, int]
) -> None:
    async def main() -> None:
        bench = Bench(config)
        _, reply = bench.submit([1.0], **fields)
        await turn()
        assert bench.version.pending == 0  # it runs
        bench.clock.advance(seconds)
        await bench.finish()
        assert await reply.response()
        assert deadlines(bench) == counts

    run(main)


@pytest.mark.parametrize(
    ("config", "fields"),
    [(batching_config(), {}), (batching_config(default_timeout_us=1_000_000), {"timeout_us": 9_000_000})],
    ids=["nobody said when", "the model bounds the time in the queue"],
)
def test_without_a_deadline_there_is_nothing_to_meet(config: ModelConfig, fields: dict[str, Any]) -> None:
    async def main() -> None:
        bench = Bench(config)
        bench.submit([1.0], **fields)
        await turn()
        bench.clock.advance(60)
        await bench.finish()
        assert deadlines(bench) == (0, 0)

    run(main)


def test_whatever_else_becomes_of_a_request_misses_its_deadline_unless_it_was_wrong() -> None:
    async def main() -> None:
        bench = Bench(batching_config(max_queue_size=2))
        await bench.keep_busy()
        bench.submit([1.0], deadline=1001.0)  # expires
        left, _ = bench.submit([1.0], deadline=1009.0)
        bench.submit([1.0], deadline=1009.0)  # no room
        wrong = InferenceRequest("m", "", "", (TensorSpec("x", "INT8", (1, 1)),), (b"\0",), deadline=1009.0)
        bench.version.submit(wrong, OneReply())
        assert left
        left.cancel()
        await turn()
        bench.clock.advance(2)
        assert deadlines(bench) == (0, 3)
        await bench.finish()

    run(main)


FAULTS: dict[Reason, InferenceRequest] = {
    Reason.INVALID: InferenceRequest("m", "", "", (TensorSpec("x", "INT8", (1, 1)),), (b"\0",)),
    Reason.SHAPE: InferenceRequest("m", "", "", (TensorSpec("x", "FP32", (1, 1, 1)),), (bytes(4),)),
    Reason.OVERSIZE: InferenceRequest("m", "", "", (TensorSpec("x", "FP32", (9, 1)),), (bytes(36),)),
}


@pytest.mark.parametrize(("reason", "wrong"), FAULTS.items(), ids=FAULTS)
def test_what_is_wrong_with_a_request_is_told_apart(reason: Reason, wrong: InferenceRequest) -> None:
    async def main() -> None:
        bench = Bench()
        bench.version.submit(wrong, OneReply())
        failures = bench.version.statistics.failures
        assert {kind: count for kind, count in failures.items() if count} == {reason: 1}
        await bench.finish()

    run(main)


def test_data_of_another_size_than_its_shape_says_is_a_matter_of_shape() -> None:
    async def main() -> None:
        bench = Bench()
        bench.version.submit(InferenceRequest("m", "", "", (TensorSpec("x", "FP32", (1, 1)),), (bytes(8),)), OneReply())
        assert bench.version.statistics.failures[Reason.SHAPE] == 1
        await bench.finish()

    run(main)


def test_the_age_of_the_queue_is_that_of_the_oldest_who_waits() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.keep_busy()
        bench.clock.advance(1)
        assert bench.version.queue_age() == 0
        bench.submit([1.0])
        bench.clock.advance(2)
        bench.submit([2.0])
        bench.clock.advance(3)
        assert bench.version.queue_age() == 5
        await bench.finish()
        assert bench.version.queue_age() == 0

    run(main)


def test_instances_are_busy_one_by_one() -> None:
    async def main() -> None:
        bench = Bench(batching_config(instances=2))
        await bench.keep_busy()
        bench.clock.advance(4)
        assert sorted(bench.version.busy_seconds()) == [0, 4]
        await bench.finish()

    run(main)


def test_latencies_of_the_last_minute_are_kept_where_they_are_wanted() -> None:
    async def main() -> None:
        bench = Bench(summaries=LatencySummaries())
        bench.submit([1.0])
        await turn()
        bench.clock.advance(0.5)
        await bench.finish()
        latest = bench.version.latest()
        assert latest is not None
        assert quantiles(latest.request, [0.5]) == [pytest.approx(500_000, rel=0.01)]
        assert all(quantiles(phase, [0.5])[0] >= 0 for phase in latest)

    run(main)
