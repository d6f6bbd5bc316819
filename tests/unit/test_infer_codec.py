"""Bodies of inference over HTTP: one case list through JSON and binary data, and all that can be wrong with one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import inf
from typing import Any

import numpy as np
import pytest

from server.errors import ConvoyError, InvalidRequest, Unsupported
from server.frontends.rest import infer_codec
from server.frontends.rest.infer_codec import (
    BINARY,
    REMEMBERED_JSONS,
    Wanted,
    decode,
    decode_raw,
    encode,
)
from server.frontends.rest.json_tensors import NonFinite
from server.messages import InferenceRequest, InferenceResponse, OutputTensor, RequestedOutput, TensorSpec
from server.models.config_types import TensorConfig
from server.tensors import DATATYPES, decode_bytes_elements, encode_bytes_elements

CASES: Mapping[str, Any] = {
    "BOOL": [[True, False]],
    "UINT8": [[0, 255]],
    "UINT16": [[0, 65535]],
    "UINT32": [[0, 2**32 - 1]],
    "UINT64": [[0, 2**64 - 1]],
    "INT8": [[-128, 127]],
    "INT16": [[-(2**15), 2**15 - 1]],
    "INT32": [[-(2**31), 2**31 - 1]],
    "INT64": [[-(2**63), 2**63 - 1]],
    "FP32": [[0.1, -3.4e38]],
    "FP64": [[0.1, 1e308]],
    "BYTES": [["", "grüße"]],
    "FP16": [[0.5, -2.0]],
    "BF16": [[16256, 0]],
}
"""Values of each datatype, of shape [1, 2]; bits for BF16."""
BINARY_ONLY = ("FP16", "BF16")


def array(datatype: str) -> np.ndarray[Any, Any]:
    values = CASES[datatype]
    if datatype == "BYTES":
        return np.array([[text.encode() for text in row] for row in values], object)
    return np.array(values, DATATYPES[datatype].dtype)


def raw(datatype: str) -> bytes:
    return encode_bytes_elements(array(datatype)) if datatype == "BYTES" else array(datatype).tobytes()


def read(body: bytes, json_length: int | None = None, model: str = "m", version: str = "") -> InferenceRequest:
    return decode(model, version, memoryview(body), json_length, inf, NonFinite.REFUSE)[0]


def wanted(said: dict[str, Any]) -> Wanted:
    return decode("m", "", memoryview(json.dumps(said).encode()), None, inf, NonFinite.REFUSE)[1]


def tensor(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1], **fields}


@pytest.mark.parametrize("datatype", CASES)
def test_a_tensor_says_the_same_as_json_and_as_binary_data(datatype: str) -> None:
    spec = {"name": "x", "datatype": datatype, "shape": [1, 2]}
    text = json.dumps({"inputs": [spec | {"parameters": {"binary_data_size": len(raw(datatype))}}]}).encode()
    binary = read(text + raw(datatype), len(text))
    assert binary.specs == (TensorSpec("x", datatype, (1, 2)),)
    assert bytes(binary.buffers[0]) == raw(datatype)
    as_json = json.dumps({"inputs": [spec | {"data": CASES[datatype]}]}).encode()
    if datatype in BINARY_ONLY:
        with pytest.raises(InvalidRequest, match="binary data format"):
            read(as_json)
        return
    (buffer,) = read(as_json).buffers
    if datatype == "BYTES":
        assert list(buffer) == list(decode_bytes_elements(raw(datatype), 2))
    else:
        assert bytes(buffer) == raw(datatype)


@pytest.mark.parametrize("datatype", CASES)
def test_an_output_says_the_same_as_json_and_as_binary_data(datatype: str) -> None:
    response = InferenceResponse("m", "3", "", [OutputTensor("y", DATATYPES[datatype], (1, 2), array(datatype))])
    body, headers = encode(response, Wanted(by_default=True), NonFinite.REFUSE)
    length = int(dict(headers)["Inference-Header-Content-Length"])
    assert dict(headers)["Content-Type"] == BINARY
    said = {"name": "y", "datatype": datatype, "shape": [1, 2]}
    assert json.loads(body[:length]) == {
        "model_name": "m",
        "model_version": "3",
        "outputs": [said | {"parameters": {"binary_data_size": len(raw(datatype))}}],
    }
    assert body[length:] == raw(datatype)
    if datatype in BINARY_ONLY:
        with pytest.raises(InvalidRequest, match="binary data format"):
            encode(response, Wanted(), NonFinite.REFUSE)
        return
    body, headers = encode(response, Wanted(), NonFinite.REFUSE)
    (shown,) = json.loads(body)["outputs"]
    data = shown.pop("data")
    assert data == (
        [pytest.approx(value) for value in CASES[datatype][0]] if datatype == "FP32" else CASES[datatype][0]
    )
    assert shown == said
    assert dict(headers) == {"Content-Type": "application/json"}


def test_outputs_are_mixed_as_their_caller_wants_them() -> None:
    outputs = [OutputTensor(name, DATATYPES["INT8"], (1,), np.array([7], np.int8)) for name in "abc"]
    response = InferenceResponse("m", "1", "i", outputs)
    body, headers = encode(response, Wanted(by_name={"a": True, "c": True}), NonFinite.REFUSE)
    length = int(dict(headers)["Inference-Header-Content-Length"])
    said = json.loads(body[:length])
    assert said["id"] == "i"
    assert [output.get("data") for output in said["outputs"]] == [None, [7], None]
    assert body[length:] == b"\7\7"


def test_inputs_are_mixed_as_their_caller_sends_them() -> None:
    sizes = {"parameters": {"binary_data_size": 4}}
    inputs = [tensor(name="a", **sizes), tensor(name="b", data=[1.5]), tensor(name="c", **sizes), tensor(name="d")]
    text = json.dumps({"inputs": inputs}).encode()
    a, b, c, d = read(text + b"aaaacccc", len(text)).buffers
    assert (bytes(a), b, bytes(c), d) == (b"aaaa", np.float32(1.5).tobytes(), b"cccc", None)


def test_binary_data_is_viewed_and_not_copied() -> None:
    text = json.dumps({"inputs": [tensor(parameters={"binary_data_size": 4})]}).encode()
    body = memoryview(bytearray(text + b"abcd"))
    request, _ = decode("m", "", body, len(text), inf, NonFinite.REFUSE)
    body[-1:] = b"!"
    assert bytes(request.buffers[0]) == b"abc!"


def test_what_is_remembered_is_of_one_model_and_version() -> None:
    text = json.dumps({"inputs": [tensor(parameters={"binary_data_size": 4})]}).encode()
    asked = [(m, v) for m in ("one", "two") for v in ("", "7")]
    requests = [read(text + b"abcd", len(text), model, version) for model, version in asked * 2]
    assert [(request.model_name, request.model_version) for request in requests] == asked * 2


def test_data_and_ids_are_each_requests_own() -> None:
    for value in (1.0, 2.0):
        text = json.dumps({"id": str(value), "inputs": [tensor(data=[value])]}).encode()
        request = read(text)
        assert (request.request_id, request.buffers) == (str(value), (np.float32(value).tobytes(),))


def test_what_is_remembered_is_bounded() -> None:
    infer_codec._jsons.clear()
    sized = tensor(parameters={"binary_data_size": 0})
    for text in (
        {"inputs": [tensor(data=[1])]},
        {"inputs": [sized], "id": "1"},
        {"inputs": [sized | {"x": "x" * 5000}]},
    ):
        read(json.dumps(text).encode())
    assert not infer_codec._jsons
    for number in range(REMEMBERED_JSONS + 10):
        read(json.dumps({"inputs": [sized], "x": number}).encode())
    assert 0 < len(infer_codec._jsons) <= REMEMBERED_JSONS


def test_parameters_are_those_of_grpc() -> None:
    said = {
        "parameters": {
            "timeout": 5,
            "priority": 2,
            "own": 1.5,
            "other": "text",
            "big": 2**63,
            "binary_data_output": True,
        },
        "inputs": [],
        "outputs": [
            {"name": "a", "parameters": {"classification": 3, "binary_data": False}},
            {"name": "b", "parameters": {"binary_data": True}},
            {"name": "c"},
        ],
    }
    request = read(json.dumps(said).encode())
    assert (request.timeout_us, request.priority) == (5, 2)
    assert request.outputs == (RequestedOutput("a", 3), RequestedOutput("b"), RequestedOutput("c"))
    assert wanted(said) == Wanted(by_default=True, by_name={"a": False, "b": True})


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([], "the request's JSON must be an object"),
        ({}, "the request has no 'inputs'"),
        ({"inputs": 1}, "'inputs' of the request must be an array"),
        ({"inputs": [1]}, "an input must be an object"),
        ({"inputs": [{}]}, "an input has no 'name'"),
        ({"inputs": [tensor(name=1)]}, "'name' of an input must be a string"),
        ({"inputs": [{"name": "x"}]}, "input 'x' has no 'datatype'"),
        ({"inputs": [{"name": "x", "datatype": "FP32"}]}, "input 'x' has no 'shape'"),
        ({"inputs": [tensor(shape=[1.5])]}, "'shape' of input 'x' must be integers"),
        ({"inputs": [tensor(shape=[True])]}, "must be integers"),
        ({"inputs": [tensor(shape=[2**63])]}, "must be integers"),
        ({"inputs": [tensor(datatype="FP8", data=[1])]}, "unknown datatype 'FP8'"),
        ({"inputs": [tensor()], "id": 3}, "'id' of the request must be a string"),
        ({"inputs": [tensor(parameters=[])]}, "'parameters' of input 'x' must be an object"),
        ({"inputs": [tensor(parameters={"binary_data_size": -1})]}, "must be a number of bytes"),
        ({"inputs": [tensor(parameters={"binary_data_size": "4"})]}, "must be a number of bytes"),
        ({"inputs": [tensor(parameters={"binary_data_size": True})]}, "must be a number of bytes"),
        ({"inputs": [tensor(parameters={"binary_data_size": 4})]}, "announces 4 bytes of binary data, but 0 are left"),
        ({"inputs": [tensor(parameters={"binary_data_size": 0}, data=[1])]}, "both 'data' and 'binary_data_size'"),
        ({"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, "must be true or false"),
        ({"inputs": [], "parameters": {"binary_data_output": "yes"}}, "must be true or false"),
        ({"inputs": [], "parameters": {"x": [1]}}, "parameter 'x' of the request has invalid type"),
        ({"inputs": [], "parameters": {"x": None}}, "has invalid type"),
        ({"inputs": [], "parameters": {"priority": "high"}}, "invalid value type for 'priority' parameter"),
        ({"inputs": [], "parameters": {"timeout": -1}}, "invalid value for 'timeout' parameter"),
        ({"inputs": [], "parameters": {"triton_x": 1}}, "reserved"),
        ({"inputs": [], "outputs": [{"name": "y", "parameters": {"classification": 0}}]}, "classification"),
        ({"inputs": [tensor(parameters={"shared_memory_region": "r"})]}, "shared memory"),
    ],
)
def test_what_is_wrong_is_said(said: object, reason: str) -> None:
    with pytest.raises((InvalidRequest, Unsupported), match=reason):
        read(json.dumps(said).encode())


@pytest.mark.parametrize(("extra", "length"), [(b"abcde", 0), (b"abcd", 1), (b"abc", -1), (b"", 1)])
def test_lengths_that_do_not_add_up_are_refused(extra: bytes, length: int) -> None:
    text = json.dumps({"inputs": [tensor(parameters={"binary_data_size": 4})]}).encode()
    with pytest.raises(InvalidRequest):
        read(text + extra, len(text) + length)


RAW: Mapping[str, tuple[str, tuple[int, ...], bool, bytes, tuple[int, ...]]] = {
    "a fixed shape": ("FP32", (2, 2), False, bytes(16), (2, 2)),
    "a batch of one": ("FP32", (2, 2), True, bytes(16), (1, 2, 2)),
    "a free dimension": ("INT16", (3, -1), True, bytes(12), (1, 3, 2)),
    "nothing in a free dimension": ("INT16", (3, -1), False, b"", (3, 0)),
    "a text": ("BYTES", (1,), True, b"text", (1, 1)),
    "a text of any shape": ("BYTES", (-1,), False, b"", (1,)),
}


@pytest.mark.parametrize(("datatype", "dims", "batched", "body", "shape"), RAW.values(), ids=RAW)
def test_a_raw_body_is_the_only_input(
    datatype: str, dims: tuple[int, ...], batched: bool, body: bytes, shape: tuple[int, ...]
) -> None:
    request = decode_raw("m", "", [TensorConfig("x", DATATYPES[datatype], dims)], batched, memoryview(body), inf)
    assert request.specs == (TensorSpec("x", datatype, shape),)
    (buffer,) = request.buffers
    assert (buffer[0] if datatype == "BYTES" else bytes(buffer)) == body


@pytest.mark.parametrize(
    ("tensors", "body"),
    [
        ([], b""),
        ([("FP32", (1,)), ("FP32", (1,))], bytes(8)),
        ([("FP32", (-1, -1))], bytes(4)),
        ([("FP32", (2, -1))], bytes(12)),
        ([("FP32", (0, -1))], b""),
        ([("BYTES", (2,))], b"ab"),
    ],
)
def test_a_raw_body_whose_shape_cannot_be_told_is_refused(
    tensors: list[tuple[str, tuple[int, ...]]], body: bytes
) -> None:
    configs = [TensorConfig("x", DATATYPES[datatype], dims) for datatype, dims in tensors]
    with pytest.raises(ConvoyError):
        decode_raw("m", "", configs, False, memoryview(body), inf)
