"""ModelInfer messages ↔ the server's own messages. Stateless, and tensor data is viewed, not copied, where it can be.

Both directions follow the KServe v2 gRPC protocol: raw contents are little-endian and row-major, and an answer has
exactly one entry of `raw_output_contents` for each output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from proto import grpc_service_pb2 as pb
from server.errors import InvalidRequest
from server.frontends.shared_tensors import beside_shared, encode_with_places, shared_places
from server.frontends.varints import read_varint, varint
from server.messages import (
    InferenceRequest,
    InferenceResponse,
    RequestedOutput,
    SequenceFlags,
    SharedPlaces,
    TensorSpec,
)
from server.tensors import BYTES, DATATYPES, LARGE_BYTES, Array, Buffer, Stored, encode_bytes_elements, joined

TYPED_FIELDS: dict[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where typed contents of each datatype lie. FP16 and BF16 have no field: they travel raw only."""

PARAMETER_KINDS: dict[str, tuple[str, ...]] = {
    "sequence_id": ("int64_param", "uint64_param", "string_param"),
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
    "priority": ("int64_param", "uint64_param"),
    "timeout": ("int64_param",),
    "triton_enable_empty_final_response": ("bool_param",),
}
"""Request parameters with a meaning, and the kinds of value that each may have."""

RESERVED_PREFIX = "triton_"
RESERVED_PARAMETERS = frozenset({*PARAMETER_KINDS, "headers", "binary_data_output"})
"""Names that no header may have which becomes a parameter."""

MAX_SEQUENCE_ID_BYTES = 128
"""Of an id that is text: as many as Triton takes."""

RAW_INPUT_TAG = 7 << 3 | 2  # raw_input_contents, length-delimited
REQUEST_ID_TAG = 3 << 3 | 2  # id of a request, length-delimited
RAW_OUTPUT_TAG = bytes((6 << 3 | 2,))  # raw_output_contents, length-delimited
ANSWER_ID_TAG = bytes((3 << 3 | 2,))  # id of an answer, length-delimited

REMEMBERED_HEAD_BYTES = 4096
REMEMBERED_TEMPLATES = 256


class Head(NamedTuple):
    """All of a request that decides its treatment. The same from call to call for most callers, so remembered."""

    model_name: str
    model_version: str
    specs: tuple[TensorSpec, ...]
    outputs: tuple[RequestedOutput, ...]
    timeout_us: int
    priority: int
    sequence: SequenceFlags | None
    explicit_input: str
    """An input that carries typed contents, "" where none does."""
    shared: SharedPlaces | None = None


class _Template(NamedTuple):
    """How a message began whose only raw contents came last: one of the same length that begins alike has the same
    head, and its contents in the same place."""

    beginning: bytes
    size: int
    head: Head


_templates: dict[int, _Template] = {}  # by the length of the message; a memory, as `lru_cache` is

_all_shared: dict[bytes, Head] = {}
"""Another memory, of messages with all inputs in shared memory: by the message without its id."""


def decode_infer_request(message: Buffer, deadline: float) -> InferenceRequest:
    """A serialized ModelInferRequest as an `InferenceRequest`. Raises `InvalidRequest` and `Unsupported`.

    Raw contents are views of `message`.
    """
    view = memoryview(message)
    template = _templates.get(len(view))
    if template is not None:
        beginning, size, head = template
        if bytes(view[:size]) == beginning:
            return request_of(head, "", (view[size:],), deadline)
    return _decode(view, deadline)


def request_of(
    head: Head, request_id: str, buffers: tuple[Buffer | Array | Stored | None, ...], deadline: float
) -> InferenceRequest:
    """A request of its head and what differs every time."""
    model_name, version, specs, outputs, timeout_us, priority, sequence, _, shared = head
    return InferenceRequest(
        model_name, version, request_id, specs, buffers, outputs, timeout_us, priority, deadline, sequence, shared
    )


def _decode(message: memoryview, deadline: float) -> InferenceRequest:
    rest, request_id, raw = _split(message)
    buffers: list[Buffer | Array | Stored | None]
    if raw:
        head = _remembered_head(rest) if len(rest) <= REMEMBERED_HEAD_BYTES else head_of(_parse(rest))
        if head.explicit_input:
            raise InvalidRequest(
                f"unexpected explicit tensor data for input tensor '{head.explicit_input}' for model "
                f"'{head.model_name}', binary data was already supplied."
            )
        if head.shared is not None:
            buffers = beside_shared(head.model_name, raw, head.shared.inputs)
        else:
            if len(raw) > len(head.specs):
                raise InvalidRequest(
                    f"the request for model '{head.model_name}' has {len(head.specs)} inputs, "
                    f"but raw_input_contents for {len(raw)}"
                )
            buffers = [*raw, *[None] * (len(head.specs) - len(raw))]
    elif _all_shared and len(rest) <= REMEMBERED_HEAD_BYTES and rest in _all_shared:
        head = _all_shared[rest]
        buffers = [None] * len(head.specs)
    else:
        wire = _parse(rest)
        head = head_of(wire)
        if _is_all_shared(head) and len(rest) <= REMEMBERED_HEAD_BYTES:
            if len(_all_shared) >= REMEMBERED_TEMPLATES:
                _all_shared.clear()
            _all_shared[rest] = head
        buffers = [_typed(head.model_name, tensor) if tensor.HasField("contents") else None for tensor in wire.inputs]
    plain = not request_id and head.sequence is None  # the head of a request of a sequence is not met again soon
    if len(raw) == len(head.specs) == 1 and plain and len(rest) <= REMEMBERED_HEAD_BYTES:
        size = len(message) - len(raw[0])
        # The contents come last, after their tag and length: not so where an empty id follows them.
        if bytes(message[:size]) == rest + bytes((RAW_INPUT_TAG,)) + varint(len(raw[0])):
            if len(_templates) >= REMEMBERED_TEMPLATES:
                _templates.clear()
            _templates[len(message)] = _Template(bytes(message[:size]), size, head)
    return request_of(head, request_id, tuple(buffers), deadline)


