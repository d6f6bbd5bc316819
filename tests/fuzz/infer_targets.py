"""Requests for inference, in both protocols: taken as a slow and plain reading of them takes them, or refused well."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from math import inf, prod
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from proto import grpc_service_pb2 as pb
from server.errors import ConvoyError, InvalidRequest
from server.frontends.calls import StreamMethod
from server.frontends.codec import RAW_INPUT_TAG, TYPED_FIELDS, Head, decode_infer_request, head_of
from server.frontends.inference_service import SERVICE
from server.frontends.rest import generate_codec, infer_codec, json_tensors
from server.frontends.rest.json_tensors import MAX_CONTAINERS, NonFinite
from server.messages import InferenceRequest
from server.tensors import BF16, BOOL, BYTES, DATATYPES, FLOATS, FP16, DataType
from tests.fakes import FakeCall
from tests.fuzz.checks import check_message, check_refusal
from tests.fuzz.mutators import number, split_messages, split_protobuf
from tests.fuzz.serving import CONFIGS, FuzzedServer, Taken

SERVER = FuzzedServer()
STREAM = SERVER.methods[f"/{SERVICE}/ModelStreamInfer"]


# --- ModelInfer ---


def fuzz_infer(data: bytes) -> None:
    """A ModelInferRequest: protobuf's own reading and ours agree, the second time too, and admission takes it whole."""
    SERVER.forget()
    expected = reading(plain_request, data)
    for message in (data, data, _with_other_contents(data)):
        wanted = expected if message is data else reading(plain_request, message)
        got = reading(lambda text: as_plain(decode_infer_request(text, inf)), message)
        agree(got, wanted, has_groups(message))
    SERVER.forget()
    try:
        request = decode_infer_request(data, inf)
    except ConvoyError as error:
        check_refusal(error, *contents_of(data), beside=b"".join(tag + rest for tag, rest in outside(data)))
        return
    answered(request, data)


def fuzz_stream(data: bytes) -> None:
    """Messages of one stream: an answer to each, in their order, whichever of them are wrong."""
    SERVER.forget()
    assert isinstance(STREAM, StreamMethod)
    call = FakeCall(metadata={"triton_grpc_error": "true"} if data[0] % 4 == 3 else {})
    stream = STREAM.open(call)
    messages = [message for _, message in split_messages(data[1:])]
    for message in messages:
        if call.status is None:
            stream.message(message)
    if call.status is None:
        stream.half_closed()
        assert len(call.sent) == len(messages)
    else:
        check_message(call.message)
    for message, sent in zip(messages, call.sent, strict=False):
        answer = pb.ModelStreamInferResponse.FromString(sent)
        assert answer.infer_response.parameters["triton_final_response"].bool_param
        if answer.error_message:
            check_message(answer.error_message)
        else:
            assert answer.infer_response.id == pb.ModelInferRequest.FromString(message).id
            assert not answer.infer_response.outputs or len(answer.infer_response.raw_output_contents) == len(
                answer.infer_response.outputs
            )


def answered(request: InferenceRequest, message: bytes = b"") -> None:
    """Engine and admission: one answer, which is a refusal or what the request said."""
    answers: list[Any] = []
    SERVER.engine.infer(request, answers.append)
    (answer,) = answers
    if isinstance(answer, ConvoyError):
        check_refusal(answer, *contents_of(message), beside=b"".join(tag + rest for tag, rest in outside(message)))
        return
    (taken,) = SERVER.taken()
    check_taken(taken)


def check_taken(taken: Taken) -> None:
    """What was admitted has the sizes that its shapes say, and the limits of its model."""
    request, plan = taken.request, taken.plan
    config = next(config for config in CONFIGS if config.name == request.model_name)
    assert 1 <= plan.rows <= max(1, config.max_batch_size)
    assert sorted(spec.name for spec in request.specs) == sorted(tensor.name for tensor in config.inputs)
    for layout, place, data in zip(plan.layout.inputs, plan.order, taken.inputs, strict=True):
        spec = request.specs[place]
        tensor = next(tensor for tensor in config.inputs if tensor.name == spec.name)
        if plan.pictures_at >= 0:
            continue
        elements = prod(spec.shape)
        dims = spec.shape[1:] if config.max_batch_size else spec.shape
        assert spec.datatype == tensor.datatype.name
        assert len(dims) == len(tensor.dims)
        assert all(want in (-1, got) for want, got in zip(tensor.dims, dims, strict=True))
        assert not config.max_batch_size or spec.shape[0] == plan.rows
        if tensor.datatype is BYTES:
            assert len(data) == elements and all(isinstance(text, str) for text in data)
        else:
            assert (data.nbytes if isinstance(data, np.ndarray) else len(data)) == elements * tensor.datatype.itemsize
            assert prod(layout.row_shape) * (plan.rows if config.max_batch_size else 1) == elements


