"""tritonclient's four clients, unmodified: every public method, and every way to ask for an inference."""

from __future__ import annotations

import queue
import urllib.request
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
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
from tests.real.triton_clients import NAMES, TritonClient, public_methods
from tests.repositories import add_model

A = np.array([[1, 2, 3, 4]], np.float32)
B = np.array([[10, 20, 30, 40]], np.float32)
SUM = A + B

VERBS = (("register", ""), ("unregister", ""), ("get", "_status"))
"""What is done with shared memory: how the names of its methods begin and end."""


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


def tell_of_server(client: TritonClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.show("get_server_metadata")
    assert (metadata["name"], metadata["version"]) == ("convoy", __version__)
    assert {"binary_tensor_data", "classification", "statistics", "model_repository"} <= set(metadata["extensions"])


def tell_of_models(client: TritonClient) -> None:
    assert client.is_model_ready("add_sub")
    assert client.is_model_ready("add_sub", "1")
    metadata = client.show("get_model_metadata", "add_sub", "1")
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["a", "b"]
    config = client.show("get_model_config", "add_sub", "1")
    assert (config["config"] if client.over_grpc else config)["max_batch_size"] == 8
    index = client.show("get_model_repository_index")
    assert {"name": "add_sub", "version": "1", "state": "READY"} in (index["models"] if client.over_grpc else index)


def count(client: TritonClient) -> None:
    def counted() -> int:
        (model,) = client.show("get_inference_statistics", "add_sub", "1")["model_stats"]
        return int(model.get("inference_count", 0))

    before = counted()
    infer_sum(client)
    assert counted() == before + 1


def load_and_unload(client: TritonClient) -> None:
    x = client.tensor("x", np.array([[2]], np.int64))
    client.unload_model("affine", unload_dependents=True)
    assert "'affine'" in failure(client.infer, "affine", [x])
    client.load_model("affine", config='{"backend": "onnxruntime", "max_batch_size": 2}')
    assert "batch-size must be <= 2" in failure(
        client.infer, "affine", [client.tensor("x", np.zeros((3, 1), np.int64))]
    )
    file = onnx_models.affine(offset=5).SerializeToString()
    client.load_model("affine", config="{}", files={"file:1/model.onnx": file})
    assert client.infer("affine", [x]).as_numpy("y").item() == 11
    client.load_model("affine")
    assert client.infer("affine", [x]).as_numpy("y").item() == 7


def set_traces(client: TritonClient) -> None:
    def rate(shown: Mapping[str, Any]) -> str:
        return shown["settings"]["trace_rate"]["value"][0] if client.over_grpc else shown["trace_rate"]

    assert rate(client.show("get_trace_settings", "add_sub")) == "1000"
    assert rate(client.show("update_trace_settings", "add_sub", {"trace_rate": "7"})) == "7"
    assert rate(client.show("get_trace_settings")) == "1000"
    assert rate(client.show("update_trace_settings", "add_sub", {"trace_rate": None})) == "1000"


def set_logs(client: TritonClient) -> None:
    def level(shown: Mapping[str, Any]) -> int:
        setting = shown["settings"]["log_verbose_level"]["uint32_param"] if client.over_grpc else None
        return shown["log_verbose_level"] if setting is None else setting

    assert level(client.show("update_log_settings", {"log_verbose_level": 1})) == 1
    assert level(client.show("get_log_settings")) == 1
    assert level(client.show("update_log_settings", {"log_verbose_level": 0})) == 0


def share_memory(client: TritonClient) -> None:
    key, region = f"/convoy_test_{uuid4().hex}", f"region {client.name}"
    handle = shared_memory.create_shared_memory_region("unused", key, 2 * A.nbytes, create_only=True)
    try:
        shared_memory.set_shared_memory_region(handle, [A])
        client.register_system_shared_memory(region, key, 2 * A.nbytes)
        status = client.show("get_system_shared_memory_status", region)
        (shown,) = status["regions"].values() if client.over_grpc else status
        assert (shown["name"], shown["key"], int(shown["byte_size"])) == (region, key, 2 * A.nbytes)
        a = client.module.InferInput("a", [1, 4], "FP32")
        a.set_shared_memory(region, A.nbytes)
        total = client.output("sum")
        total.set_shared_memory(region, A.nbytes, A.nbytes)
        client.infer("add_sub", [a, client.tensor("b", B)], outputs=[total])
        assert (shared_memory.get_contents_as_numpy(handle, np.float32, [1, 4], A.nbytes) == SUM).all()
    finally:
        client.unregister_system_shared_memory(region)
        shared_memory.destroy_shared_memory_region(handle)
    assert region in failure(client.get_system_shared_memory_status, region)


def share_memory_of_a_gpu(client: TritonClient) -> None:
    """As far as it goes without one: `tests/gpu` goes on."""
    assert not client.show("get_cuda_shared_memory_status")
    assert "GPUs not supported" in failure(client.register_cuda_shared_memory, "r", b64encode(bytes(64)), 0, 64)
    client.unregister_cuda_shared_memory()


def infer_at_once(client: TritonClient) -> None:
    infer_sum(client)


def infer_meanwhile(client: TritonClient) -> None:
    if client.over_grpc:
        answers: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        client.async_infer("add_sub", add_sub_inputs(client), lambda result, error: answers.put((result, error)))
        result, error = answers.get(timeout=CALL_SECONDS)
        assert error is None
    else:
        result = client.async_infer("add_sub", add_sub_inputs(client)).get_result(timeout=CALL_SECONDS)
    assert (result.as_numpy("sum") == SUM).all()


def stream(client: TritonClient) -> None:
    answers: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for index in range(3):
        client.async_stream_infer("add_sub", add_sub_inputs(client), request_id=str(index))
    client.async_stream_infer("nobody", add_sub_inputs(client))
    told = [answers.get(timeout=CALL_SECONDS) for _ in range(4)]
    client.stop_stream()
    results = {result.get_response().id: result.as_numpy("sum").tolist() for result, _ in told if result}
    assert results == dict.fromkeys("012", SUM.tolist())
    (error,) = (error for _, error in told if error)
    assert "'nobody' is not found" in str(error)


def stream_of_coroutines(client: TritonClient) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for index in range(3):
            yield {"model_name": "add_sub", "inputs": add_sub_inputs(client), "request_id": str(index)}

    async def answers() -> dict[str, Any]:
        told = [pair async for pair in client.stream_infer(requests())]
        assert [error for _, error in told] == [None] * 3
        return {result.get_response().id: result.as_numpy("sum").tolist() for result, _ in told}

    assert client.run(answers()) == dict.fromkeys("012", SUM.tolist())


def exchange_bodies(client: TritonClient) -> None:
    body, length = client.generate_request_body(add_sub_inputs(client))
    headers = {"Inference-Header-Content-Length": str(length)}
    request = urllib.request.Request(f"{client.http_url}/v2/models/add_sub/infer", body, headers)
    with urllib.request.urlopen(request, timeout=CALL_SECONDS) as response:
        length = response.headers["Inference-Header-Content-Length"]
        result = client.parse_response_body(response.read(), header_length=length and int(length))
    assert (result.as_numpy("sum") == SUM).all()


def plug_in(client: TritonClient) -> None:
    class Counting(InferenceServerClientPlugin):
        calls = 0

        def __call__(self, request: Any) -> None:
            request.headers["x-counted"] = "yes"
            self.calls += 1

    plugin = Counting()
    client.register_plugin(plugin)
    assert client.plugin() is plugin
    infer_sum(client)
    client.unregister_plugin()
    infer_sum(client)
    assert plugin.calls == 1


def close_and_open(client: TritonClient) -> None:
    other = client.another()
    infer_sum(other)
    other.end()
    client.called |= other.called


EXERCISES: Mapping[str, Callable[[TritonClient], None]] = {
    **dict.fromkeys(("is_server_live", "is_server_ready", "get_server_metadata"), tell_of_server),
    **dict.fromkeys(
        ("is_model_ready", "get_model_metadata", "get_model_config", "get_model_repository_index"), tell_of_models
    ),
    "get_inference_statistics": count,
    **dict.fromkeys(("load_model", "unload_model"), load_and_unload),
    **dict.fromkeys(("get_trace_settings", "update_trace_settings"), set_traces),
    **dict.fromkeys(("get_log_settings", "update_log_settings"), set_logs),
    **{f"{verb}_system_shared_memory{rest}": share_memory for verb, rest in VERBS},
    **{f"{verb}_cuda_shared_memory{rest}": share_memory_of_a_gpu for verb, rest in VERBS},
    "infer": infer_at_once,
    "async_infer": infer_meanwhile,
    **dict.fromkeys(("start_stream", "async_stream_infer", "stop_stream"), stream),
    "stream_infer": stream_of_coroutines,
    **dict.fromkeys(("generate_request_body", "parse_response_body"), exchange_bodies),
    **dict.fromkeys(("register_plugin", "plugin", "unregister_plugin"), plug_in),
    "close": close_and_open,
}
"""Public method of a client → what is done with it, and with those that it makes sense with."""

USES = list(
    dict.fromkeys((name, EXERCISES[method]) for name in NAMES for method in public_methods(name) if method in EXERCISES)
)


@pytest.mark.parametrize(
    ("open_client", "exercise"), USES, indirect=["open_client"], ids=lambda value: getattr(value, "__name__", value)
)
def test_what_clients_do_works(client: TritonClient, exercise: Callable[[TritonClient], None]) -> None:
    exercise(client)
    own = {method for method in public_methods(client.name) if EXERCISES[method] is exercise}
    assert client.called >= own, "a public method that its exercise leaves out"


def test_every_public_method_of_every_client_is_exercised() -> None:
    methods = {method for name in NAMES for method in public_methods(name)}
    assert methods == set(EXERCISES)


def test_the_request_id_and_the_version_come_back(client: TritonClient) -> None:
    answer = answer_of(client, infer_sum(client, model_version="1", request_id="nº 7"))
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("nº 7", "add_sub", "1")


def test_outputs_come_as_they_are_asked_for(client: TritonClient) -> None:
    result = infer_sum(client, outputs=[client.output("difference"), client.output("sum")])
    assert [output["name"] for output in answer_of(client, result)["outputs"]] == ["difference", "sum"]


@pytest.mark.parametrize("open_client", ["http", "http.aio"], indirect=True)
@pytest.mark.parametrize(("binary_input", "binary_output"), [(False, False), (False, True), (True, False)])
def test_tensors_may_be_json(client: TritonClient, binary_input: bool, binary_output: bool) -> None:
    inputs = add_sub_inputs(client, binary_data=binary_input)
    result = client.infer("add_sub", inputs, outputs=[client.output("sum", binary_data=binary_output)])
    assert (result.as_numpy("sum") == SUM).all()


def test_classes_come_with_their_labels(client: TritonClient) -> None:
    x = client.tensor("x", np.array([[0.5, 2, 1, 4]], np.float32))
    result = client.infer("scores", [x], outputs=[client.output("y", class_count=2)])
    assert result.as_numpy("y").tolist() == [[b"4.000000:3", b"2.000000:1:dog"]]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_messages_may_be_compressed(client: TritonClient, algorithm: str) -> None:
    names = ("compression_algorithm",)
    if not client.over_grpc:
        names = ("request_compression_algorithm", "response_compression_algorithm")
    infer_sum(client, **dict.fromkeys(names, algorithm))


def test_headers_and_parameters_are_taken(client: TritonClient) -> None:
    parameters = {"text": "yes", "whole": 7, "switch": True}
    infer_sum(client, headers={"x-request-origin": "test"}, parameters=parameters)


def test_a_priority_is_taken(client: TritonClient) -> None:
    infer_sum(client, priority=1)


def test_a_timeout_is_kept_to(client: TritonClient) -> None:
    assert "Request timeout expired" in failure(client.infer, "held", [client.tensor("x", A)], timeout=1000)


@pytest.mark.parametrize("open_client", ["grpc", "grpc.aio"], indirect=True)
def test_a_deadline_of_the_clients_own_is_kept_to(client: TritonClient) -> None:
    assert "Deadline" in failure(client.infer, "held", [client.tensor("x", A)], client_timeout=0.1)


@pytest.mark.parametrize("sequence_id", [11, "eleven"])
def test_requests_of_a_sequence_add_up(client: TritonClient, sequence_id: int | str) -> None:
    x, sums = client.tensor("x", np.array([[2]], np.float32)), []
    for index in range(3):
        ends = {"sequence_start": index == 0, "sequence_end": index == 2}
        sums.append(client.infer("sums", [x], sequence_id=sequence_id, **ends).as_numpy("y").item())
    assert sums == [2, 4, 6]


def test_failures_are_told_with_their_status(client: TritonClient) -> None:
    with pytest.raises(InferenceServerException, match="unknown model: 'nobody' is not found") as caught:
        client.infer("nobody", add_sub_inputs(client))
    assert caught.value.status() == ("StatusCode.NOT_FOUND" if client.over_grpc else "404")
