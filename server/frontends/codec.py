"""ModelInfer messages ↔ the server's own messages. Stateless, and tensor data is viewed, not copied, where it can be.

Both directions follow the KServe v2 gRPC protocol: raw contents are little-endian and row-major, and an answer has
exactly one entry of `raw_output_contents` for each output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from proto import grpc_service_pb2 as pb
from server.errors import InvalidRequest, Unsupported
from server.messages import InferenceRequest, InferenceResponse, RequestedOutput, TensorSpec
from server.tensors import BYTES, DATATYPES, Array, Buffer, encode_bytes_elements

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
    "sequence_id": ("int64_param", "string_param"),
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
    "priority": ("uint64_param", "int64_param"),
    "timeout": ("int64_param",),
    "triton_enable_empty_final_response": ("bool_param",),
}
"""Reserved request parameters and the kinds of value that each may have."""

RAW_OUTPUT_TAG = b"\x32"  # field 6 (raw_output_contents), length-delimited
ID_TAG = b"\x1a"  # field 3 (id), length-delimited


def decode_infer_request(message: bytes, deadline: float) -> InferenceRequest:
    """A serialized ModelInferRequest as an `InferenceRequest`. Raises `InvalidRequest` and `Unsupported`."""
    try:
        wire = pb.ModelInferRequest.FromString(message)
    except DecodeError as error:
        raise InvalidRequest(f"the message is not a ModelInferRequest: {error}") from None
    raw = wire.raw_input_contents
    specs: list[TensorSpec] = []
    buffers: list[Buffer | Array | None] = []
    for tensor in wire.inputs:
        if tensor.parameters:
            _refuse_shared_memory(tensor.parameters, "input", tensor.name)
        specs.append(TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape)))
        if raw:
            if tensor.HasField("contents"):
                raise InvalidRequest(
                    f"unexpected explicit tensor data for input tensor '{tensor.name}' for model '{wire.model_name}', "
                    "binary data was already supplied."
                )
            buffers.append(raw[len(buffers)] if len(buffers) < len(raw) else None)
        else:
            buffers.append(_typed(wire.model_name, tensor) if tensor.HasField("contents") else None)
    if len(raw) > len(specs):
        raise InvalidRequest(
            f"the request for model '{wire.model_name}' has {len(specs)} inputs, but raw_input_contents for {len(raw)}"
        )
    request = InferenceRequest(
        model_name=wire.model_name,
        model_version=wire.model_version,
        request_id=wire.id,
        specs=tuple(specs),
        buffers=tuple(buffers),
        outputs=tuple(_requested_output(output) for output in wire.outputs),
        deadline=deadline,
    )
    if wire.parameters:
        _apply_parameters(request, wire.parameters)
    return request


def encode_infer_response(response: InferenceResponse) -> bytes:
    """An answer as a serialized ModelInferResponse."""
    outputs = response.outputs
    parts: list[bytes | memoryview] = [
        _header(
            response.model_name,
            response.model_version,
            tuple([(tensor.name, tensor.datatype.name, tensor.shape) for tensor in outputs]),
        )
    ]
    if response.request_id:
        encoded = response.request_id.encode()
        parts += (ID_TAG, _varint(len(encoded)), encoded)
    for tensor in outputs:
        if tensor.datatype is BYTES:
            contents = encode_bytes_elements(tensor.data)
            parts += (RAW_OUTPUT_TAG, _varint(len(contents)), contents)
        else:
            array = np.ascontiguousarray(tensor.data)
            parts += (RAW_OUTPUT_TAG, _varint(array.nbytes), array.data)
    return b"".join(parts)


@lru_cache(maxsize=1024)
def _header(model_name: str, model_version: str, outputs: tuple[tuple[str, str, tuple[int, ...]], ...]) -> bytes:
    """The part of an answer that is the same for every request of one shape."""
    message = pb.ModelInferResponse(model_name=model_name, model_version=model_version)
    for name, datatype, shape in outputs:
        message.outputs.add(name=name, datatype=datatype, shape=shape)
    return message.SerializeToString()


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


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
    _refuse_shared_memory(output.parameters, "output", output.name)
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


def _refuse_shared_memory(parameters: Mapping[str, pb.InferParameter], kind: str, name: str) -> None:
    if any(key.startswith("shared_memory_") for key in parameters):
        raise Unsupported(
            f"{kind} '{name}' asks for shared memory, which this server does not offer; send the data itself"
        )


def _apply_parameters(request: InferenceRequest, parameters: Mapping[str, pb.InferParameter]) -> None:
    for key, parameter in parameters.items():
        kinds = PARAMETER_KINDS.get(key)
        if kinds is None:
            if key.startswith("triton_"):
                raise InvalidRequest(f"parameter keys starting with 'triton_' are reserved for the server, got '{key}'")
            continue  # a parameter of the model's own: ONNX graphs take none
        kind = parameter.WhichOneof("parameter_choice")
        if kind not in kinds:
            raise InvalidRequest(f"invalid value type for '{key}' parameter, expected {' or '.join(kinds)}.")
        if key in ("priority", "timeout"):
            value = getattr(parameter, kind)
            if value < 0:
                raise InvalidRequest(f"invalid value for '{key}' parameter, expected >= 0, got {value}.")
            if key == "timeout":
                request.timeout_us = value
            else:
                request.priority = value