def reading(read: Callable[[bytes], Any], data: bytes) -> Any:
    """What somebody reads, or the error."""
    try:
        return read(data)
    except ConvoyError as error:
        return error


def agree(got: Any, wanted: Any, groups: bool) -> None:
    """`groups`: what gRPC never had may be refused where protobuf skips it."""
    if isinstance(got, ConvoyError) and groups:
        return
    if isinstance(wanted, ConvoyError) or isinstance(got, ConvoyError):
        assert type(got) is type(wanted), (got, wanted)
    else:
        assert got == wanted, (got, wanted)


def plain_request(message: bytes) -> tuple[Head, str, list[Any]]:
    """A request as protobuf reads it, and typed contents one by one. Raises `InvalidRequest`."""
    try:
        wire = pb.ModelInferRequest.FromString(message)
    except DecodeError:
        raise InvalidRequest("no message") from None
    head = head_of(wire)
    places = head.shared.inputs if head.shared is not None else (None,) * len(head.specs)
    if not wire.raw_input_contents:
        contents = [plain_contents(tensor) if tensor.HasField("contents") else None for tensor in wire.inputs]
        return head._replace(explicit_input=""), wire.id, contents
    raw = list(wire.raw_input_contents)
    if head.explicit_input or len(raw) > places.count(None):
        raise InvalidRequest("contents for nobody")
    return head, wire.id, [(raw.pop(0) if raw else None) if place is None else None for place in places]


def plain_contents(tensor: pb.ModelInferRequest.InferInputTensor) -> Any:
    if tensor.datatype not in TYPED_FIELDS:
        raise InvalidRequest("no such field")
    values = getattr(tensor.contents, TYPED_FIELDS[tensor.datatype])
    if tensor.datatype == "BYTES":
        return list(values)
    return b"".join(packed(DATATYPES[tensor.datatype], value) for value in values)


FORMATS = {"FP16": "<e", "FP32": "<f", "FP64": "<d"}


def packed(datatype: DataType, value: Any) -> bytes:
    """One element as the protocol has it. Raises `InvalidRequest` where it does not fit."""
    if datatype.name in FORMATS:
        try:
            return struct.pack(FORMATS[datatype.name], value)
        except OverflowError:
            raise InvalidRequest("does not fit") from None
    try:
        return int(value).to_bytes(datatype.itemsize, "little", signed=datatype.name.startswith("INT"))
    except OverflowError:
        raise InvalidRequest("does not fit") from None


def as_plain(request: InferenceRequest) -> tuple[Head, str, list[Any]]:
    head = Head(
        request.model_name, request.model_version, request.specs, request.outputs, request.timeout_us,
        request.priority, request.sequence, "", request.shared,
    )  # fmt: skip
    return head, request.request_id, plain_buffers(request)


def plain_buffers(request: InferenceRequest) -> list[Any]:
    return [
        None if data is None else data.tolist() if isinstance(data, np.ndarray) else bytes(data)  # type: ignore[arg-type]
        for data in request.buffers
    ]


