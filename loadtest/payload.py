"""Requests made from a model's own metadata, and what makes an answer right. Pure: knows protobuf and numpy.

Values are random, and only their layout is the model's: good for measuring what a request costs, not what it means.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from loadtest.errors import LoadTestError, WrongAnswerError
from proto import grpc_service_pb2 as pb

Shape = tuple[int, ...]

# Integers stay below this, so that they are valid as indices into all but the smallest tables.
_INTEGERS_BELOW = 10
_BYTES_ELEMENT = 8
"""Digits of each element of BYTES: text that every model can read, and the spelling of a number."""

NUMPY_TYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
_ITEM_SIZE = {name: np.dtype(code).itemsize for name, code in NUMPY_TYPES.items()} | {"BF16": 2}


@dataclass(frozen=True)
class Description:
    """A model as its server describes it."""

    metadata: pb.ModelMetadataResponse
    batching: bool
    """Whether the first axis of each input is the batch axis."""
    takes_pictures: bool = False
    """Whether an input that is no BYTES may be sent as encoded pictures, which the server decodes."""
    takes_sequences: bool = False
    """Whether each request must say of which sequence it is a part."""


@dataclass(frozen=True)
class Tensor:
    """One input of one request."""

    name: str
    datatype: str
    shape: Shape
    """Whole, batch axis included."""
    data: bytes
    """As raw_input_contents has it."""


@dataclass(frozen=True)
class Workload:
    """What is sent to one model, and what it must answer."""

    model: str
    bodies: tuple[bytes, ...]
    """Serialised ModelInferRequests, alike in layout and different in values."""
    rows: int
    """What ModelStatistics counts for one request: its size along the batch axis, 1 for a model without one."""
    outputs: frozenset[str]
    """Names of all the model's outputs: no request selects fewer."""

    def check(self, answer: bytes) -> None:
        """`check_response` of a serialised ModelInferResponse."""
        self.check_response(pb.ModelInferResponse.FromString(answer))

    def check_response(self, response: pb.ModelInferResponse) -> None:
        """Raises WrongAnswerError unless `response` holds every output, whole, for as many rows as were asked."""
        if response.model_name != self.model:
            raise WrongAnswerError(f"asked '{self.model}', answered by '{response.model_name}'")
        if {output.name for output in response.outputs} != self.outputs:
            raise WrongAnswerError(
                f"outputs {[output.name for output in response.outputs]}, expected {sorted(self.outputs)}"
            )
        if len(response.raw_output_contents) != len(response.outputs):
            raise WrongAnswerError(f"{len(response.outputs)} outputs, {len(response.raw_output_contents)} raw contents")
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
            size = _ITEM_SIZE.get(output.datatype)
            if size is not None and len(raw) != prod(output.shape) * size:
                raise WrongAnswerError(f"output '{output.name}' {list(output.shape)} has {len(raw)} bytes")
            if self.rows > 1 and output.shape[0] != self.rows:
                raise WrongAnswerError(f"output '{output.name}' has {output.shape[0]} rows for {self.rows} asked")


def parse_shape(text: str) -> tuple[str, Shape]:
    """NAME:1,28,28 → ("NAME", (1, 28, 28)); a ValueError says what is wrong. Names may contain colons."""
    name, colon, dims = text.rpartition(":")
    if not (colon and name):
        raise ValueError(f"'{text}' is not NAME:DIM,DIM,...")
    shape = tuple(int(dim) for dim in dims.split(",")) if dims else ()
    if min(shape, default=0) < 0:
        raise ValueError(f"'{text}': a dimension is negative")
    return name, shape


def make_workload(
    metadata: pb.ModelMetadataResponse, *, batching: bool, shapes: Mapping[str, Shape], count: int, seed: int
) -> Workload:
    """`count` requests for the model that `metadata` describes.

    `shapes` names inputs whose whole shape, batch axis included, is given; every other variable dimension becomes 1.
    `batching` says whether the first axis of each input is the batch axis.
    """
    unknown = set(shapes) - {tensor.name for tensor in metadata.inputs}
    if unknown:
        raise LoadTestError(f"model '{metadata.name}' has no input {sorted(unknown)}")
    chosen = {tensor.name: shapes.get(tensor.name, _fixed(tensor.shape)) for tensor in metadata.inputs}
    random = np.random.default_rng(seed)
    requests = [
        [
            Tensor(spec.name, spec.datatype, chosen[spec.name], _random_tensor(random, spec, chosen[spec.name]))
            for spec in metadata.inputs
        ]
        for _ in range(count)
    ]
    return workload_of(metadata, requests, batching=batching)


def workload_of(
    metadata: pb.ModelMetadataResponse, requests: Sequence[Sequence[Tensor]], *, batching: bool
) -> Workload:
    """These requests, one at least; a LoadTestError unless all have the same number of rows."""
    rows = {tensor.shape[0] for request in requests for tensor in request} if batching else {1}
    if len(rows) != 1:
        raise LoadTestError(f"inputs differ in their batch size: {sorted(rows)}")
    bodies = tuple(_serialise(metadata.name, request) for request in requests)
    return Workload(metadata.name, bodies, rows.pop(), frozenset(tensor.name for tensor in metadata.outputs))


def _serialise(model: str, tensors: Sequence[Tensor]) -> bytes:
    request = pb.ModelInferRequest(model_name=model)
    for tensor in tensors:
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        request.raw_input_contents.append(tensor.data)
    return request.SerializeToString()


def pack_bytes(elements: Iterable[bytes]) -> bytes:
    """A BYTES tensor's raw contents: each element after its length in four bytes, little-endian."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def _fixed(shape: Iterable[int]) -> Shape:
    return tuple(1 if dim < 0 else dim for dim in shape)


def _random_tensor(random: np.random.Generator, spec: pb.ModelMetadataResponse.TensorMetadata, shape: Shape) -> bytes:
    datatype, elements = spec.datatype, prod(shape)
    if datatype == "BYTES":
        values = random.integers(ord("0"), ord("9") + 1, elements * _BYTES_ELEMENT).astype("u1").tobytes()
        return pack_bytes([values[i : i + _BYTES_ELEMENT] for i in range(0, len(values), _BYTES_ELEMENT)])
    if datatype == "BF16":
        return (random.random(elements, dtype=np.float32).view("<u4") >> 16).astype("<u2").tobytes()
    if datatype == "BOOL":
        return random.integers(0, 2, elements).astype(np.bool_).tobytes()
    code = NUMPY_TYPES.get(datatype)
    if code is None:
        raise LoadTestError(f"datatype '{datatype}' is not one of the protocol's")
    if datatype.startswith("FP"):
        return random.random(elements).astype(code).tobytes()
    return random.integers(0, _INTEGERS_BELOW, elements).astype(code).tobytes()
