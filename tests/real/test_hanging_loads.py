"""Loads that do not end: their versions say why they do not serve, others are loaded, and the server goes down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import Client, refusal_of
from tests.real.conftest import ROOT, STOP_SECONDS, StartServer, connect, start
from tests.real.test_drain import CLOSING, ENDLESS_ROUNDS
from tests.real.test_hanging_runs import LEFT_BEHIND
from tests.real.waiting import wait_until
from tests.repositories import add_model

EXPLICIT = ("--model-control-mode=explicit", "--model-load-thread-count=1")
STUCK_SERVER = (sys.executable, "-m", "tests.stuck_server")

LIMITED = 'parameters { key: "run_timeout_ms" value { string_value: "50" } }'
ENDLESS_WARM_UP = """
max_batch_size: 8
model_warmup { name: "endless" batch_size: 1
  inputs { key: "x" value { data_type: TYPE_FP32 dims: 1 zero_data: true } }
  inputs { key: "iterations" value { data_type: TYPE_INT64 dims: 1 input_data_file: "rounds" } } }
"""


def add_endless(root: Path, config: str) -> None:
    """Model 'endless', whose warm-up is a Loop of months."""
    folder = add_model(root, "endless", onnx_models.slow(), config)
    (folder / "warmup").mkdir()
    (folder / "warmup" / "rounds").write_bytes(np.int64(ENDLESS_ROUNDS).tobytes())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with model 'affine', which is loaded after 'endless' and before 'stuck'."""
    add_model(tmp_path / "models", "affine", onnx_models.affine())
    return tmp_path / "models"


def load(client: Client, name: str) -> grpc.Future:
    return client.start("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=name))


def reasons(client: Client) -> dict[str, str]:
    index = client.call("RepositoryIndex", pb.RepositoryIndexRequest())
    return {line.name: line.reason for line in index.models}


def test_an_endless_warm_up_is_stopped_at_start_and_on_request(start_server: StartServer, root: Path) -> None:
    add_endless(root, ENDLESS_WARM_UP + LIMITED)
    server = start_server(*EXPLICIT, "--load-model=endless", model_repository=root)
    why = "a run before it serves took longer than 500 ms: run_timeout_ms, and more for first runs"
    with connect(server) as channel:
        client = Client(channel)
        assert reasons(client)["endless"].startswith(why)
        refusal = refusal_of(load(client, "endless"))
        assert refusal.status is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.message.startswith(f"load failed for model 'endless': version 1 is at UNAVAILABLE state: {why}")
        load(client, "affine").result()
        assert client.infer("affine", {"x": np.array([[1]])})["y"].item() == 4
    assert server.terminate() == 0  # no thread was left behind
    assert f" E server.models.load_threads: model 'endless' version 1: {why}" in server.log.read_text()


def test_what_hangs_in_opening_is_left_behind_by_the_others_and_by_the_process(root: Path, tmp_path: Path) -> None:
    add_model(root, "stuck", onnx_models.affine())
    server = start(
        tmp_path,
        *EXPLICIT,
        "--model-load-timeout-secs=4",
        "--exit-timeout-secs=0.2",
        model_repository=root,
        program=STUCK_SERVER,
    )
    try:
        with connect(server) as channel:
            client = Client(channel)
            stuck, affine = load(client, "stuck"), load(client, "affine")
            affine.result()  # with the only thread held by the other one, until that is left behind
            why = "took longer to load than --model-load-timeout-secs 4; that cannot be stopped, and its thread is left"
            assert why in refusal_of(stuck).message
            assert why in reasons(client)["stuck"]
            assert client.infer("affine", {"x": np.array([[1]])})["y"].item() == 4
        assert server.terminate() == 1
        assert LEFT_BEHIND in server.log.read_text()
    finally:
        server.process.kill()
        server.process.wait()


def test_sigterm_during_an_endless_warm_up_stops_it(start_server: StartServer, root: Path) -> None:
    add_endless(root, ENDLESS_WARM_UP)
    server = start_server(*EXPLICIT, "--log-verbose=1", model_repository=root)
    with connect(server) as channel:
        loading = load(Client(channel), "endless")
        wait_until(lambda: "endless/1/model.onnx: being opened" in server.log.read_text(), 30)
        assert server.terminate() == 0
        assert refusal_of(loading).status in CLOSING


def test_sigterm_while_opening_hangs_at_start_leaves_it_behind(root: Path, tmp_path: Path) -> None:
    add_model(root, "stuck", onnx_models.affine())
    log = tmp_path / "log"
    flags = ("--grpc-address=127.0.0.1", "--grpc-port=0", "--allow-http=false", "--allow-metrics=false")
    command = [*STUCK_SERVER, f"--model-repository={root}", *flags, "--exit-timeout-secs=0.2", "--log-verbose=1"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    try:
        wait_until(lambda: "stuck/1/model.onnx: being opened" in log.read_text(), 30)
        process.terminate()
        assert process.wait(STOP_SECONDS) == 1
        assert LEFT_BEHIND in log.read_text()
    finally:
        process.kill()
        process.wait()
