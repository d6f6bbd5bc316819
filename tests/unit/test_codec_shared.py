"""Requests and answers whose tensors are in shared memory: what the wire says of them."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest

from proto import grpc_service_pb2 as pb
from server.errors import InvalidRequest
from server.frontends.codec import decode_infer_request, encode_infer_response
from server.messages import InferenceRequest, InferenceResponse, OutputTensor, SharedPlace, SharedPlaces
from server.tensors import BYTES, FP32

Parameters = dict[str, Any]


def decode(request: pb.ModelInferRequest) -> InferenceRequest:
    return decode_infer_request(request.SerializeToString(), deadline=inf)


def set_place(tensor: Any, region: object = "r", byte_size: object = 8, offset: object = None) -> None:
    """Parameters of a tensor. None leaves one out."""
    for key, value in (("region", region), ("byte_size", byte_size), ("offset", offset)):
        if value is not None:
            kind = {str: "string_param", int: "int64_param", bool: "bool_param", float: "double_param"}[type(value)]
            setattr(tensor.parameters[f"shared_memory_{key}"], kind, value)


def request_of(*inputs: str, raw: int = 0) -> pb.ModelInferRequest:
    """A request with these inputs, those in capitals in shared memory, and so many raw contents: b"0", b"1", …"""
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[str(i).encode() for i in range(raw)])
    for name in inputs:
        tensor = request.inputs.add(name=name, datatype="INT8", shape=[1])
        if name.isupper():
            set_place(tensor, name.lower(), 1, 4)
    return request


def contents(request: InferenceRequest) -> list[bytes | None]:
    return [None if buffer is None else bytes(buffer) for buffer in request.buffers]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("aB", [b"0", None]),
        ("Ab", [None, b"0"]),
        ("aBcD", [b"0", None, b"1", None]),
        ("AbCd", [None, b"0", None, b"1"]),
        ("AB", [None, None]),
    ],
)
def test_raw_contents_are_for_the_inputs_that_are_not_in_shared_memory(
    inputs: str, expected: list[bytes | None]
) -> None:
    request = decode(request_of(*inputs, raw=sum(name.islower() for name in inputs)))
    assert contents(request) == expected
    assert request.shared == SharedPlaces(
        tuple(SharedPlace(name.lower(), 4, 1) if name.isupper() else None for name in inputs), ()
    )


def test_fewer_raw_contents_leave_the_last_inputs_without() -> None:
    assert contents(decode(request_of("a", "B", "c", raw=1))) == [b"0", None, None]


def test_more_raw_contents_than_inputs_outside_of_shared_memory_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="has 1 inputs that are not in shared memory, but raw_input"):
        decode(request_of("a", "B", raw=2))


def test_a_request_without_shared_memory_has_no_places() -> None:
    assert decode(request_of("a", raw=1)).shared is None


def test_requests_that_differ_in_their_place_only_are_told_apart() -> None:
    for region in ("first", "second", "first"):
        request = request_of("a", raw=1)
        set_place(request.outputs.add(name="y"), region)
        shared = decode(request).shared
        assert shared is not None and shared.outputs == (("y", SharedPlace(region, 0, 8)),)


def test_an_offset_is_0_where_there_is_none() -> None:
    request = pb.ModelInferRequest(model_name="m")
    set_place(request.inputs.add(name="x", datatype="INT8", shape=[1]), offset=None)
    set_place(request.outputs.add(name="y"), offset=12)
    assert decode(request).shared == SharedPlaces((SharedPlace("r", 0, 8),), (("y", SharedPlace("r", 12, 8)),))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"region": 5}, "invalid value type for 'shared_memory_region' parameter of {}, expected string_param."),
        ({"offset": "5"}, "invalid value type for 'shared_memory_offset' parameter of {}, expected int64_param."),
        ({"offset": True}, "invalid value type for 'shared_memory_offset' parameter of {}, expected int64_param."),
        ({"byte_size": 8.0}, "invalid value type for 'shared_memory_byte_size' parameter of {}, expected int64_param."),
        ({"region": None}, "{} has no 'shared_memory_region' parameter, which shared memory needs"),
        ({"byte_size": None}, "{} has no 'shared_memory_byte_size' parameter, which shared memory needs"),
        (
            {"byte_size": None, "region": None, "offset": 1},
            "{} has no 'shared_memory_region' parameter, which shared memory needs",
        ),
    ],
)
@pytest.mark.parametrize("where", ["input", "output"])
def test_parameters_of_shared_memory_have_one_type_each(where: str, place: Parameters, message: str) -> None:
    request = pb.ModelInferRequest(model_name="m")
    set_place(getattr(request, f"{where}s").add(name="t"), **place)
    with pytest.raises(InvalidRequest) as caught:
        decode(request)
    assert str(caught.value) == message.format(f"{where} 't'")


def test_a_parameter_without_a_value_is_of_the_wrong_type() -> None:
    request = pb.ModelInferRequest(model_name="m")
    request.outputs.add(name="y", parameters={"shared_memory_region": pb.InferParameter()})
    with pytest.raises(InvalidRequest, match="invalid value type for 'shared_memory_region'"):
        decode(request)


def test_an_input_is_in_shared_memory_or_has_contents() -> None:
    request = request_of("A")
    request.inputs[0].contents.int_contents.append(1)
    with pytest.raises(InvalidRequest, match="unexpected explicit tensor data for input tensor 'A' for model 'm', it"):
        decode(request)


def test_another_input_may_have_typed_contents() -> None:
    request = request_of("A", "b")
    request.inputs[1].contents.int_contents.append(7)
    for _ in range(2):
        assert contents(decode(request)) == [None, b"\7"]


def test_a_request_that_comes_again_is_read_again() -> None:
    """What is remembered of it has neither its id nor another's."""
    for request_id in ("first", "", "second"):
        request = request_of("A", "B")
        request.id = request_id
        again = decode(request)
        assert (again.request_id, contents(again)) == (request_id, [None, None])
        assert again.shared == SharedPlaces((SharedPlace("a", 4, 1), SharedPlace("b", 4, 1)), ())


