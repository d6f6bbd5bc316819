"""Tensors over a real connection: every datatype, raw and typed, every kind of shape, and classification."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from proto import grpc_service_pb2 as pb
from tests.real.clients import Client, arrays, infer_request

EXTREMES: dict[str, np.ndarray[Any, Any]] = {
    "BOOL": np.array([[True, False, True]]),
    **{
        name.upper(): np.array([[np.iinfo(name).min, 1, np.iinfo(name).max]], name)
        for name in ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
    },
    "FP16": np.array([[-0.0, 6e-8, 65504, np.inf, np.nan]], np.float16),
    "FP32": np.array([[-0.0, 1e-45, 3.4e38, -np.inf, np.nan]], np.float32),
    "FP64": np.array([[-0.0, 5e-324, 1.7e308, -np.inf, np.nan]], np.float64),
    "BF16": np.array([[-0.0, 1e-40, 3e38, -np.inf, 1.5]], ml_dtypes.bfloat16),
    "BYTES": np.array([[b"", "grüße".encode(), b"a\0b", b"x" * 70_000]], dtype=object),
}

TYPED: dict[str, tuple[str, list[Any]]] = {
    "BOOL": ("bool_contents", [True, False]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-(2**15), 2**15 - 1]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 2**16 - 1]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "FP32": ("fp32_contents", [-1.5, 2.25]),
    "FP64": ("fp64_contents", [-1.5, 1e300]),
    "BYTES": ("bytes_contents", [b"", "é".encode()]),
}


def typed_request(datatype: str, shape: tuple[int, ...], field: str, values: list[Any]) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=f"identity_{datatype.lower()}")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
    getattr(tensor.contents, field).extend(values)
    return request


def classify(client: Client, model: str, x: np.ndarray[Any, Any], count: int) -> list[list[str]]:
    request = infer_request(model, {"x": x})
    request.outputs.add(name="y").parameters["classification"].int64_param = count
    response = client.call("ModelInfer", request)
    assert response.outputs[0].datatype == "BYTES"
    return [[entry.decode() for entry in row] for row in arrays(response)["y"]]


@pytest.mark.parametrize("datatype", EXTREMES)
def test_every_datatype_comes_back_bit_for_bit(datatype: str, client: Client) -> None:
    x = EXTREMES[datatype]
    request = infer_request(f"identity_{datatype.lower()}", {"x": x})
    response = client.call("ModelInfer", request)

    assert response.outputs[0].datatype == datatype
    assert tuple(response.outputs[0].shape) == x.shape
    assert response.raw_output_contents == request.raw_input_contents


@pytest.mark.parametrize("datatype", EXTREMES)
def test_several_rows_in_one_batch_keep_their_order_in_every_datatype(datatype: str, client: Client) -> None:
    x = np.concatenate([EXTREMES[datatype], EXTREMES[datatype][:, ::-1]])
    request = infer_request(f"identity_{datatype.lower()}", {"x": x})
    calls = [client.start("ModelInfer", request) for _ in range(4)]

    for call in calls:
        assert pb.ModelInferResponse.FromString(call.result()).raw_output_contents == request.raw_input_contents


@pytest.mark.parametrize("datatype", EXTREMES)
def test_a_dimension_may_be_zero_in_every_datatype(datatype: str, client: Client) -> None:
    y = client.infer(f"identity_{datatype.lower()}", {"x": np.empty((2, 0), EXTREMES[datatype].dtype)})["y"]

    assert (y.shape, y.dtype) == ((2, 0), EXTREMES[datatype].dtype)


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_are_as_good_as_raw(datatype: str, client: Client) -> None:
    field, values = TYPED[datatype]
    y = arrays(client.call("ModelInfer", typed_request(datatype, (1, 2), field, values)))["y"]

    assert y.tolist() == [values]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_has_no_typed_contents(datatype: str, client: Client) -> None:
    refusal = client.refusal("ModelInfer", typed_request(datatype, (1, 1), "fp32_contents", [1.0]))

    assert refusal.status.name == "INVALID_ARGUMENT"
    assert "send it in raw_input_contents" in refusal.message


@pytest.mark.parametrize(("datatype", "value"), [("INT8", 128), ("UINT8", 256), ("INT16", -40_000), ("UINT16", 70_000)])
def test_a_typed_value_that_does_not_fit_is_refused(datatype: str, value: int, client: Client) -> None:
    field = "int_contents" if datatype.startswith("I") else "uint_contents"
    refusal = client.refusal("ModelInfer", typed_request(datatype, (1, 1), field, [value]))

    assert refusal.status.name == "INVALID_ARGUMENT"
    assert f"does not fit into {datatype}" in refusal.message


def test_typed_values_in_the_field_of_another_type_are_refused(client: Client) -> None:
    refusal = client.refusal("ModelInfer", typed_request("INT32", (1, 2), "fp32_contents", [1.0, 2.0]))

    assert refusal.status.name == "INVALID_ARGUMENT"
    assert "Expected 8, got 0" in refusal.message


def test_a_scalar_per_sample_is_sent_as_one_element(client: Client) -> None:
    metadata = client.call("ModelMetadata", pb.ModelMetadataRequest(name="scalar"))
    assert list(metadata.inputs[0].shape) == [-1, 1]

    y = client.infer("scalar", {"x": np.array([[1], [2], [3]], np.float32)})["y"]
    assert y.tolist() == [[4], [7], [10]]


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (4, 1, 7), (3, 0, 2)])
def test_a_free_dimension_takes_any_size(shape: tuple[int, ...], client: Client) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)

    np.testing.assert_array_equal(client.infer("wildcards", {"x": x})["y"], 3 * x + 1)


def test_a_model_without_a_batch_axis_is_served(client: Client) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)

    np.testing.assert_array_equal(client.infer("whole", {"x": x})["y"], x.T)


def test_a_reshape_stands_between_the_caller_and_the_model(client: Client) -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 6)

    np.testing.assert_array_equal(client.infer("reshaped", {"x": x})["y"], 3 * x + 1)


def test_classification_answers_the_best_classes_with_their_labels(client: Client) -> None:
    x = np.array([[0.25, 0.5, 0.125, 0.0625], [-1, -2, -3, 7.5]], np.float32)

    assert classify(client, "scores", x, 3) == [
        ["0.500000:1:dog", "0.250000:0:cat", "0.125000:2:old owl"],
        ["7.500000:3", "-1.000000:0:cat", "-2.000000:1:dog"],
    ]


def test_classification_of_integer_scores_has_no_decimals(client: Client) -> None:
    assert classify(client, "integer_scores", np.array([[5, -9, 70, 5]], np.int32), 2) == [["70:2:old owl", "5:0:cat"]]


def test_classification_of_more_classes_than_there_are_answers_them_all(client: Client) -> None:
    assert len(classify(client, "scores", np.zeros((1, 4), np.float32), 100)[0]) == 4


def test_classification_and_the_plain_tensor_share_a_batch(client: Client) -> None:
    x = np.array([[1, 4, 2, 3]], np.float32)
    plain = [client.start_infer("scores", {"x": x}) for _ in range(4)]

    assert classify(client, "scores", x, 1) == [["4.000000:1:dog"]]
    for call in plain:
        assert arrays(pb.ModelInferResponse.FromString(call.result()))["y"].tolist() == x.tolist()


@pytest.mark.parametrize("datatype", ["BYTES", "BOOL", "FP16", "BF16"])
def test_classification_needs_numbers_to_rank(datatype: str, client: Client) -> None:
    request = infer_request(f"identity_{datatype.lower()}", {"x": EXTREMES[datatype]})
    request.outputs.add(name="y").parameters["classification"].int64_param = 1
    refusal = client.refusal("ModelInfer", request)

    assert refusal.status.name == "INVALID_ARGUMENT"
    assert f"datatype is {datatype}" in refusal.message
