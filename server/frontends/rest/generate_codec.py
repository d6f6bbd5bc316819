"""`…/generate`: JSON whose keys are inputs, parameters and outputs ↔ the server's own messages (Triton's generate
extension).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import orjson

from proto import grpc_service_pb2 as pb
from server.errors import InvalidRequest
from server.frontends.codec import head_of, request_of
from server.frontends.rest import json_tensors
from server.frontends.rest.exchange import JSON, Content
from server.frontends.rest.infer_codec import set_parameters
from server.frontends.rest.json_tensors import NonFinite
from server.messages import InferenceRequest, InferenceResponse
from server.models.config_types import TensorConfig
from server.tensors import BYTES, Array, Buffer

EVENTS = "text/event-stream"

NESTED = "parameters"
"""The key of an object whose keys are as good as those around it."""


def decode(
    model: str,
    version: str,
    tensors: Sequence[TensorConfig],
    batched: bool,
    text: bytes,
    deadline: float,
    non_finite: NonFinite,
) -> InferenceRequest:
    """A body as a request: keys that name inputs are tensors, `id` is the id, and all others are parameters.

    Raises `InvalidRequest`.
    """
    inputs = {tensor.name: tensor for tensor in tensors}
    wire = pb.ModelInferRequest(model_name=model, model_version=version)
    buffers: list[Buffer | Array | None] = []
    request_id = ""
    for key, value in _pairs(json_tensors.parse(text, non_finite) if text else {}, inputs):
        tensor = inputs.get(key)
        if tensor is not None:
            buffer, shape = _tensor(tensor, batched, value, non_finite)
            buffers.append(buffer)
            wire.inputs.add(name=key, datatype=tensor.datatype.name, shape=shape)
        elif key == "id":
            if not isinstance(value, str):
                raise InvalidRequest("'id' of the request must be a string")
            request_id = value
        else:
            set_parameters(wire.parameters, {key: value}, "the request")
    return request_of(head_of(wire), request_id, tuple(buffers), deadline)


def encode(response: InferenceResponse, non_finite: NonFinite, *, as_event: bool) -> Content:
    """An answer's body: a key for each output, an array where it has not exactly one element. With `as_event`, as the
    data of a server-sent event (WHATWG HTML, 9.2). Raises `InvalidRequest` for what JSON cannot say.
    """
    fields: dict[str, Any] = {"id": response.request_id} if response.request_id else {}
    fields |= {"model_name": response.model_name, "model_version": response.model_version}
    for tensor in response.outputs:
        if tensor.name in fields:
            raise InvalidRequest(f"the output '{tensor.name}' has a name of the answer's own: use infer")
        values = json_tensors.encode(tensor, non_finite)
        fields[tensor.name] = orjson.Fragment(values[1:-1] if prod(tensor.shape) == 1 else values)
    text = orjson.dumps(fields)
    if as_event:
        return Content(b"data: %b\n\n" % text, (("Content-Type", f"{EVENTS}; charset=utf-8"),))
    return Content(text, (("Content-Type", JSON),))


def _pairs(said: object, inputs: Iterable[str]) -> list[tuple[str, Any]]:
    """All keys and values, those of the nested object too."""
    if not isinstance(said, dict):
        raise InvalidRequest("the request's JSON must be an object")
    nested = said.pop(NESTED, {})
    if NESTED in inputs:
        raise InvalidRequest(f"Keyword '{NESTED}' for nested schema also given as input tensor name; use infer")
    if not isinstance(nested, dict):
        raise InvalidRequest(f"Expected JSON object for keyword: '{NESTED}'")
    return [*said.items(), *nested.items()]


def _tensor(
    tensor: TensorConfig, batched: bool, value: object, non_finite: NonFinite
) -> tuple[Buffer | Array, list[int]]:
    """One value, or an array of values, and the shape that it has: the innermost free dimension takes what the fixed
    ones leave, the others are 1.
    """
    data = value if isinstance(value, list) else [value]
    values = json_tensors.decode(tensor.name, tensor.datatype, data, non_finite)
    count = len(values) if tensor.datatype is BYTES else len(values) // tensor.datatype.itemsize
    dims = [*([-1] if batched else []), *tensor.dims]
    fixed = prod(dim for dim in dims if dim >= 0)
    rest, left = divmod(count, fixed) if fixed else (0, 1)
    if left or (rest != 1 and -1 not in dims):
        raise InvalidRequest(
            f"The schema can not convert input '{tensor.name}' to tensor with proper shape: it has {count} elements, "
            f"and the model takes {dims}"
        )
    innermost_free = max((axis for axis, dim in enumerate(dims) if dim < 0), default=-1)
    shape = [dim if dim >= 0 else rest if axis == innermost_free else 1 for axis, dim in enumerate(dims)]
    return values, shape
