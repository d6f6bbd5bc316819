"""Every operation as users of `tritonclient` see it: its synchronous and asyncio clients, and the raw messages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from proto import grpc_service_pb2 as pb
from tests.real.clients import SERVICE, Client, arrays, infer_request, refusal_of

if TYPE_CHECKING:
    from tests.real.conftest import RunningServer


@pytest.fixture
def sync_client(zoo: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(zoo.grpc_address) as client:
        yield client


def infer_input(name: str, datatype: str, array: np.ndarray[Any, Any], module: Any = triton) -> Any:
    tensor = module.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def names(tensors: Any) -> list[tuple[str, str, list[int]]]:
    return [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in tensors]


def add_sub_inputs(module: Any = triton) -> list[Any]:
    a, b = np.array([[1, 2, 3, 4]], np.float32), np.array([[10, 20, 30, 40]], np.float32)
    return [infer_input("a", "FP32", a, module), infer_input("b", "FP32", b, module)]


def test_the_server_is_live_and_ready(sync_client: triton.InferenceServerClient) -> None:
    assert sync_client.is_server_live()
    assert sync_client.is_server_ready()


def test_a_model_is_ready_by_name_and_by_version(sync_client: triton.InferenceServerClient) -> None:
    assert sync_client.is_model_ready("add_sub")
    assert sync_client.is_model_ready("add_sub", "1")


def test_the_server_tells_its_name_and_extensions(sync_client: triton.InferenceServerClient) -> None:
    metadata = sync_client.get_server_metadata()

    assert metadata.name == "convoy"
    assert metadata.version
    assert {"classification", "statistics", "binary_tensor_data", "model_configuration"} <= set(metadata.extensions)


def test_metadata_describes_inputs_and_outputs_with_their_batch_axis(sync_client: triton.InferenceServerClient) -> None:
    metadata = sync_client.get_model_metadata("add_sub")

    assert (metadata.name, list(metadata.versions), metadata.platform) == ("add_sub", ["1"], "onnxruntime_onnx")
    assert names(metadata.inputs) == [("a", "FP32", [-1, 4]), ("b", "FP32", [-1, 4])]
    assert names(metadata.outputs) == [("sum", "FP32", [-1, 4]), ("difference", "FP32", [-1, 4])]


def test_metadata_of_a_model_without_a_batch_axis_has_its_whole_shape(
    sync_client: triton.InferenceServerClient,
) -> None:
    assert names(sync_client.get_model_metadata("whole").inputs) == [("x", "FP32", [2, 3])]


def test_the_config_is_completed_from_the_graph(sync_client: triton.InferenceServerClient) -> None:
    config = sync_client.get_model_config("identity_fp32").config

    assert (config.name, config.platform, config.max_batch_size) == ("identity_fp32", "onnxruntime_onnx", 4)
    assert [(tensor.name, list(tensor.dims)) for tensor in config.input] == [("x", [-1])]
    assert config.HasField("dynamic_batching")


def test_the_index_lists_every_version_that_should_serve(sync_client: triton.InferenceServerClient) -> None:
    index = sync_client.get_model_repository_index().models

    assert {(model.state, model.reason) for model in index} == {("READY", "")}
    assert [model.version for model in index if model.name == "versions_latest"] == ["2", "10"]
    assert [model.name for model in index] == sorted(model.name for model in index)


def test_an_index_of_another_repository_is_not_offered(client: Client) -> None:
    refusal = client.refusal("RepositoryIndex", pb.RepositoryIndexRequest(repository_name="elsewhere"))

    assert (refusal.status.name, refusal.message) == (
        "UNIMPLEMENTED",
        "'repository_name' specification is not supported",
    )


def test_statistics_count_requests_and_rows(sync_client: triton.InferenceServerClient) -> None:
    x = infer_input("x", "FP32", np.ones((2, 6), np.float32))
    before = sync_client.get_inference_statistics("reshaped").model_stats[0]
    for _ in range(3):
        sync_client.infer("reshaped", [x])
    after = sync_client.get_inference_statistics("reshaped").model_stats[0]

    assert after.inference_count - before.inference_count == 6
    assert after.execution_count - before.execution_count == 3
    for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        then, now = getattr(before.inference_stats, name), getattr(after.inference_stats, name)
        assert now.count - then.count == 3, name
        assert now.ns >= then.ns, name
    parts = [getattr(after.inference_stats, name).ns for name in ("queue", "compute_input", "compute_infer")]
    assert sum(parts) <= after.inference_stats.success.ns
    assert after.last_inference > 1_700_000_000_000  # milliseconds since 1970


def test_statistics_without_a_name_are_those_of_every_version(sync_client: triton.InferenceServerClient) -> None:
    listed = {(model.name, model.version) for model in sync_client.get_inference_statistics().model_stats}
    index = {(model.name, model.version) for model in sync_client.get_model_repository_index().models}

    assert listed == index


def test_many_inputs_and_outputs_are_told_apart_by_name(sync_client: triton.InferenceServerClient) -> None:
    for inputs in (add_sub_inputs(), add_sub_inputs()[::-1]):
        result = sync_client.infer("add_sub", inputs)

        np.testing.assert_array_equal(result.as_numpy("sum"), [[11, 22, 33, 44]])
        np.testing.assert_array_equal(result.as_numpy("difference"), [[-9, -18, -27, -36]])


def test_only_the_outputs_asked_for_are_answered_and_in_that_order(sync_client: triton.InferenceServerClient) -> None:
    for wanted in (["difference"], ["difference", "sum"], ["sum", "difference"]):
        outputs = [triton.InferRequestedOutput(name) for name in wanted]
        response = sync_client.infer("add_sub", add_sub_inputs(), outputs=outputs).get_response()

        assert [tensor.name for tensor in response.outputs] == wanted


def test_the_answer_bears_the_request_id_the_model_and_its_version(sync_client: triton.InferenceServerClient) -> None:
    response = sync_client.infer("add_sub", add_sub_inputs(), request_id="nº 7").get_response()

    assert (response.id, response.model_name, response.model_version) == ("nº 7", "add_sub", "1")


def test_parameters_of_a_request_are_taken(sync_client: triton.InferenceServerClient) -> None:
    result = sync_client.infer("add_sub", add_sub_inputs(), priority=1, timeout=10_000_000, parameters={"mine": "ok"})

    assert result.as_numpy("sum")[0, 0] == 11


def test_a_compressed_request_is_understood(sync_client: triton.InferenceServerClient) -> None:
    for algorithm in ("gzip", "deflate"):
        result = sync_client.infer("add_sub", add_sub_inputs(), compression_algorithm=algorithm)

        assert result.as_numpy("sum")[0, 3] == 44


def test_calls_in_flight_on_one_connection_get_their_own_answers(client: Client) -> None:
    calls = [client.start_infer("scalar", {"x": np.array([[i]], np.float32)}) for i in range(20)]

    answers = [arrays(pb.ModelInferResponse.FromString(call.result()))["y"].item() for call in calls]
    assert answers == [3 * i + 1 for i in range(20)]


@pytest.mark.parametrize(
    ("model", "versions", "latest"),
    [
        ("versions_default", {10}, 10),
        ("versions_latest", {2, 10}, 10),
        ("versions_all", {1, 2, 10}, 10),
        ("versions_specific", {1, 2}, 2),
    ],
)
def test_the_version_policy_decides_which_versions_serve(
    model: str, versions: set[int], latest: int, client: Client
) -> None:
    x = np.array([[100]], np.int64)
    metadata = client.call("ModelMetadata", pb.ModelMetadataRequest(name=model))

    assert set(map(int, metadata.versions)) == versions
    assert client.infer(model, {"x": x})["y"].item() == 300 + latest
    for version in versions:
        response = client.call("ModelInfer", infer_request(model, {"x": x}, model_version=str(version)))
        assert response.model_version == str(version)
        assert arrays(response)["y"].item() == 300 + version
    for version in {1, 2, 10} - versions:
        refusal = client.refusal("ModelInfer", infer_request(model, {"x": x}, model_version=str(version)))
        assert refusal.message == f"Request for unknown model: '{model}' version {version} is not found"


def test_an_unknown_method_or_service_is_unimplemented(client: Client) -> None:
    for path in (f"{SERVICE}/ModelGuess", "/inference.Unheard/Of", "/"):
        refusal = refusal_of(client.channel.unary_unary(path).future(b"", timeout=10))

        assert refusal.status.name == "UNIMPLEMENTED", path


def test_the_asyncio_client_is_served_alike(zoo: RunningServer) -> None:
    async def session() -> None:
        async with triton_aio.InferenceServerClient(zoo.grpc_address) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("add_sub")
            assert (await client.get_server_metadata()).name == "convoy"
            assert (await client.get_model_metadata("add_sub")).name == "add_sub"
            assert (await client.get_model_config("add_sub")).config.max_batch_size == 8
            assert (await client.get_model_repository_index()).models
            assert (await client.get_inference_statistics("add_sub")).model_stats
            result = await client.infer("add_sub", add_sub_inputs(triton_aio), request_id="42")
            assert result.get_response().id == "42"
            np.testing.assert_array_equal(result.as_numpy("sum"), [[11, 22, 33, 44]])
            with pytest.raises(InferenceServerException, match="'nowhere' is not found") as caught:
                await client.infer("nowhere", add_sub_inputs(triton_aio))
            assert caught.value.status() == "StatusCode.NOT_FOUND"

    asyncio.run(session())
