"""Parameters of requests, inputs and outputs: what each may be, and what is refused."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from proto import grpc_service_pb2 as pb
from server.errors import InvalidRequest
from server.frontends.codec import PARAMETER_KINDS, decode_infer_request
from server.messages import InferenceRequest, RequestedOutput, SequenceFlags

VALUES: dict[str, Any] = {
    "bool_param": True,
    "int64_param": 5,
    "string_param": "text",
    "double_param": 0.5,
    "uint64_param": 2**63,
}


def decode(request: pb.ModelInferRequest) -> InferenceRequest:
    return decode_infer_request(request.SerializeToString(), deadline=inf)


def with_parameter(key: str, kind: str, value: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(model_name="m", parameters={key: pb.InferParameter(**{kind: value})})


def with_output(key: str, kind: str, value: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m")
    request.outputs.add(name="y", parameters={key: pb.InferParameter(**{kind: value})})
    return request


def test_every_kind_of_parameter_is_tried_here() -> None:
    assert set(VALUES) == {field.name for field in pb.InferParameter.DESCRIPTOR.fields}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("key", PARAMETER_KINDS)
def test_a_reserved_parameter_has_its_kinds_and_no_other(key: str, kind: str) -> None:
    request = with_parameter(key, kind, VALUES[kind])
    if kind in PARAMETER_KINDS[key]:
        decode(request)
        return
    with pytest.raises(InvalidRequest) as caught:
        decode(request)
    expected = " or ".join(PARAMETER_KINDS[key])
    assert str(caught.value) == f"invalid value type for '{key}' parameter, expected {expected}."


def test_a_reserved_parameter_without_a_value_is_refused() -> None:
    request = pb.ModelInferRequest(model_name="m", parameters={"timeout": pb.InferParameter()})
    with pytest.raises(InvalidRequest, match="invalid value type for 'timeout' parameter, expected int64_param"):
        decode(request)


@pytest.mark.parametrize("kind", VALUES)
def test_a_parameter_of_the_models_own_may_be_of_any_kind(kind: str) -> None:
    assert decode(with_parameter("temperature", kind, VALUES[kind])).specs == ()


def test_a_parameter_of_the_models_own_needs_a_value() -> None:
    request = pb.ModelInferRequest(model_name="m", parameters={"temperature": pb.InferParameter()})
    with pytest.raises(InvalidRequest, match="expected int64_param, bool_param"):
        decode(request)


def test_a_key_that_is_reserved_for_the_server_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(with_parameter("triton_secret", "int64_param", 1))
    assert str(caught.value) == (
        "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting with "
        "'triton_' are allowed: triton_enable_empty_final_response; got 'triton_secret'"
    )


def test_a_timeout_is_in_microseconds() -> None:
    assert decode(with_parameter("timeout", "int64_param", 1500)).timeout_us == 1500


@pytest.mark.parametrize("kind", ["int64_param", "uint64_param"])
def test_a_priority_comes_as_a_signed_or_an_unsigned_number(kind: str) -> None:
    assert decode(with_parameter("priority", kind, 3)).priority == 3


@pytest.mark.parametrize("key", ["timeout", "priority"])
def test_a_negative_number_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(with_parameter(key, "int64_param", -1))
    assert str(caught.value) == f"invalid value for '{key}' parameter, expected >= 0, got -1."


def test_zero_is_no_timeout() -> None:
    assert decode(with_parameter("timeout", "int64_param", 0)).timeout_us == 0


def test_the_top_classes_of_an_output_can_be_asked_for() -> None:
    assert decode(with_output("classification", "int64_param", 3)).outputs == (RequestedOutput("y", 3),)


def test_an_unknown_parameter_of_an_output_is_ignored() -> None:
    assert decode(with_output("binary_data", "bool_param", True)).outputs == (RequestedOutput("y"),)


@pytest.mark.parametrize("kind", sorted(set(VALUES) - {"int64_param"}))
def test_a_number_of_classes_is_an_integer(kind: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(with_output("classification", kind, VALUES[kind]))
    assert str(caught.value) == (
        "invalid value type for 'classification' parameter of output 'y', expected int64_param"
    )


@pytest.mark.parametrize("count", [0, -1])
def test_a_number_of_classes_is_positive(count: int) -> None:
    with pytest.raises(InvalidRequest, match="invalid value for 'classification' parameter of output 'y', expected >="):
        decode(with_output("classification", "int64_param", count))


def test_an_unknown_parameter_of_an_input_is_ignored() -> None:
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"\1"])
    anything = {"anything": pb.InferParameter(bool_param=True)}
    request.inputs.add(name="x", datatype="UINT8", shape=[1], parameters=anything)
    assert decode(request).buffers == (b"\1",)


SEQUENCES: dict[str, tuple[dict[str, pb.InferParameter], SequenceFlags | None]] = {
    "none": ({}, None),
    "zero": ({"sequence_id": pb.InferParameter(int64_param=0)}, None),
    "a number": ({"sequence_id": pb.InferParameter(int64_param=-7)}, SequenceFlags(-7)),
    "a large number": ({"sequence_id": pb.InferParameter(uint64_param=2**64 - 1)}, SequenceFlags(2**64 - 1)),
    "text": ({"sequence_id": pb.InferParameter(string_param="tale")}, SequenceFlags("tale")),
    "the longest text": ({"sequence_id": pb.InferParameter(string_param="é" * 64)}, SequenceFlags("é" * 64)),
    "a start without an id": (
        {"sequence_start": pb.InferParameter(bool_param=True)},
        SequenceFlags(0, start=True),
    ),
    "everything": (
        {
            "sequence_id": pb.InferParameter(int64_param=3),
            "sequence_start": pb.InferParameter(bool_param=True),
            "sequence_end": pb.InferParameter(bool_param=True),
        },
        SequenceFlags(3, start=True, end=True),
    ),
}


@pytest.mark.parametrize(("parameters", "expected"), SEQUENCES.values(), ids=SEQUENCES)
def test_the_sequence_of_a_request_is_read(
    parameters: dict[str, pb.InferParameter], expected: SequenceFlags | None
) -> None:
    assert decode(pb.ModelInferRequest(model_name="m", parameters=parameters)).sequence == expected


def test_an_id_of_too_many_bytes_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'sequence_id' parameter, expected at most 128 bytes, got 130"):
        decode(with_parameter("sequence_id", "string_param", "é" * 65))


def test_requests_that_differ_in_their_sequence_alone_are_not_taken_for_each_other() -> None:
    for _ in range(2):
        for name in ("one", "two", "six"):
            request = with_parameter("sequence_id", "string_param", name)
            request.inputs.add(name="x", datatype="UINT8", shape=[1])
            request.raw_input_contents.append(b"x")
            assert decode(request).sequence == SequenceFlags(name)
