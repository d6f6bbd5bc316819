"""`POST …/infer`: HTTP bodies ↔ the server's own messages (KServe v2 REST, and Triton's binary tensor data extension).

A body is JSON, or JSON followed by raw tensors in the order of the inputs that announce a `binary_data_size`; the
header `Inference-Header-Content-Length` says where the JSON ends, and 0 that the whole body is the model's only input.
Raw tensors are views of the body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import orjson

from proto import grpc_service_pb2 as pb
from server.errors import InvalidRequest
from server.frontends.codec import Head, head_of, request_of
from server.frontends.rest import json_tensors
from server.frontends.rest.exchange import JSON, Content
from server.frontends.rest.json_tensors import NonFinite
from server.frontends.shared_tensors import place_parameters
from server.messages import InferenceRequest, InferenceResponse, OutputTensor, SharedPlace
from server.models.config_types import TensorConfig
from server.tensors import BYTES, DATATYPES, Array, Buffer, encode_bytes_elements, joined

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"

REMEMBERED_JSON_BYTES = 4096
REMEMBERED_JSONS = 256
MAX_INT64 = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which outputs the caller wants as binary data."""

    by_default: bool = False
    by_name: Mapping[str, bool] = field(default_factory=dict)


class JsonHead(NamedTuple):
    """What the JSON of a request says. The same from call to call for most callers of binary data, so remembered."""

    head: Head
    request_id: str
    sizes: tuple[int | None, ...]
    """The `binary_data_size` of each input; None where it has none."""
    data: tuple[object, ...]
    """The `data` of each input; None where it has none."""
    wanted: Wanted


_jsons: dict[tuple[str, str, bytes], JsonHead] = {}  # a memory, as `lru_cache` is, of those without data and id


def decode(
    model: str, version: str, body: memoryview, json_length: int | None, deadline: float, non_finite: NonFinite
) -> tuple[InferenceRequest, Wanted]:
    """A body as a request. `json_length` None: all of it is JSON. Raises `InvalidRequest` and `Unsupported`."""
    if json_length is None:
        json_length = len(body)
    elif json_length > len(body):
        raise InvalidRequest(f"{HEADER_LENGTH} is {json_length}, but the request's body has {len(body)} bytes")
    text = bytes(body[:json_length])
    key = (model, version, text)
    said = _jsons.get(key)
    if said is None:
        said = _read(model, version, json_tensors.parse(text, non_finite))
        if len(text) <= REMEMBERED_JSON_BYTES and _comes_again(said):
            if len(_jsons) >= REMEMBERED_JSONS:
                _jsons.clear()
            _jsons[key] = said
    buffers = _buffers(said, body[json_length:], non_finite)
    return request_of(said.head, said.request_id, buffers, deadline), said.wanted


def _comes_again(said: JsonHead) -> bool:
    """Whether other requests are likely to say the same."""
    return not said.request_id and said.head.sequence is None and not any(said.data)


def decode_raw(
    model: str, version: str, tensors: Sequence[TensorConfig], batched: bool, body: memoryview, deadline: float
) -> InferenceRequest:
    """A body that is one tensor, of a model with one input, as a batch of one. Raises `InvalidRequest`.

    BYTES take the body as their one element; at most one free dimension is found out from the body's size.
    """
    if len(tensors) != 1:
        raise InvalidRequest(f"a raw request needs a model with one input, but model '{model}' has {len(tensors)}")
    (tensor,) = tensors
    batch = (1,) if batched else ()
    buffer: Buffer | Array = body
    if tensor.datatype is BYTES:
        dims = tuple(1 if dim < 0 else dim for dim in tensor.dims)
        if prod(dims) != 1:
            raise InvalidRequest(f"a raw request has one element, but input '{tensor.name}' takes {list(tensor.dims)}")
        buffer = np.empty(1, object)
        buffer[0] = bytes(body)
    else:
        dims = _dims_by_size(tensor, len(body))
    wire = pb.ModelInferRequest(model_name=model, model_version=version)
    wire.inputs.add(name=tensor.name, datatype=tensor.datatype.name, shape=(*batch, *dims))
    return request_of(head_of(wire), "", (buffer,), deadline)


