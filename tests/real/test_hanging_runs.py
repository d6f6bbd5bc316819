"""Runs of ONNX Runtime that do not end: their callers are answered, and the server goes on, and down when it must."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import Client, http_status, metric, refusal_of, wait_for_running
from tests.real.conftest import STOP_SECONDS, RunningServer, StartServer, connect, start
from tests.real.test_drain import CLOSING, ENDLESS_ROUNDS, slow
from tests.repositories import add_model

DEAF_SERVER = (sys.executable, "-m", "tests.deaf_server")
LIMITED = 'max_batch_size: 8 parameters { key: "run_timeout_ms" value { string_value: "500" } }'


def reason(client: Client) -> str:
    """What the index says of the model, which serves."""
    (line,) = client.call("RepositoryIndex", pb.RepositoryIndexRequest()).models
    assert line.state == "READY"
    return str(line.reason)


def test_an_endless_loop_is_stopped_and_the_next_request_answered(start_engine: StartServer, tmp_path: Path) -> None:
    server = start_engine(model_repository=add_model(tmp_path, "slow", onnx_models.slow(), LIMITED).parent)
    with connect(server) as channel:
        client = Client(channel)
        refusal = refusal_of(client.start_infer("slow", slow(1, ENDLESS_ROUNDS)))

        assert refusal.status is grpc.StatusCode.INTERNAL
        assert refusal.message == "model 'slow' version 1: the run took longer than run_timeout_ms 500"
        assert client.infer("slow", slow(7, 1))["y"].item() == 7
        assert reason(client) == ""
        assert metric(server.metrics_url, "convoy_run_timeouts_total", model="slow") == 1
        assert metric(server.metrics_url, "convoy_hung_runs", model="slow") == 0
    assert server.terminate() == 0
    assert " E server.models.run_limit: model 'slow' version 1: a run took longer than" in server.log.read_text()


@pytest.fixture
def start_deaf(tmp_path: Path) -> Iterator[Callable[[str], RunningServer]]:
    """Starts a server whose runs cannot be interrupted, with the model 'slow' of the given configuration."""
    servers: list[RunningServer] = []

    def start_one(config: str) -> RunningServer:
        models = add_model(tmp_path / "models", "slow", onnx_models.slow(), config).parent
        servers.append(start(tmp_path, "--exit-timeout-secs=0.2", model_repository=models, program=DEAF_SERVER))
        return servers[-1]

    yield start_one
    for server in servers:
        server.process.kill()
        server.process.wait()


StartDeaf = Callable[[str], RunningServer]
LEFT_BEHIND = "what runs does not end, and the process leaves it behind; its threads are"


def test_a_run_that_cannot_be_stopped_is_left_behind_by_its_version_and_by_the_process(start_deaf: StartDeaf) -> None:
    server = start_deaf(LIMITED)
    with connect(server) as channel:
        client = Client(channel)
        refusal = refusal_of(client.start_infer("slow", slow(1, ENDLESS_ROUNDS)))

        assert refusal.status is grpc.StatusCode.INTERNAL
        assert client.infer("slow", slow(7, 1))["y"].item() == 7
        assert reason(client) == "1 of its runs took longer than run_timeout_ms and cannot be stopped"
        assert metric(server.metrics_url, "convoy_hung_runs", model="slow") == 1
        assert http_status(f"{server.http_url}/v2/health/ready") == 200
    assert server.terminate() == 1
    assert LEFT_BEHIND in server.log.read_text()
    assert "model 'slow' version 1 is unloaded" in server.log.read_text()


def test_a_run_without_a_limit_does_not_hold_up_the_end(start_deaf: StartDeaf) -> None:
    server = start_deaf("max_batch_size: 8")
    with connect(server) as channel:
        hung = Client(channel).start_infer("slow", slow(1, ENDLESS_ROUNDS))
        wait_for_running(server.metrics_url, "slow", 1)
        assert server.terminate() == 1
        assert hung.exception(STOP_SECONDS).code() in CLOSING
    assert LEFT_BEHIND in server.log.read_text()
