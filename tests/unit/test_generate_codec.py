"""Flat JSON of `generate`: what becomes of its keys, which shapes values get, and what the answer looks like."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import numpy as np
import pytest

from server import tensors
from server.errors import InvalidRequest
from server.frontends.rest.generate_codec import decode, encode
from server.frontends.rest.json_tensors import NonFinite
from server.messages import InferenceRequest, InferenceResponse, OutputTensor
from server.models.config_types import TensorConfig
from server.tensors import DataType

TEXT = TensorConfig("text_input", tensors.BYTES, (1,))


def number(name: str, *dims: int, datatype: DataType = tensors.INT32) -> TensorConfig:
    return TensorConfig(name, datatype, dims)


def read(said: object, *inputs: TensorConfig, batched: bool = True) -> InferenceRequest:
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    return decode("m", "7", inputs or (TEXT,), batched, text, inf, NonFinite.REFUSE)


def refusal(said: object, *inputs: TensorConfig, batched: bool = True) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read(said, *inputs, batched=batched)
    return str(caught.value)


def test_a_key_that_names_an_input_is_a_tensor() -> None:
    request = read({"text_input": "grüße"})
    assert (request.model_name, request.model_version) == ("m", "7")
    assert [tuple(spec) for spec in request.specs] == [("text_input", "BYTES", (1, 1))]
    (array,) = request.buffers
    assert isinstance(array, np.ndarray)
    assert array.tolist() == ["grüße".encode()]


def test_the_id_and_parameters_with_a_meaning_have_it() -> None:
    request = read({"text_input": "a", "id": "seven", "timeout": 1500, "priority": 2})
    assert (request.request_id, request.timeout_us, request.priority) == ("seven", 1500, 2)


def test_keys_of_the_nested_object_are_as_good_as_those_around_it() -> None:
    request = read({"id": "seven", "parameters": {"text_input": "a", "timeout": 1500}})
    assert [spec.name for spec in request.specs] == ["text_input"]
    assert (request.request_id, request.timeout_us) == ("seven", 1500)


@pytest.mark.parametrize("value", [True, 1, -1, 2**63, 0.5, "text"])
def test_any_other_key_is_a_parameter_of_any_kind(value: object) -> None:
    assert len(read({"text_input": "a", "temperature": value}).specs) == 1


def test_an_empty_body_has_no_inputs() -> None:
    assert read(b"").specs == ()


@pytest.mark.parametrize(
    ("dims", "batched", "value", "shape"),
    [
        ((1,), True, 5, (1, 1)),
        ((1,), True, [5, 6, 7], (3, 1)),
        ((2,), True, [1, 2, 3, 4], (2, 2)),
        ((-1,), True, [1, 2, 3], (1, 3)),
        ((-1, 2), True, [1, 2, 3, 4], (1, 2, 2)),
        ((2, -1), True, [1, 2, 3, 4], (1, 2, 2)),
        ((2, 3), False, [1, 2, 3, 4, 5, 6], (2, 3)),
        ((-1, -1), False, [1, 2, 3], (1, 3)),
        ((-1,), False, [], (0,)),
        ((), True, [1, 2], (2,)),
        ((), False, 1, ()),
    ],
)
def test_the_innermost_free_dimension_takes_what_the_fixed_ones_leave(
    dims: tuple[int, ...], batched: bool, value: object, shape: tuple[int, ...]
) -> None:
    request = read({"x": value}, number("x", *dims), batched=batched)
    assert request.specs[0].shape == shape
    assert bytes(request.buffers[0] or b"") == np.array(value, np.int32).tobytes()


@pytest.mark.parametrize(
    ("dims", "batched", "value"),
    [((2,), True, [1, 2, 3]), ((2,), False, [1, 2, 3, 4]), ((1,), False, []), ((0,), True, [1]), ((), False, [1, 2])],
)
def test_elements_that_fill_no_shape_are_refused(dims: tuple[int, ...], batched: bool, value: list[int]) -> None:
    message = refusal({"x": value}, number("x", *dims), batched=batched)
    assert message.startswith("The schema can not convert input 'x' to tensor with proper shape")


WRONG: dict[str, tuple[object, str]] = {
    "no JSON": (b"{", "failed to parse the request JSON buffer"),
    "no object": ([], "the request's JSON must be an object"),
    "an id that is a number": ({"id": 7}, "'id' of the request must be a string"),
    "a nested list": ({"parameters": []}, "Expected JSON object for keyword: 'parameters'"),
    "a parameter that is a list": ({"stop": ["a"]}, "parameter 'stop' of the request has invalid type"),
    "a parameter that is null": ({"stop": None}, "parameter 'stop' of the request has invalid type"),
    "a reserved parameter": ({"triton_x": 1}, "parameter keys starting with 'triton_' are reserved for Triton usage"),
    "the wrong type of a parameter": ({"timeout": "1"}, "invalid value type for 'timeout' parameter"),
    "a number for a string": ({"text_input": 5}, "'data' of input 'text_input' must be strings"),
    "an object for a string": ({"text_input": {}}, "'data' of input 'text_input' must be strings"),
    "null for a string": ({"text_input": None}, "'data' of input 'text_input' must be strings"),
}


@pytest.mark.parametrize(("said", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_body_says_what_is_wrong(said: object, message: str) -> None:
    assert message in refusal(said)


def test_an_input_by_the_name_of_the_nested_object_needs_infer() -> None:
    message = refusal({"parameters": "a"}, TensorConfig("parameters", tensors.BYTES, (1,)))
    assert message == "Keyword 'parameters' for nested schema also given as input tensor name; use infer"


@pytest.mark.parametrize("datatype", [tensors.FP16, tensors.BF16])
def test_a_datatype_that_json_has_not_needs_binary_data(datatype: DataType) -> None:
    assert "Please use the binary data format" in refusal({"x": 1.5}, number("x", 1, datatype=datatype))


def answer(name: str, values: Any, *, request_id: str = "") -> InferenceResponse:
    array = np.array(values, object if isinstance(np.ravel(values)[0], bytes) else np.int32)
    datatype = tensors.BYTES if array.dtype == object else tensors.INT32
    return InferenceResponse("m", "7", request_id, [OutputTensor(name, datatype, array.shape, array)])


@pytest.mark.parametrize(
    ("values", "shown"),
    [([[5]], 5), ([[5, 6]], [5, 6]), ([[1, 2], [3, 4]], [1, 2, 3, 4]), ([["grüße".encode()]], "grüße"), ([b"a"], "a")],
)
def test_an_output_of_one_element_is_no_array(values: Any, shown: object) -> None:
    body, headers = encode(answer("y", values), NonFinite.REFUSE, as_event=False)
    assert json.loads(body) == {"model_name": "m", "model_version": "7", "y": shown}
    assert headers == (("Content-Type", "application/json"),)


def test_an_event_is_one_line_of_data_whatever_the_output_has() -> None:
    body, headers = encode(answer("y", [[b"a\n\ndata: b\r"]], request_id="i"), NonFinite.REFUSE, as_event=True)
    assert body.startswith(b"data: {")
    assert body.endswith(b"}\n\n")
    assert body.count(b"\n") == 2
    assert json.loads(body[6:]) == {"id": "i", "model_name": "m", "model_version": "7", "y": "a\n\ndata: b\r"}
    assert headers == (("Content-Type", "text/event-stream; charset=utf-8"),)


@pytest.mark.parametrize("name", ["id", "model_name", "model_version"])
def test_an_output_that_would_hide_the_answers_own_key_is_not_lost_silently(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"the output '{name}' has a name of the answer's own: use infer"):
        encode(answer(name, [[1]], request_id="i"), NonFinite.REFUSE, as_event=False)
