"""A slow model with many instances and a fast one in one server that runs one batch at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests import onnx_models
from tests.real.clients import Client, answer_of, metric, wait_for_pending
from tests.real.conftest import connect
from tests.real.test_queueing import LONG_ROUNDS, rows, slow_rows
from tests.real.waiting import wait_until
from tests.repositories import add_model

if TYPE_CHECKING:
    from pathlib import Path

    from tests.real.conftest import StartServer

WAIT_SECONDS = 10.0
LONG_SECONDS = 90.0
"""For calls that wait for several long runs, on a busy machine."""
SLOW = "max_batch_size: 1 dynamic_batching { } instance_group { count: 3 kind: KIND_CPU }"


def test_a_slow_model_does_not_hold_up_a_fast_one_nor_its_like(start_server: StartServer, tmp_path: Path) -> None:
    add_model(tmp_path, "slow", onnx_models.slow(), SLOW)
    add_model(tmp_path, "like", onnx_models.slow(), SLOW)
    add_model(tmp_path, "fast", onnx_models.affine(), "max_batch_size: 8 dynamic_batching { }")
    server = start_server("--max-running-batches=1", model_repository=tmp_path)
    with connect(server) as channel:
        client = Client(channel)
        assert metric(server.metrics_url, "convoy_running_batch_limit") == 1
        for value in (1, 2):
            assert client.infer("fast", rows(value))["y"].item() == 3 * value + 1
        for model in ("slow", "like"):
            client.infer(model, slow_rows(0, LONG_ROUNDS // 4))

        order: list[str] = []
        slow = [client.start_infer("slow", slow_rows(value, LONG_ROUNDS), LONG_SECONDS) for value in (1, 2, 3)]
        for call in slow:
            call.add_done_callback(lambda _: order.append("slow"))
        wait_for_pending(server.metrics_url, "slow", 2)
        assert metric(server.metrics_url, "convoy_running_batch_count") == 1
        like = client.start_infer("like", slow_rows(4, 1), LONG_SECONDS)
        like.add_done_callback(lambda _: order.append("like"))
        wait_for_pending(server.metrics_url, "like", 1)
        fast = client.start_infer("fast", rows(5), LONG_SECONDS)
        fast.add_done_callback(lambda _: order.append("fast"))
        assert [answer_of(call)["y"].item() for call in (fast, like, *slow)] == [16, 4, 1, 2, 3]
        wait_until(lambda: len(order) == 5, WAIT_SECONDS)
        assert order[0] == "fast"
        assert order[-1] == "slow", "the other slow one waited for more than a round"

        assert metric(server.metrics_url, "convoy_turn_wait_duration_us_total", model="slow") > 0
        assert metric(server.metrics_url, "convoy_turn_wait_duration_us_total", model="like") > 0
        assert metric(server.metrics_url, "convoy_turn_wait_duration_us_total", model="fast") == 0
    assert server.terminate() == 0
