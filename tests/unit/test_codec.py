"""ModelInfer messages both ways: one list of tensors through decode and through encode, then every refusal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto import grpc_service_pb2 as pb
from server import tensors
from server.errors import ConvoyError, InvalidRequest, Unsupported
from server.frontends.codec import TYPED_FIELDS, decode_infer_request, encode_infer_response
from server.messages import InferenceRequest, InferenceResponse, OutputTensor, RequestedOutput, TensorSpec
from server.tensors import DATATYPES, Array, DataType


@dataclass(frozen=True)
class Tensor:
    """One tensor as numpy has it and as the wire has it."""

    datatype: DataType
    shape: tuple[int, ...]
    values: Sequence[Any]
    raw: bytes

    def array(self) -> Array:
        array = np.empty(len(self.values), dtype=self.datatype.dtype)
        array[:] = self.values
        return array.reshape(self.shape)


TENSORS = {
    "BOOL": Tensor(tensors.BOOL, (2, 1), [True, False], b"\x01\x00"),
    "UINT8": Tensor(tensors.UINT8, (2,), [0, 255], b"\x00\xff"),
    "UINT16": Tensor(tensors.UINT16, (2,), [1, 65535], b"\x01\x00\xff\xff"),
    "UINT32": Tensor(tensors.UINT32, (1,), [2**32 - 2], b"\xfe\xff\xff\xff"),
    "UINT64": Tensor(tensors.UINT64, (1,), [2**64 - 1], b"\xff" * 8),
    "INT8": Tensor(tensors.INT8, (3,), [-128, 127, -1], b"\x80\x7f\xff"),
    "INT16": Tensor(tensors.INT16, (2,), [-2, 258], b"\xfe\xff\x02\x01"),
    "INT32": Tensor(tensors.INT32, (1, 1), [-(2**31)], b"\x00\x00\x00\x80"),
    "INT64": Tensor(tensors.INT64, (1,), [-(2**63)], b"\x00" * 7 + b"\x80"),
    "FP16": Tensor(tensors.FP16, (2,), [1.0, -2.0], b"\x00\x3c\x00\xc0"),
    "BF16": Tensor(tensors.BF16, (2,), [0x3F80, 0xC000], b"\x80\x3f\x00\xc0"),
    "FP32": Tensor(tensors.FP32, (1, 2), [1.0, inf], b"\x00\x00\x80\x3f\x00\x00\x80\x7f"),
    "FP64": Tensor(tensors.FP64, (1,), [-0.0], b"\x00" * 7 + b"\x80"),
    "BYTES": Tensor(tensors.BYTES, (3,), [b"ab", b"", b"\xff\0"], b"\2\0\0\0ab\0\0\0\0\2\0\0\0\xff\0"),
    "no elements": Tensor(tensors.FP32, (2, 0), [], b""),
    "no text": Tensor(tensors.BYTES, (0,), [], b""),
    "a scalar": Tensor(tensors.INT32, (), [7], b"\7\0\0\0"),
    "127 bytes": Tensor(tensors.UINT8, (127,), range(127), bytes(range(127))),
    "128 bytes": Tensor(tensors.UINT8, (128,), range(128), bytes(range(128))),
    "20,000 bytes": Tensor(tensors.UINT8, (2, 10_000), [9] * 20_000, b"\x09" * 20_000),
    "3 MB": Tensor(tensors.UINT8, (3_000_000,), [0] * 3_000_000, bytes(3_000_000)),
}

TYPED = {name: tensor for name, tensor in TENSORS.items() if tensor.datatype.name in TYPED_FIELDS}


def test_the_list_has_every_datatype() -> None:
    assert {tensor.datatype.name for tensor in TENSORS.values()} == set(DATATYPES)


def message(*given_tensors: Tensor, typed: bool = False, **more: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", **more)
    for number, tensor in enumerate(given_tensors):
        wire = request.inputs.add(name=f"x{number}", datatype=tensor.datatype.name, shape=tensor.shape)
        if typed:
            wire.contents.SetInParent()
            getattr(wire.contents, TYPED_FIELDS[tensor.datatype.name]).extend(tensor.values)
        else:
            request.raw_input_contents.append(tensor.raw)
    return request


def decode(request: pb.ModelInferRequest) -> InferenceRequest:
    return decode_infer_request(request.SerializeToString(), deadline=inf)


def encode(*outputs: OutputTensor, request_id: str = "", model_name: str = "m") -> pb.ModelInferResponse:
    return pb.ModelInferResponse.FromString(
        encode_infer_response(InferenceResponse(model_name, "1", request_id, list(outputs)))
    )


def refusal(request: pb.ModelInferRequest, kind: type[ConvoyError] = InvalidRequest) -> str:
    with pytest.raises(kind) as caught:
        decode(request)
    return str(caught.value)


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_raw_contents_are_handed_over_as_they_are(tensor: Tensor) -> None:
    request = decode(message(tensor))
    assert request.specs == (TensorSpec("x0", tensor.datatype.name, tensor.shape),)
    assert request.buffers == (tensor.raw,)


@pytest.mark.parametrize("tensor", TYPED.values(), ids=TYPED)
def test_typed_contents_become_the_same_bytes(tensor: Tensor) -> None:
    [data] = decode(message(tensor, typed=True)).buffers
    if tensor.datatype is tensors.BYTES:
        assert isinstance(data, np.ndarray)
        assert data.tolist() == list(tensor.values)
    else:
        assert data == tensor.raw


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_an_output_is_written_as_protobuf_reads_it(tensor: Tensor) -> None:
    answer = encode(OutputTensor("y", tensor.datatype, tensor.shape, tensor.array()))
    assert (answer.model_name, answer.model_version) == ("m", "1")
    [output] = answer.outputs
    assert (output.name, output.datatype, tuple(output.shape)) == ("y", tensor.datatype.name, tensor.shape)
    assert list(answer.raw_output_contents) == [tensor.raw]
    assert not output.HasField("contents")


@given(st.lists(st.tuples(st.text(max_size=5), st.lists(st.integers(0, 255), max_size=300)), max_size=4), st.text())
def test_outputs_come_back_as_they_went(outputs: list[tuple[str, list[int]]], request_id: str) -> None:
    arrays = [np.array(values, dtype=np.uint8) for _, values in outputs]
    answer = encode(
        *(OutputTensor(name, tensors.UINT8, a.shape, a) for (name, _), a in zip(outputs, arrays, strict=True)),
        request_id=request_id,
    )
    assert answer.id == request_id
    assert [output.name for output in answer.outputs] == [name for name, _ in outputs]
    assert list(answer.raw_output_contents) == [array.tobytes() for array in arrays]


@given(st.lists(st.lists(st.integers(0, 7), max_size=3).map(tuple), max_size=4), st.text(), st.text())
def test_inputs_come_back_as_they_went(shapes: list[tuple[int, ...]], name: str, version: str) -> None:
    given_tensors = [Tensor(tensors.UINT8, shape, (), bytes(prod(shape))) for shape in shapes]
    wire = message(*given_tensors, model_version=version, id=name)
    request = decode(wire)
    assert (request.model_version, request.request_id) == (version, name)
    assert [spec.shape for spec in request.specs] == shapes
    assert list(request.buffers) == [tensor.raw for tensor in given_tensors]


def test_an_array_that_is_not_contiguous_is_written_row_by_row() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    answer = encode(OutputTensor("y", tensors.INT32, array.shape, array))
    assert answer.raw_output_contents[0] == np.ascontiguousarray(array).tobytes()


def test_text_that_is_not_contiguous_is_written_row_by_row() -> None:
    array = np.array([["a", "b"], ["c", "d"]], dtype=object).T
    answer = encode(OutputTensor("y", tensors.BYTES, array.shape, array))
    assert list(tensors.decode_bytes_elements(answer.raw_output_contents[0], 4)) == [b"a", b"c", b"b", b"d"]


def test_answers_of_one_shape_differ_in_id_and_data() -> None:
    first, second = (
        encode(OutputTensor("y", tensors.UINT8, (1,), np.array([n], dtype=np.uint8)), request_id=str(n)) for n in (1, 2)
    )
    assert (first.id, first.raw_output_contents[0]) == ("1", b"\1")
    assert (second.id, second.raw_output_contents[0]) == ("2", b"\2")


def test_an_id_may_be_long_and_in_any_script() -> None:
    request_id = "идентификатор" * 20
    assert encode(request_id=request_id).id == request_id


def test_an_answer_without_outputs_is_an_answer() -> None:
    assert encode() == pb.ModelInferResponse(model_name="m", model_version="1")


def test_everything_that_a_request_says_is_read() -> None:
    wire = message(TENSORS["FP32"], TENSORS["INT8"], model_version="7", id="r")
    wire.outputs.add(name="y")
    wire.outputs.add(name="z").parameters["classification"].int64_param = 3
    wire.parameters["timeout"].int64_param = 250
    wire.parameters["priority"].uint64_param = 2
    request = decode_infer_request(wire.SerializeToString(), deadline=12.5)
    assert request == InferenceRequest(
        model_name="m",
        model_version="7",
        request_id="r",
        specs=(TensorSpec("x0", "FP32", (1, 2)), TensorSpec("x1", "INT8", (3,))),
        buffers=(TENSORS["FP32"].raw, TENSORS["INT8"].raw),
        outputs=(RequestedOutput("y"), RequestedOutput("z", 3)),
        timeout_us=250,
        priority=2,
        deadline=12.5,
    )


def test_an_input_without_contents_has_no_data() -> None:
    wire = message(TENSORS["INT8"])
    wire.ClearField("raw_input_contents")
    assert decode(wire).buffers == (None,)


def test_the_last_inputs_have_no_data_where_raw_contents_are_too_few() -> None:
    wire = message(TENSORS["INT8"], TENSORS["FP32"])
    del wire.raw_input_contents[1]
    assert decode(wire).buffers == (TENSORS["INT8"].raw, None)


def test_typed_contents_of_another_field_are_no_data_of_this_datatype() -> None:
    wire = message(TENSORS["FP32"], typed=True)
    wire.inputs[0].datatype = "FP64"
    assert decode(wire).buffers == (b"",)


def test_more_raw_contents_than_inputs_are_refused() -> None:
    wire = message(TENSORS["INT8"])
    wire.raw_input_contents.append(b"")
    assert refusal(wire) == "the request for model 'm' has 1 inputs, but raw_input_contents for 2"


def test_raw_and_typed_contents_do_not_mix() -> None:
    wire = message(TENSORS["INT8"], TENSORS["INT32"], typed=True)
    wire.raw_input_contents.append(b"\0")
    assert refusal(wire) == (
        "unexpected explicit tensor data for input tensor 'x0' for model 'm', binary data was already supplied."
    )


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_typed_contents_of_a_half_float_are_refused(datatype: str) -> None:
    wire = message(TENSORS["FP32"], typed=True)
    wire.inputs[0].datatype = datatype
    assert refusal(wire).endswith("are not possible: send it in raw_input_contents")


def test_typed_contents_of_an_unknown_datatype_are_refused() -> None:
    wire = message(TENSORS["FP32"], typed=True)
    wire.inputs[0].datatype = "FP8"
    assert refusal(wire) == (
        "typed contents of datatype 'FP8' for input 'x0' for model 'm' are not possible: "
        "it is not a datatype of the protocol"
    )


@pytest.mark.parametrize(
    ("datatype", "field", "value"),
    [("INT8", "int_contents", 128), ("INT16", "int_contents", -32769), ("UINT8", "uint_contents", 256),
     ("UINT16", "uint_contents", 65536)],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused(datatype: str, field: str, value: int) -> None:
    wire = pb.ModelInferRequest(model_name="m")
    getattr(wire.inputs.add(name="x", datatype=datatype, shape=[1]).contents, field).append(value)
    assert refusal(wire) == f"a value of input 'x' for model 'm' does not fit into {datatype}"


GARBAGE = {
    "a cut message": message(TENSORS["FP32"]).SerializeToString()[:-3],
    "no message at all": b"\xff\xff\xff\xff",
    "text that is not UTF-8": b"\x0a\x02\xff\xfe",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"^the message is not a ModelInferRequest: "):
        decode_infer_request(data, inf)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        request = decode_infer_request(data, inf)
    except (InvalidRequest, Unsupported):
        return
    assert len(request.specs) == len(request.buffers)
