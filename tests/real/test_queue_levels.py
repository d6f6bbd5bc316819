"""Priorities, delays, answers in order, requests in parts, and failures that stay alone: over real sockets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.real.clients import Client, answer_of, refusal_of, wait_for_pending, wait_for_running
from tests.real.test_queueing import LONG_ROUNDS, failures, parameters, rows, slow_rows
from tests.real.waiting import wait_until
from tests.real.zoo import write_zoo

if TYPE_CHECKING:
    from tests.real.conftest import RunningServer, StartServer

SHORT_ROUNDS = LONG_ROUNDS // 4
"""Long enough to see that one answer is there and another is not."""


def keep_busy(zoo: RunningServer, client: Client, model: str) -> grpc.Future:
    call = client.start_infer(model, slow_rows(9, LONG_ROUNDS))
    wait_for_running(zoo.metrics_url, model, 1)
    return call


def test_the_more_urgent_request_overtakes(zoo: RunningServer, client: Client) -> None:
    keep_busy(zoo, client, "slow_levels")
    low = client.start_infer("slow_levels", slow_rows(1, SHORT_ROUNDS))
    wait_for_pending(zoo.metrics_url, "slow_levels", 1)
    high = client.start_infer("slow_levels", slow_rows(2, 1), **parameters(priority=1))

    assert answer_of(high)["y"].item() == 2
    assert not low.done()
    assert answer_of(low)["y"].item() == 1


def test_a_delayed_request_is_overtaken_and_answered(zoo: RunningServer, client: Client) -> None:
    keep_busy(zoo, client, "slow_delay")
    late = client.start_infer("slow_delay", slow_rows(1, SHORT_ROUNDS), **parameters(timeout=1))
    wait_for_pending(zoo.metrics_url, "slow_delay", 1)
    patient = client.start_infer("slow_delay", slow_rows(2, 1))

    assert answer_of(patient)["y"].item() == 2
    assert not late.done()
    assert answer_of(late)["y"].item() == 1


def test_answers_leave_in_order_of_arrival_where_the_model_asks_for_it(zoo: RunningServer, client: Client) -> None:
    first = keep_busy(zoo, client, "slow_in_order")
    second = client.start_infer("slow_in_order", slow_rows(2, 1))
    wait_until(lambda: client.statistics("slow_in_order").execution_count == 1, 10)

    assert not first.done()
    assert not second.done()
    assert answer_of(first)["y"].item() == 9
    assert answer_of(second)["y"].item() == 2


@pytest.mark.parametrize("count", [4, 5, 17])
def test_a_request_larger_than_a_batch_is_answered_as_one(count: int, client: Client) -> None:
    before = client.statistics("split")
    answer = client.infer("split", rows(*range(count)))
    after = client.statistics("split")

    assert answer["y"].ravel().tolist() == [3 * x + 1 for x in range(count)]
    assert after.inference_count - before.inference_count == count
    assert after.execution_count - before.execution_count == -(-count // 4)
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1


def test_a_request_that_makes_its_batch_fail_fails_alone(zoo: RunningServer, client: Client) -> None:
    good = [client.start_infer("held_lookup", rows(x % 4)) for x in range(7)]
    wait_for_pending(zoo.metrics_url, "held_lookup", 7)
    bad = refusal_of(client.start_infer("held_lookup", rows(99)))

    assert bad.status is grpc.StatusCode.INTERNAL
    assert bad.message.startswith("model 'held_lookup' version 1 failed to run: ")
    assert [answer_of(call)["y"].item() for call in good] == [10 * (x % 4) for x in range(7)]
    assert client.batches("held_lookup") == {1: 7}
    assert failures(zoo, "held_lookup") == {"REJECTED": 0, "CANCELED": 0, "BACKEND": 1, "OTHER": 0}


def test_all_models_together_hold_no_more_bytes_than_allowed(start_engine: StartServer, tmp_path: Path) -> None:
    server = start_engine(
        "--max-queued-bytes=20",
        "--model-control-mode=explicit",
        "--load-model=held_full",
        "--load-model=held_cancel",
        model_repository=write_zoo(tmp_path),
    )
    with grpc.insecure_channel(server.grpc_address) as channel:
        client = Client(channel)
        first = client.start_infer("held_full", rows(1, 2))  # 16 bytes
        wait_for_pending(server.metrics_url, "held_full", 1)
        refusal = refusal_of(client.start_infer("held_cancel", rows(3), id="late"))
        assert refusal.status is grpc.StatusCode.UNAVAILABLE
        assert refusal.message.startswith("[request id: late] Exceeds maximum queued bytes of the server")
        first.cancel()
        wait_for_pending(server.metrics_url, "held_full", 0)
        second = client.start_infer("held_cancel", rows(3))
        wait_for_pending(server.metrics_url, "held_cancel", 1)
        second.cancel()