def test_classes_do_not_go_to_shared_memory() -> None:
    request = request_of("a", raw=1)
    output = request.outputs.add(name="y", parameters={"classification": pb.InferParameter(int64_param=3)})
    set_place(output)
    with pytest.raises(InvalidRequest, match="shared memory can't be set on classification output 'y'"):
        decode(request)


def test_an_answer_says_where_its_outputs_are_and_has_contents_for_each() -> None:
    array = np.arange(6, dtype=np.float32).reshape(3, 2).T
    words = np.array([b"a", b"bc"], dtype=object)
    response = InferenceResponse(
        "m",
        "3",
        "id",
        [
            OutputTensor("here", FP32, array.shape, array),
            OutputTensor("there", FP32, array.shape, array),
            OutputTensor("words", BYTES, words.shape, words),
            OutputTensor("further", FP32, array.shape, array),
        ],
        (None, SharedPlace("r", 0, 24), None, SharedPlace("s", 8, 24)),
    )
    wire = pb.ModelInferResponse.FromString(encode_infer_response(response))
    assert (wire.model_name, wire.model_version, wire.id) == ("m", "3", "id")
    assert [(output.name, output.datatype, list(output.shape)) for output in wire.outputs] == [
        ("here", "FP32", [2, 3]), ("there", "FP32", [2, 3]), ("words", "BYTES", [2]), ("further", "FP32", [2, 3])
    ]  # fmt: skip
    assert list(wire.raw_output_contents) == [array.tobytes(), b"", b"\1\0\0\0a\2\0\0\0bc", b""]
    assert [dict(output.parameters) for output in wire.outputs] == [
        {},
        {
            "shared_memory_region": pb.InferParameter(string_param="r"),
            "shared_memory_byte_size": pb.InferParameter(int64_param=24),
        },
        {},
        {
            "shared_memory_region": pb.InferParameter(string_param="s"),
            "shared_memory_offset": pb.InferParameter(int64_param=8),
            "shared_memory_byte_size": pb.InferParameter(int64_param=24),
        },
    ]
