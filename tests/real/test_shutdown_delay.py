"""--shutdown-delay-secs: not ready at once, and everybody is served until load balancers have noticed."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests import onnx_models
from tests.real.clients import Client, answer_of, http_status
from tests.real.conftest import StartServer, connect
from tests.real.test_drain import NOT_SERVING, SERVING, in_flight, rows
from tests.real.waiting import wait_until
from tests.real.zoo import held
from tests.repositories import add_model


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    add_model(tmp_path, "affine", onnx_models.affine(), "max_batch_size: 32 dynamic_batching { }")
    add_model(tmp_path, "held", onnx_models.affine(), held())
    return tmp_path


def test_a_server_in_its_delay_is_not_ready_and_serves_until_a_second_signal(
    start_engine: StartServer, repository: Path
) -> None:
    server = start_engine("--shutdown-delay-secs=600", model_repository=repository)
    with connect(server) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=30) for name in ("", "affine")]
        assert [next(watch).status for watch in watches] == [SERVING, SERVING]
        server.process.send_signal(signal.SIGTERM)
        assert [next(watch).status for watch in watches] == [NOT_SERVING, NOT_SERVING]
        assert http_status(f"{server.http_url}/v2/health/ready") == 503
        assert http_status(f"{server.http_url}/v2/health/live") == 200

        assert Client(channel).infer("affine", rows(1))["y"].item() == 4
        with connect(server) as newcomer:
            assert Client(newcomer).infer("affine", rows(2))["y"].item() == 7
        waiting = Client(channel).start_infer("held", rows(3))
        wait_until(lambda: in_flight(server, "held") == 1, 10)
        assert server.process.poll() is None

        server.process.send_signal(signal.SIGTERM)
        assert answer_of(waiting)["y"].item() == 10
    assert server.terminate() == 0
    assert "Traceback" not in server.log.read_text()


def test_the_delay_ends_by_itself(start_engine: StartServer, repository: Path) -> None:
    server = start_engine("--shutdown-delay-secs=0.5", model_repository=repository)
    signalled = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert time.monotonic() - signalled >= 0.5
