"""Runs of ONNX Runtime that do not end: their callers are answered, and the server goes on, and down when it must."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import grpc

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import Client, http_status, metric, refusal_of, wait_for_running
from tests.real.conftest import STOP_SECONDS, StartServer, connect, start
from tests.real.test_drain import CLOSING, ENDLESS_ROUNDS, slow
from tests.repositories import add_model

DEAF_SERVER = (sys.executable, "-m", "tests.deaf_server")
LIMITED = 'max_batch_size: 8 parameters { key: "run_timeout_ms" value { string_value: "500" } }'


def reason(client: Client, model: str) -> str:
    """What the index says of a model that serves."""
    (line,) = (
        each for each in client.call("RepositoryIndex", pb.RepositoryIndexRequest()).models if each.name == model
    )
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
        assert reason(client, "slow") == ""
        assert metric(server.metrics_url, "convoy_run_timeouts_total", model="slow") == 1
        assert metric(server.metrics_url, "convoy_hung_runs", model="slow") == 0
    assert server.terminate() == 0
    assert " E server.models.run_limit: model 'slow' version 1: a run took longer than" in server.log.read_text()


def test_runs_that_cannot_be_stopped_are_left_behind_by_their_version_and_by_the_process(tmp_path: Path) -> None:
    models = tmp_path / "models"
    add_model(models, "slow", onnx_models.slow(), LIMITED)
    add_model(models, "unlimited", onnx_models.slow(), "max_batch_size: 8")
    server = start(tmp_path, "--exit-timeout-secs=0.2", model_repository=models, program=DEAF_SERVER)
    try:
        with connect(server) as channel:
            client = Client(channel)
            refusal = refusal_of(client.start_infer("slow", slow(1, ENDLESS_ROUNDS)))

            assert refusal.status is grpc.StatusCode.INTERNAL
            assert client.infer("slow", slow(7, 1))["y"].item() == 7
            assert reason(client, "slow") == "1 of its runs took longer than run_timeout_ms and cannot be stopped"
            assert metric(server.metrics_url, "convoy_hung_runs", model="slow") == 1
            assert http_status(f"{server.http_url}/v2/health/ready") == 200

            hung = client.start_infer("unlimited", slow(1, ENDLESS_ROUNDS))
            wait_for_running(server.metrics_url, "unlimited", 1)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(STOP_SECONDS) == 1
            assert hung.exception(STOP_SECONDS).code() in CLOSING
        assert "what runs does not end, and the process leaves it behind; its threads are" in server.log.read_text()
    finally:
        server.process.kill()
        server.process.wait()