def _dims_by_size(tensor: TensorConfig, size: int) -> tuple[int, ...]:
    free = [dim for dim in tensor.dims if dim < 0]
    if not free:
        return tensor.dims
    row = tensor.datatype.itemsize * prod(dim for dim in tensor.dims if dim >= 0)
    if len(free) > 1 or row == 0 or size % row:
        raise InvalidRequest(
            f"the shape of input '{tensor.name}' cannot be told from a raw request of {size} bytes: it takes "
            f"{list(tensor.dims)} of {tensor.datatype.name}"
        )
    return tuple(size // row if dim < 0 else dim for dim in tensor.dims)


def encode(response: InferenceResponse, wanted: Wanted, non_finite: NonFinite) -> Content:
    """An answer's body, and what HTTP should say of it. Raises `InvalidRequest` for what JSON cannot say."""
    outputs: list[_Output] = []
    blobs: list[bytes | memoryview] = []
    for i, tensor in enumerate(response.outputs):
        place = response.places[i] if response.places else None
        if place is not None:
            outputs.append((tensor.name, tensor.datatype.name, tensor.shape, place))
        elif wanted.by_name.get(tensor.name, wanted.by_default):
            blob = _raw(tensor)
            blobs.append(blob)
            outputs.append((tensor.name, tensor.datatype.name, tensor.shape, len(blob)))
        else:
            outputs.append((tensor.name, tensor.datatype.name, tensor.shape, json_tensors.encode(tensor, non_finite)))
    text = _json(response.request_id, response.model_name, response.model_version, tuple(outputs))
    if not blobs:
        return Content(text, (("Content-Type", JSON),))
    headers = (("Content-Type", BINARY), (HEADER_LENGTH, str(len(text))))
    return Content(joined((text, *blobs)), headers)


def _raw(tensor: OutputTensor) -> bytes | memoryview:
    if tensor.datatype is BYTES:
        return encode_bytes_elements(tensor.data)
    return np.ascontiguousarray(tensor.data).reshape(-1).view(np.uint8).data


_Output = tuple[str, str, tuple[int, ...], int | bytes | SharedPlace]
"""Name, datatype, shape, and the size of its binary data, its data in JSON, or where in shared memory it is."""


def _json(request_id: str, model: str, version: str, outputs: tuple[_Output, ...]) -> bytes:
    if not request_id and all(isinstance(output[3], int) for output in outputs):
        return _remembered_json(model, version, outputs)
    return _make_json(request_id, model, version, outputs)


def _make_json(request_id: str, model: str, version: str, outputs: tuple[_Output, ...]) -> bytes:
    answer: dict[str, Any] = {"id": request_id} if request_id else {}
    answer |= {"model_name": model, "model_version": version}
    answer["outputs"] = [
        {"name": name, "datatype": datatype, "shape": shape, **_shown(data)} for name, datatype, shape, data in outputs
    ]
    return orjson.dumps(answer)


def _shown(data: int | bytes | SharedPlace) -> dict[str, object]:
    match data:
        case int():
            return {"parameters": {"binary_data_size": data}}
        case SharedPlace():
            return {"parameters": place_parameters(data)}
        case _:
            return {"data": orjson.Fragment(data)}


@lru_cache(maxsize=1024)
def _remembered_json(model: str, version: str, outputs: tuple[_Output, ...]) -> bytes:
    return _make_json("", model, version, outputs)


# --- what the JSON of a request says ---


def _read(model: str, version: str, said: object) -> JsonHead:
    fields = _object(said, "the request's JSON")
    wire = pb.ModelInferRequest(model_name=model, model_version=version)
    parameters = _parameters_of(fields, "the request")
    by_default = _take_flag(parameters, "binary_data_output", "the request")
    set_parameters(wire.parameters, parameters, "the request")
    inputs = [_object(tensor, "an input") for tensor in _list(fields, "inputs", "the request", needed=True)]
    sizes: list[int | None] = []
    data: list[object] = []
    for tensor in inputs:
        name = _string(tensor, "name", "an input")
        what = f"input '{name}'"
        own = _parameters_of(tensor, what)
        sizes.append(_take_size(own, what))
        data.append(tensor.get("data"))
        if sizes[-1] is not None and data[-1] is not None:
            raise InvalidRequest(f"{what} has both 'data' and 'binary_data_size'")
        field = wire.inputs.add(name=name, datatype=_string(tensor, "datatype", what), shape=_shape(tensor, what))
        set_parameters(field.parameters, own, what)
    by_name: dict[str, bool] = {}
    for output in _list(fields, "outputs", "the request"):
        tensor = _object(output, "an output")
        name = _string(tensor, "name", "an output")
        own = _parameters_of(tensor, f"output '{name}'")
        if "binary_data" in own:
            by_name[name] = _take_flag(own, "binary_data", f"output '{name}'")
        set_parameters(wire.outputs.add(name=name).parameters, own, f"output '{name}'")
    request_id = _string(fields, "id", "the request", default="")
    head = head_of(wire)
    if head.shared is not None:
        for spec, place, size, content in zip(head.specs, head.shared.inputs, sizes, data, strict=True):
            if place is not None and (size is not None or content is not None):
                raise InvalidRequest(f"input '{spec.name}' is in shared memory, and has data in the request as well")
    return JsonHead(head, request_id, tuple(sizes), tuple(data), Wanted(by_default, by_name))


def _buffers(said: JsonHead, binary: memoryview, non_finite: NonFinite) -> tuple[Buffer | Array | None, ...]:
    """The contents of each input: the next piece of the binary data, or what JSON has."""
    buffers: list[Buffer | Array | None] = []
    position = 0
    for spec, size, data in zip(said.head.specs, said.sizes, said.data, strict=True):
        if size is not None:
            if size > len(binary) - position:
                raise InvalidRequest(
                    f"input '{spec.name}' of model '{said.head.model_name}' announces {size} bytes of binary data, but "
                    f"{len(binary) - position} are left"
                )
            buffers.append(binary[position : position + size])
            position += size
        elif data is None:
            buffers.append(None)
        else:
            datatype = DATATYPES.get(spec.datatype)
            if datatype is None:
                raise InvalidRequest(f"input '{spec.name}' has an unknown datatype '{spec.datatype}'")
            buffers.append(json_tensors.decode(spec.name, datatype, data, non_finite))
    if position < len(binary):
        raise InvalidRequest(
            f"unexpected additional input data for model '{said.head.model_name}': {len(binary) - position} bytes "
            "follow those that its inputs announce"
        )
    return tuple(buffers)


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{what} must be an object")
    return value


def _list(fields: Mapping[str, Any], key: str, what: str, *, needed: bool = False) -> list[Any]:
    value = fields.get(key)
    if value is None and not needed:
        return []
    if not isinstance(value, list):
        raise InvalidRequest(f"'{key}' of {what} must be an array" if key in fields else f"{what} has no '{key}'")
    return value


def _string(fields: Mapping[str, Any], key: str, what: str, default: str | None = None) -> str:
    value = fields.get(key, default)
    if not isinstance(value, str):
        raise InvalidRequest(f"'{key}' of {what} must be a string" if key in fields else f"{what} has no '{key}'")
    return value


def _shape(fields: Mapping[str, Any], what: str) -> list[int]:
    shape = _list(fields, "shape", what, needed=True)
    if not all(type(dim) is int and abs(dim) <= MAX_INT64 for dim in shape):
        raise InvalidRequest(f"'shape' of {what} must be integers")
    return shape


def _parameters_of(fields: Mapping[str, Any], what: str) -> dict[str, Any]:
    """A copy, of which what concerns HTTP only is taken away."""
    parameters = fields.get("parameters")
    return {} if parameters is None else dict(_object(parameters, f"'parameters' of {what}"))


def _take_flag(parameters: dict[str, Any], key: str, what: str) -> bool:
    value = parameters.pop(key, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"parameter '{key}' of {what} must be true or false")
    return value


def _take_size(parameters: dict[str, Any], what: str) -> int | None:
    size = parameters.pop("binary_data_size", None)
    if size is not None and (type(size) is not int or size < 0):
        raise InvalidRequest(f"parameter 'binary_data_size' of {what} must be a number of bytes")
    return size


def set_parameters(wire: Any, parameters: Mapping[str, Any], what: str) -> None:
    """Parameters as gRPC would have them. Raises `InvalidRequest` for those of no type that one may have."""
    for key, value in parameters.items():
        match value:
            case bool():
                wire[key].bool_param = value
            case int() if value > MAX_INT64:
                wire[key].uint64_param = value
            case int():
                wire[key].int64_param = value
            case float():
                wire[key].double_param = value
            case str():
                wire[key].string_param = value
            case _:
                raise InvalidRequest(
                    f"parameter '{key}' of {what} has invalid type. It should be either 'int', 'bool', 'string' or "
                    "'double'."
                )
