"""tritonclient's two HTTP clients, unmodified: every operation, every datatype, both forms of tensors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http
import tritonclient.http.aio
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from proto import grpc_service_pb2 as pb
from server import __version__
from server.frontends.calls import StatusCode
from server.frontends.rest.exchange import HTTP_STATUSES
from tests import onnx_models
from tests.real.clients import WAIT_SECONDS, Client, read_url
from tests.real.conftest import RunningServer, StartServer, connect, start
from tests.real.test_tensors import EXTREMES
from tests.real.waiting import wait_until
from tests.real.zoo import write_zoo
from tests.repositories import add_model

JSON_VALUES: dict[str, np.ndarray[Any, Any]] = {
    **{name: values for name, values in EXTREMES.items() if name not in ("FP16", "BF16")},
    "FP32": np.array([[-0.0, 1e-45, 0.1, -3.4e38]], np.float32),
    "FP64": np.array([[-0.0, 5e-324, 0.1, 1.7e308]], np.float64),
}
"""What JSON can say."""


@pytest.fixture(scope="module")
def http_zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = write_zoo(tmp_path_factory.mktemp("zoo"))
    server = start(tmp_path_factory.mktemp("http_zoo"), "--http-metrics=true", model_repository=root)
    yield server
    assert server.terminate() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


class Waiting:
    """The asyncio client, one operation at a time."""

    def __init__(self, address: str) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._make(address))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(self._client, name)
        return lambda *arguments, **options: self._runner.run(operation(*arguments, **options))

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    @staticmethod
    async def _make(address: str) -> Any:
        return tritonclient.http.aio.InferenceServerClient(address)


CLIENTS = (tritonclient.http.InferenceServerClient, Waiting)


@pytest.fixture(params=CLIENTS, ids=["http", "http.aio"])
def client(request: pytest.FixtureRequest, http_zoo: RunningServer) -> Iterator[Any]:
    client = request.param(http_zoo.http_url.removeprefix("http://"))
    yield client
    client.close()


def tensor(name: str, values: np.ndarray[Any, Any], *, binary: bool = True) -> InferInput:
    tensor = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def failure(operation: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[str, str]:
    """Status and message."""
    with pytest.raises(InferenceServerException) as caught:
        operation(*arguments, **options)
    return caught.value.status() or "", caught.value.message()


def same(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    if one.dtype == np.object_:  # the client makes str of JSON's strings, and bytes of binary data
        return [[e.encode() if isinstance(e, str) else e for e in row] for row in one.tolist()] == other.tolist()
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("datatype", EXTREMES)
def test_every_datatype_comes_back_bit_for_bit_as_binary_data(datatype: str, client: Any) -> None:
    x = EXTREMES[datatype]
    result = client.infer(f"identity_{datatype.lower()}", [tensor("x", x)])
    assert same(result.as_numpy("y"), x)


@pytest.mark.parametrize("datatype", JSON_VALUES)
@pytest.mark.parametrize("binary_output", [False, True])
def test_every_datatype_comes_back_bit_for_bit_as_json(datatype: str, binary_output: bool, client: Any) -> None:
    x = JSON_VALUES[datatype]
    outputs = [InferRequestedOutput("y", binary_data=binary_output)]
    result = client.infer(f"identity_{datatype.lower()}", [tensor("x", x, binary=False)], outputs=outputs)
    assert same(result.as_numpy("y"), x)


def test_inputs_and_outputs_may_be_of_both_forms(client: Any) -> None:
    a, b = np.full((2, 4), 3, np.float32), np.full((2, 4), 5, np.float32)
    outputs = [InferRequestedOutput("difference", binary_data=True), InferRequestedOutput("sum", binary_data=False)]
    result = client.infer("add_sub", [tensor("a", a), tensor("b", b, binary=False)], outputs=outputs, request_id="7")
    assert result.get_response()["id"] == "7"
    assert [output["name"] for output in result.get_response()["outputs"]] == ["difference", "sum"]
    assert (result.as_numpy("sum") == 8).all()
    assert (result.as_numpy("difference") == -2).all()


def test_a_version_can_be_named(client: Any) -> None:
    x = tensor("x", np.array([[1]], np.int64))
    assert client.infer("versions_all", [x], model_version="2").as_numpy("y").item() == 5
    assert client.infer("versions_all", [x]).get_response()["model_version"] == "10"


@pytest.mark.parametrize("binary", [False, True])
def test_classes_come_with_their_labels(binary: bool, client: Any) -> None:
    outputs = [InferRequestedOutput("y", binary_data=binary, class_count=2)]
    x = tensor("x", np.array([[0.5, 2, 1, 4]], np.float32))
    top = client.infer("scores", [x], outputs=outputs).as_numpy("y").tolist()
    assert top in ([[b"4.000000:3", b"2.000000:1:dog"]], [["4.000000:3", "2.000000:1:dog"]])


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_bodies_may_be_compressed_both_ways(algorithm: str, client: Any) -> None:
    x = np.zeros((4, 1000), np.float32)
    result = client.infer(
        "identity_fp32",
        [tensor("x", x)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert same(result.as_numpy("y"), x)


def test_a_large_body_arrives_in_many_reads(client: Any) -> None:
    x = np.random.default_rng(1).random((4, 30_000))
    assert same(client.infer("identity_fp64", [tensor("x", x)]).as_numpy("y"), x)


def test_a_server_tells_what_it_is(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert (metadata["name"], metadata["version"]) == ("convoy", __version__)
    assert "binary_tensor_data" in metadata["extensions"]


def test_a_server_tells_of_its_models(client: Any) -> None:
    assert client.is_model_ready("versions_all", "2")
    assert not client.is_model_ready("versions_all", "3")
    assert not client.is_model_ready("nobody")
    assert client.get_model_metadata("add_sub") == {
        "name": "add_sub",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": name, "datatype": "FP32", "shape": [-1, 4]} for name in ("a", "b")],
        "outputs": [{"name": name, "datatype": "FP32", "shape": [-1, 4]} for name in ("sum", "difference")],
    }
    config = client.get_model_config("add_sub")
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (8, [4])
    assert {"name": "add_sub", "version": "1", "state": "READY"} in client.get_model_repository_index()


def test_what_is_counted_is_exact(client: Any, http_zoo: RunningServer) -> None:
    def counted() -> tuple[int, int, int]:
        (model,) = client.get_inference_statistics("scalar")["model_stats"]
        stats = model["inference_stats"]
        return model["inference_count"], stats["success"]["count"], stats["fail"]["count"]

    def requests(status: int) -> int:
        line = f'convoy_http_requests_total{{method="POST",route="/v2/models/{{model}}/infer",status="{status}"}} '
        page = read_url(f"{http_zoo.http_url}/metrics")
        return sum(int(each.removeprefix(line)) for each in page.splitlines() if each.startswith(line))

    before, requests_before = counted(), (requests(200), requests(400))
    for _ in range(5):
        client.infer("scalar", [tensor("x", np.zeros((3, 1), np.float32))])
        failure(client.infer, "scalar", [tensor("x", np.zeros((3, 1), np.int8))])
    assert np.subtract(counted(), before).tolist() == [15, 5, 5]
    assert np.subtract((requests(200), requests(400)), requests_before).tolist() == [5, 5]


def test_settings_are_shown_and_changed(client: Any) -> None:
    assert client.get_trace_settings()["trace_rate"] == "1000"
    assert client.update_trace_settings("add_sub", {"trace_rate": "7"})["trace_rate"] == "7"
    assert client.update_trace_settings("add_sub", {"trace_rate": None})["trace_rate"] == "1000"
    assert client.get_log_settings()["log_verbose_level"] == 0
    assert client.update_log_settings({"log_verbose_level": 1})["log_verbose_level"] == 1
    assert client.update_log_settings({"log_verbose_level": 0})["log_verbose_level"] == 0


@pytest.mark.parametrize(
    ("model", "version", "values", "status", "message"),
    [
        ("nobody", "", np.zeros((1, 3), np.float32), "404", "Request for unknown model: 'nobody' is not found"),
        ("a b%2f..", "", np.zeros((1, 3), np.float32), "404", "Request for unknown model: 'a b%2f..' is not found"),
        ("identity_fp32", "9", np.zeros((1, 3), np.float32), "404", "version 9 is not found"),
        ("identity_fp32", "x", np.zeros((1, 3), np.float32), "400", "failed to get model version"),
        ("identity_fp32", "", np.zeros((1, 3), np.int8), "400", "data-type is 'INT8', but model"),
        ("identity_fp32", "", np.zeros((9, 3), np.float32), "400", "batch-size must be <= 4"),
        ("identity_fp32", "", np.zeros((3,), np.float32), "400", "unexpected shape for input 'x'"),
        ("lookup", "", np.array([[99]], np.int64), "500", "99"),
    ],
)
def test_what_goes_wrong_is_said_as_over_grpc(
    model: str, version: str, values: np.ndarray[Any, Any], status: str, message: str, client: Any
) -> None:
    got_status, got_message = failure(client.infer, model, [tensor("x", values)], model_version=version)
    assert got_status == status
    assert message in got_message


@pytest.mark.parametrize(
    "operation",
    [
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.register_system_shared_memory("r", "/k", 64),
        lambda client: client.unregister_system_shared_memory("r"),
        lambda client: client.get_cuda_shared_memory_status(),
        lambda client: client.register_cuda_shared_memory("r", b"aGFuZGxl", 0, 64),
        lambda client: client.unregister_cuda_shared_memory(),
    ],
)
def test_what_is_not_offered_is_said_to_be_so(operation: Callable[[Any], Any], client: Any) -> None:
    assert failure(operation, client)[0] == "501"


@pytest.mark.parametrize("operation", ["Load", "Unload"])
def test_loads_and_unloads_are_answered_as_over_grpc(operation: str, client: Any, http_zoo: RunningServer) -> None:
    request = getattr(pb, f"RepositoryModel{operation}Request")(model_name="nobody")
    with connect(http_zoo) as channel:
        refusal = Client(channel).refusal(f"RepositoryModel{operation}", request)
    status = HTTP_STATUSES[StatusCode[refusal.status.name]]
    over_http = failure(getattr(client, f"{operation.lower()}_model"), "nobody")
    assert over_http == (str(status.value), refusal.message)


def test_models_are_loaded_and_unloaded_on_request(start_server: StartServer, tmp_path: Path) -> None:
    add_model(tmp_path, "affine", onnx_models.affine())
    server = start_server("--model-control-mode=explicit", model_repository=tmp_path)
    for make in CLIENTS:
        client = make(server.http_url.removeprefix("http://"))
        client.load_model("affine")
        assert client.infer("affine", [tensor("x", np.array([[2]], np.int64))]).as_numpy("y").item() == 7
        client.unload_model("affine", unload_dependents=True)
        wait_until(lambda client=client: not client.is_model_ready("affine"), WAIT_SECONDS)
        file = onnx_models.affine(offset=5).SerializeToString()
        client.load_model("sent", config='{"backend": "onnxruntime"}', files={"file:1/model.onnx": file})
        assert client.infer("sent", [tensor("x", np.array([[2]], np.int64))]).as_numpy("y").item() == 11
        client.unload_model("sent")
        client.close()
