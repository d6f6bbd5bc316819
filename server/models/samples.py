"""Requests that nobody asked for, made of a model's configuration: random numbers of its inputs' shapes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from server.errors import InvalidRequest
from server.messages import TensorSpec
from server.models.config import ModelConfig
from server.models.config_types import TensorConfig
from server.tensors import BF16, BYTES, FP16, FP32, FP64, Buffer, DataType, byte_size

EMPTY_TEXT_BYTES = 4
"""Of a BYTES element that is empty: its length."""
MOST_SAMPLES = 16
MOST_BYTES = 8 << 20
"""Of all samples together."""

Sample = tuple[Buffer, ...]
"""The contents of one request: a buffer for each input."""


def random_requests(config: ModelConfig, rows: int, seed: int = 0) -> tuple[tuple[TensorSpec, ...], Sequence[Sample]]:
    """What requests of so many rows state, and the contents of some. Raises `InvalidRequest` for more rows than the
    model takes, and for models whose configuration does not say what a request must have."""
    where = f"no requests can be made up for model '{config.name}'"
    if config.sequence is not None:
        raise InvalidRequest(f"{where}: it takes sequences")
    if rows > max(1, config.max_batch_size):
        raise InvalidRequest(f"{where} of {rows} rows: it takes {max(1, config.max_batch_size)} at most")
    for tensor in config.inputs:
        if -1 in tensor.dims:
            raise InvalidRequest(f"{where}: input '{tensor.name}' has dims {list(tensor.dims)}, which callers decide")
    size = sum([_row_bytes(tensor) for tensor in config.inputs]) * rows
    if size > MOST_BYTES:
        raise InvalidRequest(f"{where}: it would have {size} bytes, and {MOST_BYTES} are made up at most")
    shapes = [(rows, *tensor.dims) if config.max_batch_size else tensor.dims for tensor in config.inputs]
    specs = tuple([TensorSpec(t.name, t.datatype.name, shape) for t, shape in zip(config.inputs, shapes, strict=True)])
    random = np.random.default_rng(seed)
    samples = [
        tuple([random_bytes(t.datatype, shape, random) for t, shape in zip(config.inputs, shapes, strict=True)])
        for _ in range(min(MOST_SAMPLES, MOST_BYTES // max(1, size)))
    ]
    return specs, samples


def random_bytes(datatype: DataType, dims: tuple[int, ...], random: np.random.Generator) -> bytes:
    """Raw contents: of floating point from 0 to 1, integers 0 and 1. Text is always empty."""
    elements = prod(dims)
    if datatype is BYTES:
        return zero_bytes(datatype, dims)
    if datatype is BF16:
        return (random.random(elements, np.float32).view(np.uint32) >> 16).astype(datatype.dtype).tobytes()
    if datatype in (FP16, FP32, FP64):
        return random.random(elements).astype(datatype.dtype).tobytes()
    return random.integers(0, 2, elements).astype(datatype.dtype).tobytes()


def zero_bytes(datatype: DataType, dims: tuple[int, ...]) -> bytes:
    """Raw contents: zeros, or empty text."""
    return bytes(EMPTY_TEXT_BYTES * prod(dims) if datatype is BYTES else byte_size(datatype, dims))


def _row_bytes(tensor: TensorConfig) -> int:
    return EMPTY_TEXT_BYTES * prod(tensor.dims) if tensor.datatype is BYTES else byte_size(tensor.datatype, tensor.dims)
