"""Waiting for a batch: the queue's bound, its timeouts, callers' deadlines, and callers who go away.

The models of these tests hold requests until eight rows have come, so that nothing depends on how fast anything runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from proto import grpc_service_pb2 as pb
from tests.real.clients import Client, answer_of, metric, refusal_of, wait_for_pending, wait_for_running

if TYPE_CHECKING:
    from tests.real.conftest import RunningServer

LONG_ROUNDS = 60_000
"""About 0.8 s of `slow` on one core: long beside what the tests do meanwhile."""


def rows(*values: int) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.array(values, np.int64).reshape(-1, 1)}


def slow_rows(value: float, rounds: int) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.array([[value]], np.float32), "iterations": np.array([[rounds]], np.int64)}


def parameters(**values: int) -> dict[str, Any]:
    return {"parameters": {name: pb.InferParameter(int64_param=value) for name, value in values.items()}}


def failures(server: RunningServer, model: str) -> dict[str, float]:
    reasons = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
    name = "nv_inference_request_failure"
    return {reason: metric(server.metrics_url, name, model=model, reason=reason) for reason in reasons}


def release(client: Client, model: str, waiting: int) -> None:
    """Fill up the batch that `waiting` rows are held in, and see that the filling is answered."""
    fill = range(50, 58 - waiting)
    assert client.infer(model, rows(*fill))["y"].ravel().tolist() == [3 * x + 1 for x in fill]


def test_a_full_queue_refuses_the_next_request_at_once_and_a_cancelled_one_makes_room(
    zoo: RunningServer, client: Client
) -> None:
    first, second = (client.start_infer("held_full", rows(x)) for x in (1, 2))
    wait_for_pending(zoo.metrics_url, "held_full", 2)

    refusal = refusal_of(client.start_infer("held_full", rows(3), id="late"))
    assert refusal.status is grpc.StatusCode.UNAVAILABLE
    assert refusal.message == "[request id: late] Exceeds maximum queue size"

    second.cancel()
    wait_for_pending(zoo.metrics_url, "held_full", 1)
    release(client, "held_full", 1)
    assert answer_of(first)["y"].item() == 4
    assert client.batches("held_full") == {8: 1}
    assert failures(zoo, "held_full") == {"REJECTED": 1, "CANCELED": 1, "BACKEND": 0, "OTHER": 0}


def test_the_models_own_timeout_ends_the_wait(client: Client) -> None:
    refusal = refusal_of(client.start_infer("held_timeout", rows(1)))

    assert (refusal.status, refusal.message) == (grpc.StatusCode.UNAVAILABLE, "Request timeout expired")
    assert client.statistics("held_timeout").execution_count == 0


@pytest.mark.parametrize("model", ["held_override", "held_no_policy"])
def test_the_timeout_parameter_ends_the_wait(model: str, zoo: RunningServer, client: Client) -> None:
    refusal = refusal_of(client.start_infer(model, rows(1), **parameters(timeout=20_000)))

    assert (refusal.status, refusal.message) == (grpc.StatusCode.UNAVAILABLE, "Request timeout expired")
    assert client.statistics(model).execution_count == 0
    assert failures(zoo, model)["REJECTED"] == 1


def test_the_timeout_parameter_means_nothing_where_the_model_forbids_it(client: Client) -> None:
    held_s = 0.4  # by the model's default_timeout_microseconds
    before = client.statistics("held_no_override").inference_stats.fail.ns
    refusal_of(client.start_infer("held_no_override", rows(1), **parameters(timeout=1_000)))
    after = client.statistics("held_no_override").inference_stats.fail.ns

    assert after - before >= held_s * 1e9


def test_a_request_whose_deadline_passes_in_the_queue_is_never_run(zoo: RunningServer, client: Client) -> None:
    early = client.start_infer("held_deadline", rows(7))
    wait_for_pending(zoo.metrics_url, "held_deadline", 1)

    refusal = refusal_of(client.start_infer("held_deadline", rows(1), timeout=0.1))
    assert refusal.status is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for_pending(zoo.metrics_url, "held_deadline", 1)
    assert client.statistics("held_deadline").execution_count == 0

    release(client, "held_deadline", 1)
    assert answer_of(early)["y"].item() == 22
    statistics = client.statistics("held_deadline")
    assert (statistics.inference_count, statistics.execution_count) == (8, 1)
    assert statistics.inference_stats.fail.count == 1


def test_whoever_goes_away_frees_the_place_and_harms_nobody_else(zoo: RunningServer, client: Client) -> None:
    calls = [client.start_infer("held_cancel", rows(x)) for x in range(6)]
    wait_for_pending(zoo.metrics_url, "held_cancel", 6)
    for gone in calls[::2]:
        gone.cancel()
    wait_for_pending(zoo.metrics_url, "held_cancel", 3)

    release(client, "held_cancel", 3)
    assert [answer_of(call)["y"].item() for call in calls[1::2]] == [4, 10, 16]
    assert client.statistics("held_cancel").inference_count == 8
    assert failures(zoo, "held_cancel") == {"REJECTED": 0, "CANCELED": 3, "BACKEND": 0, "OTHER": 0}


def test_a_timeout_is_kept_while_every_instance_is_busy(zoo: RunningServer, client: Client) -> None:
    busy = client.start_infer("slow_1", slow_rows(5, LONG_ROUNDS))
    wait_for_running(zoo.metrics_url, "slow_1", 1)
    refusal = refusal_of(client.start_infer("slow_1", slow_rows(6, 1), **parameters(timeout=10_000)))

    assert refusal.message == "Request timeout expired"
    assert not busy.done()
    assert answer_of(busy)["y"].item() == 5


def test_a_caller_who_leaves_a_running_batch_leaves_its_batch_mates_alone(zoo: RunningServer, client: Client) -> None:
    first = client.start_infer("slow_1", slow_rows(1, LONG_ROUNDS // 2))
    wait_for_running(zoo.metrics_url, "slow_1", 1)
    second, third = (client.start_infer("slow_1", slow_rows(x, LONG_ROUNDS // 2)) for x in (2, 3))
    wait_for_pending(zoo.metrics_url, "slow_1", 2)
    assert answer_of(first)["y"].item() == 1
    wait_for_running(zoo.metrics_url, "slow_1", 2)  # together, since they waited together
    second.cancel()

    assert answer_of(third)["y"].item() == 3
    assert client.infer("slow_1", slow_rows(4, 1))["y"].item() == 4
    assert metric(zoo.metrics_url, "nv_inference_in_flight_request_count", model="slow_1") == 0
