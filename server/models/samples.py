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
MOST_ROWS = 16
MOST_BYTES = 8 << 20
"""Of all rows together."""


def random_rows(config: ModelConfig, seed: int = 0) -> tuple[tuple[TensorSpec, ...], Sequence[tuple[Buffer, ...]]]:
    """What requests of one row each state, and the contents of some. Raises `InvalidRequest` for models whose
    configuration does not say what a request must have."""
    where = f"no requests can be made up for model '{config.name}'"
    if config.sequence is not None:
        raise InvalidRequest(f"{where}: it takes sequences")
    for tensor in config.inputs:
        if -1 in tensor.dims:
            raise InvalidRequest(f"{where}: input '{tensor.name}' has dims {list(tensor.dims)}, which callers decide")
    row_bytes = sum([_size(tensor) for tensor in config.inputs])
    if row_bytes > MOST_BYTES:
        raise InvalidRequest(f"{where}: a row has {row_bytes} bytes, and {MOST_BYTES} are made up at most")
    random = np.random.default_rng(seed)
    specs = tuple([TensorSpec(t.name, t.datatype.name, spec_shape(config, t.dims)) for t in config.inputs])
    count = min(MOST_ROWS, MOST_BYTES // max(1, row_bytes))
    rows = [tuple([random_bytes(t.datatype, t.dims, random) for t in config.inputs]) for _ in range(count)]
    return specs, rows


def spec_shape(config: ModelConfig, dims: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one row, as callers state it."""
    return (1, *dims) if config.max_batch_size else dims


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


def _size(tensor: TensorConfig) -> int:
    return EMPTY_TEXT_BYTES * prod(tensor.dims) if tensor.datatype is BYTES else byte_size(tensor.datatype, tensor.dims)
