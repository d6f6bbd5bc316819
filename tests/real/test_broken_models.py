"""Repositories with something wrong in them: each model fails alone and says why, and all others serve."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import Client, http_status, infer_request
from tests.real.conftest import RunningServer, StartServer, start
from tests.repositories import add_model

ROOT = Path(__file__).parents[2]
X = np.array([[7]], np.int64)

TENSOR = 'name: "{}" data_type: TYPE_INT64 dims: [ {} ]'

REASONS: dict[str, tuple[str, ...]] = {
    "truncated": ("truncated/1/model.onnx: is no ONNX model", "the file may be truncated"),
    "garbage": ("garbage/1/model.onnx: is no ONNX model",),
    "no_graph": ("no_graph/1/model.onnx: ONNX Runtime cannot load it",),
    "weights_elsewhere": ("weights_elsewhere/1/model.onnx: external data '../../", "outside of the model's folder"),
    "no_library": ("no_library/1/model.onnx: field 'model_operations.op_library_filename'", "invalid ELF header"),
    "library_elsewhere": ("library_elsewhere/../lib.so: lies outside of the model's folder",),
    "wrong_affinities": ("wrong_affinities/1/model.onnx: ONNX Runtime cannot load it", "affinities: 3"),
    "typo": ("typo/config.pbtxt: line 2:", "max_batchsize"),
    "no_such_value": ("no_such_value/config.pbtxt: line 3:", "TYPE_INT65"),
    "not_served": ("not_served/config.pbtxt: field 'model_metrics.metric_control'", "is not supported by this server"),
    "impossible": ("impossible/config.pbtxt: field 'dynamic_batching.preferred_batch_size'", "must be 1 to", "not 9"),
    "not_text": ("not_text/config.pbtxt", "is not UTF-8"),
    "empty_version": ("empty_version/1: the version folder is empty; put model.onnx into it",),
    "no_version": ("no_version: it has no version", "add a folder '1' with model.onnx"),
    "other_file": ("other_file/1/model.onnx: no such file", "the folder has: weights.onnx"),
    "wrong_dims": ("wrong_dims/config.pbtxt", "tensor 'x'", "expects shape [-1,1]", "specifies shape [-1,2]"),
    "wrong_input": ("wrong_input/config.pbtxt", "unexpected inference input 'z', allowed inputs are: x"),
    "wrong_name": ("wrong_name/config.pbtxt: field 'name' is 'another'",),
    "sequences": ("sequences/1/model.onnx: output 'y' is a seq(tensor(float))", "with a tensor in its place"),
    "no_labels": ("no_labels/labels.txt: no such label file",),
    "twice": ("model 'twice' is in more than one repository",),
    "way_out": ("way_out/1/model.onnx: lies outside of the model's folder",),
}


def tensors(dims: int = 1, input_name: str = "x", output: str = "") -> str:
    return f"input {{ {TENSOR.format(input_name, dims)} }} output {{ {TENSOR.format('y', dims)} {output} }}"


def write_broken(first: Path, second: Path) -> None:
    """One model for every entry of `REASONS`, and three good ones beside them."""
    good = onnx_models.affine()
    configs = {
        "typo": 'name: "typo"\nmax_batchsize: 8\n',
        "no_such_value": 'max_batch_size: 8\ninput {\n  name: "x" data_type: TYPE_INT65 dims: [ 1 ]\n}\n',
        "not_served": "max_batch_size: 8 model_metrics { metric_control { } }",
        "impossible": f"max_batch_size: 8 {tensors()} dynamic_batching {{ preferred_batch_size: [ 9 ] }}",
        "wrong_dims": f"max_batch_size: 8 {tensors(dims=2)}",
        "wrong_input": f"max_batch_size: 8 {tensors(input_name='z')}",
        "wrong_name": 'name: "another"',
        "no_library": 'model_operations { op_library_filename: "1/model.onnx" }',
        "library_elsewhere": 'model_operations { op_library_filename: "../lib.so" }',
        "wrong_affinities": """
            parameters { key: "intra_op_thread_count" value { string_value: "2" } }
            parameters { key: "session.intra_op_thread_affinities" value { string_value: "1;1;1" } }
        """,
        "no_labels": "max_batch_size: 8 " + tensors(output='label_filename: "labels.txt"'),
    }
    for name, config in configs.items():
        add_model(first, name, good, config)
    (add_model(first, "not_text", good) / "config.pbtxt").write_bytes(b'name: "\xff"')
    add_model(first, "truncated", good.SerializeToString()[:-40])
    add_model(first, "garbage", b"this is no model\n" * 100)
    add_model(first, "no_graph", b"\x08\x09")
    add_model(first, "weights_elsewhere", onnx_models.external_weights("../../weights.bin"))
    add_model(first, "sequences", onnx_models.sequence_output())
    add_model(first, "empty_version")
    add_model(first, "no_version", versions={})
    (add_model(first, "other_file") / "1" / "weights.onnx").write_bytes(good.SerializeToString())
    elsewhere = add_model(second, "elsewhere", good)
    (add_model(first, "way_out") / "1" / "model.onnx").symlink_to(elsewhere / "1" / "model.onnx")
    for root in (first, second):
        add_model(root, "twice", good)
    add_model(first, "good", good)
    add_model(first, "half", versions={1: good, 2: b"garbage"}, config="version_policy { all { } }")
    (first / "a file beside the models.txt").write_text("is no model")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    roots = tmp_path_factory.mktemp("broken"), tmp_path_factory.mktemp("second")
    write_broken(*roots)
    return roots


@pytest.fixture(scope="module")
def server(broken: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    flags = (f"--model-repository={broken[1]}", "--allow-custom-ops=true")
    server = start(tmp_path_factory.mktemp("server"), *flags, model_repository=broken[0])
    yield server
    assert server.terminate() == 0


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield Client(channel)


def index(client: Client) -> dict[tuple[str, str], tuple[str, str]]:
    models = client.call("RepositoryIndex", pb.RepositoryIndexRequest()).models
    return {(model.name, model.version): (model.state, model.reason) for model in models}


@pytest.mark.parametrize("model", REASONS)
def test_a_broken_model_says_why_in_the_index_and_in_the_log(model: str, client: Client, server: RunningServer) -> None:
    ((state, reason),) = (line for (name, _), line in index(client).items() if name == model)
    logged = [line for line in server.log.read_text().splitlines() if f"model '{model}'" in line and " E " in line]

    assert state == "UNAVAILABLE"
    for part in REASONS[model]:
        assert part in reason
        assert any(part in line for line in logged), logged


@pytest.mark.parametrize("model", REASONS)
def test_a_broken_model_answers_that_it_cannot_serve(model: str, client: Client) -> None:
    refusal = client.refusal("ModelInfer", infer_request(model, {"x": X}))

    assert refusal.status is grpc.StatusCode.NOT_FOUND
    assert refusal.message == f"Request for unknown model: '{model}' has no available versions"


@pytest.mark.parametrize("model", ["good", "elsewhere", "half"])
def test_the_others_serve(model: str, client: Client) -> None:
    assert client.infer(model, {"x": X})["y"].item() == 22


def test_a_broken_version_is_not_ready_and_the_version_beside_it_serves(client: Client) -> None:
    assert index(client)["half", "1"] == ("READY", "")
    assert index(client)["half", "2"][0] == "UNAVAILABLE"
    refusal = client.refusal("ModelInfer", infer_request("half", {"x": X}, model_version="2"))
    assert refusal.status is grpc.StatusCode.UNAVAILABLE
    assert refusal.message == "Request for unknown model: 'half' version 2 is not at ready state"


def test_the_index_of_what_is_ready_leaves_the_broken_out(client: Client) -> None:
    models = client.call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True)).models

    assert {(model.name, model.version) for model in models} == {("elsewhere", "1"), ("good", "1"), ("half", "1")}


def test_no_traceback_is_logged_for_a_users_mistake(server: RunningServer) -> None:
    assert "Traceback" not in server.log.read_text()


def test_a_server_with_a_broken_model_is_not_ready_under_strict_readiness(
    client: Client, server: RunningServer
) -> None:
    assert http_status(f"{server.http_url}/v2/health/live") == 200
    assert http_status(f"{server.http_url}/v2/health/ready") == 400
    assert not client.call("ServerReady", pb.ServerReadyRequest()).ready


def test_a_server_with_a_broken_model_is_ready_without_strict_readiness(
    broken: tuple[Path, Path], start_server: StartServer
) -> None:
    server = start_server("--strict-readiness=false", model_repository=broken[0])

    assert http_status(f"{server.http_url}/v2/health/ready") == 200
    with grpc.insecure_channel(server.grpc_address) as channel:
        assert Client(channel).call("ServerReady", pb.ServerReadyRequest()).ready


def test_explicit_mode_loads_what_is_named_and_misses_what_is_not_there(
    broken: tuple[Path, Path], start_server: StartServer
) -> None:
    explicit = ("--model-control-mode", "explicit", "--load-model", "good")
    server = start_server(*explicit, model_repository=broken[0])
    assert http_status(f"{server.http_url}/v2/health/ready") == 200  # the broken ones are not asked for
    with grpc.insecure_channel(server.grpc_address) as channel:
        client = Client(channel)
        assert client.infer("good", {"x": X})["y"].item() == 22
        assert index(client)["half", ""] == ("", "")
        assert client.refusal("ModelInfer", infer_request("half", {"x": X})).status is grpc.StatusCode.NOT_FOUND

    server = start_server(*explicit, "--load-model=missing", model_repository=broken[0])
    assert http_status(f"{server.http_url}/v2/health/ready") == 400
    with grpc.insecure_channel(server.grpc_address) as channel:
        state, reason = index(Client(channel))["missing", ""]
        assert state == "UNAVAILABLE"
        assert "no repository has a model 'missing'" in reason


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    """A server that does not get as far as serving."""
    addresses = ("--grpc-address=127.0.0.1", "--http-address=127.0.0.1")
    command = [sys.executable, "-m", "server", *addresses, *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


FREE_PORTS = ("--grpc-port=0", "--http-port=0", "--metrics-port=0")


def test_a_missing_repository_is_exit_status_1_and_a_sentence(tmp_path: Path) -> None:
    ended = run(*FREE_PORTS, f"--model-repository={tmp_path}/nowhere")

    assert ended.returncode == 1
    assert f"cannot start: --model-repository {tmp_path}/nowhere: does not exist" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("listener", ["grpc", "http", "metrics"])
def test_a_port_in_use_is_exit_status_1_and_a_sentence(listener: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = [flag for flag in FREE_PORTS if listener not in flag]
        ended = run(*ports, f"--{listener}-port={port}", f"--model-repository={tmp_path}")

    assert ended.returncode == 1
    assert f"cannot start: cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--model-repository"),
        (("--model-repository=.", "--grpc-port=70000"), "must be a port number from 0 to 65535, not '70000'"),
        (("--model-repository=.", "--strict-readiness=maybe"), "must be true or false, not 'maybe'"),
        (("--model-repository=.", "--load-model=x"), "--load-model needs --model-control-mode=explicit"),
        (("--model-repository=.", "--modle-control-mode=none"), "unrecognized arguments: --modle-control-mode=none"),
        (("--model-repository=.", "--log-format=xml"), "--log-format"),
    ],
)
def test_a_wrong_flag_is_exit_status_2_and_a_sentence(flags: tuple[str, ...], message: str) -> None:
    ended = run(*flags)

    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_file_that_cannot_be_written_is_exit_status_1_and_a_sentence(tmp_path: Path) -> None:
    file = f"{tmp_path}/none/ports.json"
    ended = run(*FREE_PORTS, f"--model-repository={tmp_path}", f"--ports-file={file}")

    assert ended.returncode == 1
    assert f"cannot start: --ports-file {file}: No such file or directory" in ended.stderr
    assert "Traceback" not in ended.stderr
