"""Models that come and go on request, with tritonclient on both gRPC engines, and servers that start in other ways."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as tritongrpc
from tritonclient.utils import InferenceServerException

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import Client, metric
from tests.real.conftest import ROOT, SERVER, RunningServer, StartServer, connect
from tests.real.test_repositories import Load, index, model
from tests.real.waiting import wait_until
from tests.repositories import add_model

EXPLICIT = "--model-control-mode=explicit"
RELOADS = 100
LARGE_WIDTH = 4096
"""128 MiB of weights: some 300 ms to open."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with model 'm', which answers its input times one, and one."""
    add_model(tmp_path / "models", "m", model(1))
    return tmp_path / "models"


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_model(tmp_path_factory.mktemp("large"), "large", onnx_models.mlp(LARGE_WIDTH)) / "1" / "model.onnx"


@pytest.fixture
def large(root: Path, large_file: Path) -> str:
    """The name of a model of the repository that takes a while to load."""
    add_model(root, "large", None)
    (root / "large" / "1" / "model.onnx").hardlink_to(large_file)
    return "large"


@pytest.fixture
def server(start_engine: StartServer, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunningServer:
    """A server in explicit mode that has loaded nothing."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return start_engine(EXPLICIT, model_repository=root)


@pytest.fixture
def triton(server: RunningServer) -> Iterator[tritongrpc.InferenceServerClient]:
    with tritongrpc.InferenceServerClient(server.grpc_address) as client:
        yield client


def ask(triton: tritongrpc.InferenceServerClient, name: str = "m") -> int:
    tensor = tritongrpc.InferInput("x", [1, 1], "INT64")
    tensor.set_data_from_numpy(np.array([[10]], np.int64))
    return int(triton.infer(name, [tensor]).as_numpy("y")[0, 0])


def states(triton: tritongrpc.InferenceServerClient) -> list[tuple[str, str, str, str]]:
    models = triton.get_model_repository_index().models
    return [(line.name, line.version, line.state, line.reason) for line in models]


def refusal(triton: tritongrpc.InferenceServerClient, name: str, **parameters: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        triton.load_model(name, **parameters)
    return caught.value.status(), caught.value.message()


def test_tritons_client_loads_and_unloads(
    server: RunningServer, triton: tritongrpc.InferenceServerClient, root: Path, tmp_path: Path
) -> None:
    assert (triton.is_server_ready(), states(triton)) == (True, [("m", "", "", "")])
    triton.load_model("m")
    assert (triton.is_model_ready("m"), ask(triton)) == (True, 11)

    triton.load_model("m", config=json.dumps({"max_batch_size": 3}))
    assert (triton.get_model_config("m").config.max_batch_size, ask(triton)) == (3, 11)

    files = {"file:7/model.onnx": model(7)}
    triton.load_model("m", config="{}", files=files)
    assert (ask(triton), states(triton)) == (71, [("m", "7", "READY", "")])

    assert "must be specified for model file override" in refusal(triton, "m", files=files)[1]
    assert "model.onnx" in refusal(triton, "m", config="{}", files={"file:7/model.onnx": b"no model"})[1]
    assert ask(triton) == 71

    triton.load_model("m")
    assert (ask(triton), states(triton)) == (11, [("m", "1", "READY", "")])
    assert list(tmp_path.glob("convoy-files-*/*")) == []

    status, message = refusal(triton, "ghost")
    assert status == "StatusCode.NOT_FOUND"
    assert message.startswith("failed to load 'ghost', failed to poll from model repository")

    add_model(root, "later", model(5))
    assert ("later", "", "", "") in states(triton)
    triton.load_model("later")
    triton.unload_model("m", unload_dependents=True)
    triton.unload_model("ghost")
    assert states(triton) == [("later", "1", "READY", ""), ("m", "1", "UNAVAILABLE", "unloaded")]
    assert (triton.is_server_ready(), ask(triton, "later")) == (True, 51)

    triton.load_model("new", config="{}", files=files)
    assert list(tmp_path.glob("convoy-files-*")) != []
    assert server.terminate() == 0
    assert list(tmp_path.glob("convoy-files-*")) == []
    assert "Traceback" not in server.log.read_text()


def test_a_hundred_reloads_cost_no_request(server: RunningServer, root: Path, tmp_path: Path) -> None:
    """Every answer is right, and all of them are counted once, although they came from a hundred sessions."""
    with connect(server) as channel, connect(server) as asking:
        client = Client(channel)
        client.call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="m"))
        with Load(asking) as load:
            for factor in range(2, RELOADS + 2):
                (tmp_path / "next.onnx").write_bytes(model(factor))
                (tmp_path / "next.onnx").replace(root / "m" / "1" / "model.onnx")
                client.call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="m"))
            wait_until(lambda: load.answered(10 * (RELOADS + 1) + 1), 30)
        load.check()
        answers = sum(map(len, load.answers))
        assert client.statistics("m").inference_stats.success.count == answers
        assert client.statistics("m").inference_stats.fail.count == 0
    assert metric(server.metrics_url, "nv_inference_request_success", model="m") == answers
    assert metric(server.metrics_url, "convoy_model_load_success_total", model="m") == RELOADS + 1
    assert server.terminate() == 0


def test_wishes_that_conflict_are_carried_out_one_after_another(server: RunningServer) -> None:
    """Callers who load and unload one model all at once are all answered, and the last wish holds."""
    load, unload = (
        ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="m")),
        ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="m")),
    )
    with connect(server) as channel:
        client = Client(channel)
        wishes = [client.start(*wish) for _ in range(20) for wish in (load, unload)]
        assert [wish.exception() for wish in wishes] == [None] * 40
        client.call(*load)
        assert index(client) == {"1": ("READY", "")}
    assert server.terminate() == 0
    assert "Traceback" not in server.log.read_text()


def test_a_load_whose_caller_left_is_finished(large: str, server: RunningServer) -> None:
    with connect(server) as channel:
        client = Client(channel)
        call = client.start("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=large))
        wait_until(lambda: index(client, large).get("1", ("", ""))[0] == "LOADING", 30)
        call.cancel()
        wait_until(lambda: index(client, large) == {"1": ("READY", "")}, 30)
    assert server.terminate() == 0


def test_sigterm_gives_up_a_load_on_request(large: str, root: Path, start_engine: StartServer) -> None:
    server = start_engine(EXPLICIT, "--log-verbose=1", model_repository=root)
    with connect(server) as channel:
        load = Client(channel).start("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=large))
        wait_until(lambda: "large/1/model.onnx: being opened" in server.log.read_text(), 30)
        assert server.terminate() == 0, server.log.read_text()
        error = load.exception()
        assert error is not None and error.code() is grpc.StatusCode.UNAVAILABLE
    assert "Traceback" not in server.log.read_text()


def test_other_modes_load_nothing_on_request(start_server: StartServer, root: Path) -> None:
    server = start_server(model_repository=root)
    with tritongrpc.InferenceServerClient(server.grpc_address) as triton:
        assert refusal(triton, "m") == (
            "StatusCode.UNAVAILABLE",
            "explicit model load / unload is not allowed if polling is enabled",
        )
        assert "model_repository(load)" not in triton.get_server_metadata().extensions


def test_a_server_that_must_not_start_with_a_model_that_fails_does_not(root: Path) -> None:
    add_model(root, "broken", b"no model")
    flags = (f"--model-repository={root}", "--grpc-port=0", "--allow-http=false", "--allow-metrics=false")
    started = subprocess.run(
        [*SERVER, *flags, "--exit-on-error=true"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert started.returncode == 1
    assert "cannot start: failed to load all models" in started.stderr
    assert "broken/1/model.onnx" in started.stderr and "Traceback" not in started.stderr


def test_a_configuration_is_chosen_by_name(start_server: StartServer, root: Path) -> None:
    add_model(root, "plain", model(2), "max_batch_size: 6")
    (root / "m" / "configs").mkdir()
    (root / "m" / "configs" / "small.pbtxt").write_text("max_batch_size: 2")
    (root / "m" / "config.pbtxt").write_text("max_batch_size: 8")
    server = start_server("--model-config-name=small", "--exit-on-error", "true", model_repository=root)
    with tritongrpc.InferenceServerClient(server.grpc_address) as triton:
        sizes = [triton.get_model_config(name).config.max_batch_size for name in ("m", "plain")]
    assert sizes == [2, 6]