def _is_all_shared(head: Head) -> bool:
    """Whether a message of this head brings no contents, and another like it may come."""
    return head.shared is not None and None not in head.shared.inputs and head.sequence is None


def encode_infer_response(response: InferenceResponse) -> Buffer:
    """An answer as a serialized ModelInferResponse."""
    if response.places:
        return encode_with_places(response)
    outputs = response.outputs
    described: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    for tensor in outputs:  # written out: a comprehension is a call more
        described += ((tensor.name, tensor.datatype.name, tensor.shape),)
    parts: list[bytes | memoryview] = [_header(response.model_name, response.model_version, described)]
    if response.request_id:
        encoded = response.request_id.encode()
        parts += (ANSWER_ID_TAG, varint(len(encoded)), encoded)
    is_large = False
    for tensor in outputs:
        data = tensor.data
        size = data.nbytes
        if tensor.datatype is BYTES:
            contents = encode_bytes_elements(data)
            parts += (_raw_output(len(contents)), contents)
        elif size < LARGE_BYTES:
            parts += (_raw_output(size), data.tobytes())
        else:
            is_large = True
            parts += (_raw_output(size), np.ascontiguousarray(data).data)
    return joined(parts) if is_large else b"".join(parts)


def delimited(field: int, *contents: Buffer) -> bytes:
    """A message whose only field is this one, length-delimited."""
    return b"".join((bytes((field << 3 | 2,)), varint(sum(map(len, contents))), *contents))


@lru_cache(maxsize=256)
def _raw_output(size: int) -> bytes:
    """What stands in front of an output's contents of so many bytes."""
    return RAW_OUTPUT_TAG + varint(size)


@lru_cache(maxsize=1024)
def _header(model_name: str, model_version: str, outputs: tuple[tuple[str, str, tuple[int, ...]], ...]) -> bytes:
    """The part of an answer that is the same for every request of one shape."""
    message = pb.ModelInferResponse(model_name=model_name, model_version=model_version)
    for name, datatype, shape in outputs:
        message.outputs.add(name=name, datatype=datatype, shape=shape)
    return message.SerializeToString()


def _split(message: Buffer) -> tuple[bytes, str, list[memoryview]]:
    """A ModelInferRequest taken apart without being parsed: the rest, the id, and views of the raw contents.

    Walks the top-level fields (protobuf's encoding guide: a tag, then a varint, 8 bytes, a length and bytes, or 4).
    """
    view = memoryview(message)
    end = len(view)
    raw: list[memoryview] = []
    request_id = ""
    rest: list[memoryview] = []
    kept = position = 0  # what lies between them belongs to the rest
    try:
        while position < end:
            start = position
            tag = view[position]
            position += 1
            if tag & 0x80:
                tag, position = read_varint(view, start)
            wire_type = tag & 7
            if wire_type == 2:
                length = view[position]
                position += 1
                if length & 0x80:
                    length, position = read_varint(view, position - 1)
                content, position = position, position + length
                if position > end:
                    raise _broken("a field is cut off")
                if tag in (RAW_INPUT_TAG, REQUEST_ID_TAG):
                    if kept < start:
                        rest.append(view[kept:start])
                    kept = position
                    if tag == RAW_INPUT_TAG:
                        raw.append(view[content:position])
                    else:
                        request_id = str(view[content:position], "utf-8")
            elif wire_type == 0:
                _, position = read_varint(view, position)
            elif wire_type in (1, 5):
                position += 8 if wire_type == 1 else 4
            else:
                raise _broken(f"wire type {wire_type}")
    except IndexError:
        raise _broken("it is cut off") from None
    except UnicodeDecodeError:
        raise _broken("its id is not UTF-8") from None
    except ValueError as error:
        raise _broken(str(error)) from None
    if kept < end:
        rest.append(view[kept:end])
    return b"".join(rest), request_id, raw


def _broken(problem: str) -> InvalidRequest:
    return InvalidRequest(f"the message is not a ModelInferRequest: {problem}")


