"""tritonclient's four clients, unmodified: every public method, and every way to ask for an inference."""

from __future__ import annotations

import queue
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClientPlugin
from tritonclient.utils import InferenceServerException, shared_memory

from server import __version__
from tests import onnx_models
from tests.real.clients import CALL_SECONDS
from tests.real.conftest import ENGINES, RunningServer, start
from tests.real.triton_clients import NAMES, TritonClient, client_module, public_methods
from tests.repositories import add_model

A = np.array([[1, 2, 3, 4]], np.float32)
B = np.array([[10, 20, 30, 40]], np.float32)
SUM = A + B


@pytest.fixture(scope="module")
def server(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that allows all that a client can ask for."""
    flags = ("--model-control-mode=explicit", "--load-model=*", "--allow-client-shm=true")
    root = write_repository(tmp_path_factory.mktemp("models"))
    server = start(tmp_path_factory.mktemp("server"), *ENGINES[engine], *flags, model_repository=root)
    yield server
    assert server.terminate() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


def write_repository(root: Path) -> Path:
    priorities = "priority_levels: 2 default_priority_level: 2"
    overridden = "default_queue_policy { default_timeout_microseconds: 60000000 allow_timeout_override: true }"
    add_model(root, "add_sub", onnx_models.add_sub(), f"max_batch_size: 8 dynamic_batching {{ {priorities} }}")
    held = f"max_batch_size: 8 dynamic_batching {{ max_queue_delay_microseconds: 60000000 {overridden} }}"
    add_model(root, "held", onnx_models.identity("FP32", ("N", 4)), held)
    tensor = "data_type: TYPE_FP32 dims: [ 4 ]"
    labelled = f'output {{ name: "y" {tensor} label_filename: "labels.txt" }}'
    scores = f'max_batch_size: 8 input {{ name: "x" {tensor} }} {labelled}'
    add_model(root, "scores", onnx_models.identity("FP32", ("N", 4)), scores, files={"labels.txt": "cat\ndog\nowl"})
    state = 'state { input_name: "total_in" output_name: "total_out" data_type: TYPE_FP32 dims: [ 1 ] }'
    add_model(root, "sums", onnx_models.accumulator(), f"max_batch_size: 4 sequence_batching {{ {state} }}")
    add_model(root, "affine", onnx_models.affine())
    return root


@pytest.fixture(scope="module", params=NAMES)
def open_client(request: pytest.FixtureRequest, server: RunningServer) -> Iterator[TritonClient]:
    client = TritonClient(request.param, server)
    yield client
    client.end()


@pytest.fixture
def client(open_client: TritonClient) -> TritonClient:
    """One of the four clients, with no operation called yet."""
    open_client.called.clear()
    return open_client


def add_sub_inputs(client: TritonClient, **form: Any) -> list[Any]:
    return [client.tensor("a", A, **form), client.tensor("b", B, **form)]


def infer_sum(client: TritonClient, **options: Any) -> Any:
    """The result of an inference, whose sum is as it must be."""
    result = client.infer("add_sub", add_sub_inputs(client), **options)
    assert (result.as_numpy("sum") == SUM).all()
    return result


def answer_of(client: TritonClient, result: Any) -> Mapping[str, Any]:
    """The answer without its tensors' data, in JSON's terms."""
    return result.get_response(as_json=True) if client.over_grpc else result.get_response()


def failure(operation: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(InferenceServerException) as caught:
        operation(*arguments, **options)
    return caught.value.message() or ""


def test_the_server_tells_what_it_is(client: TritonClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.show("get_server_metadata")
    assert (metadata["name"], metadata["version"]) == ("convoy", __version__)
    assert "binary_tensor_data" in metadata["extensions"]