def outside(message: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of a request but its raw contents."""
    return [(tag, rest) for tag, rest in split_protobuf(message) if number(tag)[0] != RAW_INPUT_TAG]


def contents_of(message: bytes) -> list[bytes]:
    return [contents for tag, contents in split_protobuf(message) if number(tag)[0] == RAW_INPUT_TAG]


def has_groups(message: bytes) -> bool:
    """Whether a message may have groups (wire types 3 and 4), or is no message at all."""
    return bool(message) and not split_protobuf(message)


def _with_other_contents(message: bytes) -> bytes:
    """The next request of the same caller: what it remembered of the last one must not come back."""
    return message[:-1] + bytes((message[-1] ^ 1,)) if message else message


# --- HTTP bodies ---


def fuzz_http_body(data: bytes) -> None:
    """JSON, with binary tensors behind it or without: numbers exactly as they stand there, or a refusal."""
    SERVER.forget()
    words, choice, body = (NonFinite.REFUSE, NonFinite.WORDS)[data[0] & 1], data[1], data[2:]
    config = CONFIGS[choice % len(CONFIGS)]
    end = body.find(b"\0")
    json_length = None if end < 0 else end + (data[0] >> 1) % 3
    text = body.replace(b"\0", b"", 1) if end >= 0 else body

    def decode(body: bytes) -> tuple[Any, Any]:
        request, wanted = infer_codec.decode(config.name, "", memoryview(body), json_length, inf, words)
        return request, wanted

    first, second = reading(decode, text), reading(decode, text)
    if isinstance(first, ConvoyError):
        check_refusal(first)
        assert type(second) is type(first)
        return
    request, _ = first
    assert as_plain(request) == as_plain(second[0]), "remembered wrongly"
    said = json.loads(text[:json_length].decode())
    rest = text[len(text) if json_length is None else json_length :]
    for tensor, spec, got in zip(said["inputs"], request.specs, plain_buffers(request), strict=True):
        assert (tensor["name"], tensor["datatype"], tuple(tensor["shape"])) == tuple(spec)
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        if size is not None:
            assert got == rest[:size]
            rest = rest[size:]
    assert not rest
    answered(request)


def fuzz_json_tensor(data: bytes) -> None:
    """One tensor in JSON against a slow reading of the same text; and back."""
    datatype = list(DATATYPES.values())[data[0] % len(DATATYPES)]
    words, text = (NonFinite.REFUSE, NonFinite.WORDS)[data[1] & 1], data[2:]
    expected = reading(lambda text: plain_json(datatype, text, words), text)

    def decode(text: bytes) -> Any:
        array = json_tensors.decode("x", datatype, json_tensors.parse(text, words), words)
        return array.tolist() if isinstance(array, np.ndarray) else bytes(array)

    got = reading(decode, text)
    if isinstance(got, ConvoyError):
        check_refusal(got)
    assert isinstance(got, ConvoyError) == isinstance(expected, ConvoyError), (got, expected)
    if not isinstance(got, ConvoyError):
        assert got == expected, (got, expected)


MAX_DEPTH = 1024
"""Of orjson: deeper lists are refused."""


def plain_json(datatype: DataType, text: bytes, words: NonFinite) -> Any:
    """The tensor by Python's own parser, element by element. Raises `InvalidRequest`."""
    finite = words is NonFinite.REFUSE
    try:
        said = json.loads(
            text.decode(), parse_constant=_refuse if finite else float, parse_int=_integer, parse_float=_float
        )
        json.dumps(said, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise InvalidRequest("no JSON") from None
    if not isinstance(said, list) or datatype in (FP16, BF16) or _depth(text) > MAX_DEPTH:
        raise InvalidRequest("no list")
    if text.count(b"[") + text.count(b"{") > MAX_CONTAINERS:
        raise InvalidRequest("too many")
    values = said
    while values and isinstance(values[0], list):
        if not all(isinstance(each, list) for each in values):
            raise InvalidRequest("ragged")
        values = [value for each in values for value in each]
    return [_text(value) for value in values] if datatype is BYTES else b"".join(
        _element(datatype, value, finite) for value in values
    )  # fmt: skip


def _integer(digits: str) -> int | float:
    """Integers of more than 64 bits are floats to orjson; Python's parser has no more than 4300 digits."""
    return value if -(2**63) <= (value := int(digits[:40])) < 2**64 and len(digits) < 40 else _float(digits)


def _float(digits: str) -> float:
    if abs(value := float(digits)) == inf:
        raise ValueError(digits)
    return value


def _refuse(word: str) -> float:
    raise ValueError(word)


def _depth(text: bytes) -> int:
    deepest = depth = 0
    for byte in text:
        depth += (byte in b"[{") - (byte in b"]}")
        deepest = max(deepest, depth)
    return deepest


def _text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise InvalidRequest("no text")
    return value.encode()


def _element(datatype: DataType, value: Any, finite: bool) -> bytes:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if datatype is BOOL and isinstance(value, bool):
        return bytes((value,))
    if datatype in FLOATS and (is_number or isinstance(value, float)):
        return packed(datatype, float(value))
    if datatype is not BOOL and datatype not in FLOATS and is_number:
        return packed(datatype, value)
    raise InvalidRequest("of another type")


def fuzz_generate(data: bytes) -> None:
    """A generate body: a tensor of the model's shape for each key that is an input's."""
    SERVER.forget()
    config, text = CONFIGS[data[0] % len(CONFIGS)], data[1:]
    batched = config.max_batch_size > 0

    def decode(text: bytes) -> InferenceRequest:
        return generate_codec.decode(config.name, "", config.inputs, batched, text, inf, NonFinite.REFUSE)

    request = reading(decode, text)
    if isinstance(request, ConvoyError):
        check_refusal(request)
        return
    for spec, buffer in zip(request.specs, plain_buffers(request), strict=True):
        size = len(buffer) if spec.datatype == "BYTES" else len(buffer) // DATATYPES[spec.datatype].itemsize
        assert prod(spec.shape) == size
    answered(request)