def _parse(message: bytes) -> pb.ModelInferRequest:
    try:
        return pb.ModelInferRequest.FromString(message)
    except DecodeError as error:
        raise _broken(str(error)) from None


def head_of(wire: pb.ModelInferRequest) -> Head:
    """What decides the treatment of a request, checked. Raises `InvalidRequest` and `Unsupported`."""
    specs: list[TensorSpec] = []
    explicit_input = ""
    for tensor in wire.inputs:
        specs.append(TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape)))
        if not explicit_input and tensor.HasField("contents"):
            explicit_input = tensor.name
    timeout_us, priority, sequence = _parameters(wire.parameters)
    outputs = tuple(_requested_output(output) for output in wire.outputs)
    shared = shared_places(wire)
    name, version = wire.model_name, wire.model_version
    return Head(name, version, tuple(specs), outputs, timeout_us, priority, sequence, explicit_input, shared)


@lru_cache(maxsize=1024)
def _remembered_head(rest: bytes) -> Head:
    return head_of(_parse(rest))


def _typed(model_name: str, tensor: pb.ModelInferRequest.InferInputTensor) -> Buffer | Array:
    """Typed contents as raw bytes, or as an object array of bytes for BYTES."""
    field = TYPED_FIELDS.get(tensor.datatype)
    if field is None:
        known = tensor.datatype in DATATYPES
        hint = "send it in raw_input_contents" if known else "it is not a datatype of the protocol"
        raise InvalidRequest(
            f"typed contents of datatype '{tensor.datatype}' for input '{tensor.name}' for model '{model_name}' "
            f"are not possible: {hint}"
        )
    values: Sequence[Any] = getattr(tensor.contents, field)
    datatype = DATATYPES[tensor.datatype]
    if datatype is BYTES:
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    try:
        return np.array(values, dtype=datatype.dtype).tobytes()
    except OverflowError:
        raise InvalidRequest(
            f"a value of input '{tensor.name}' for model '{model_name}' does not fit into {tensor.datatype}"
        ) from None


def _requested_output(output: pb.ModelInferRequest.InferRequestedOutputTensor) -> RequestedOutput:
    if not output.parameters:
        return RequestedOutput(output.name)
    parameter = output.parameters.get("classification")
    if parameter is None:
        return RequestedOutput(output.name)
    if parameter.WhichOneof("parameter_choice") != "int64_param":
        raise InvalidRequest(
            f"invalid value type for 'classification' parameter of output '{output.name}', expected int64_param"
        )
    if parameter.int64_param <= 0:
        raise InvalidRequest(f"invalid value for 'classification' parameter of output '{output.name}', expected >= 1")
    return RequestedOutput(output.name, parameter.int64_param)


def _parameters(parameters: Mapping[str, pb.InferParameter]) -> tuple[int, int, SequenceFlags | None]:
    """Timeout in µs, priority, and the sequence that the request belongs to."""
    values: dict[str, Any] = {}
    for key, parameter in sorted(parameters.items()):  # a map has another order in each process
        kinds = PARAMETER_KINDS.get(key)
        if kinds is None:
            _check_own_parameter(key, parameter)
            continue
        kind = parameter.WhichOneof("parameter_choice")
        if kind not in kinds:
            raise InvalidRequest(f"invalid value type for '{key}' parameter, expected {' or '.join(kinds)}.")
        value = values[key] = getattr(parameter, kind)
        if key in ("timeout", "priority") and value < 0:
            raise InvalidRequest(f"invalid value for '{key}' parameter, expected >= 0, got {value}.")
    sequence_id: int | str = values.get("sequence_id", 0)
    if isinstance(sequence_id, str) and len(sequence_id.encode()) > MAX_SEQUENCE_ID_BYTES:
        raise InvalidRequest(
            f"invalid value for 'sequence_id' parameter, expected at most {MAX_SEQUENCE_ID_BYTES} bytes, "
            f"got {len(sequence_id.encode())}."
        )
    sequence = SequenceFlags(sequence_id, values.get("sequence_start", False), values.get("sequence_end", False))
    return values.get("timeout", 0), values.get("priority", 0), sequence if any(sequence) else None


def _check_own_parameter(key: str, parameter: pb.InferParameter) -> None:
    """A parameter of the model's own may be of any kind, and changes nothing: ONNX graphs take none."""
    if key.startswith(RESERVED_PREFIX):
        allowed = " ".join(name for name in PARAMETER_KINDS if name.startswith(RESERVED_PREFIX))
        raise InvalidRequest(
            f"parameter keys starting with '{RESERVED_PREFIX}' are reserved for Triton usage. Only the following keys "
            f"starting with '{RESERVED_PREFIX}' are allowed: {allowed}; got '{key}'"
        )
    if parameter.WhichOneof("parameter_choice") is None:
        raise InvalidRequest(
            f"invalid value type for '{key}' parameter, expected int64_param, bool_param, string_param, double_param "
            "or uint64_param."
        )
