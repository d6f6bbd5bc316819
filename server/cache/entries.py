"""Answers as they are kept: the outputs, without what differs from request to request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from server.messages import OutputTensor
from server.tensors import BYTES, Array

ENTRY_OVERHEAD_BYTES = 512
"""What an entry takes beside its tensors: its key, its place in the table, its own objects (CPython, 64 bits)."""

TENSOR_OVERHEAD_BYTES = 384
"""What a tensor takes beside its contents: array, shape, objects."""

ELEMENT_OVERHEAD_BYTES = 48
"""What an element of BYTES takes beside its bytes: a pointer and an object's head."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """The answer to a request of `rows` rows. Nobody changes its tensors."""

    rows: int
    outputs: tuple[OutputTensor, ...]


def size_of(entry: Entry) -> int:
    """Bytes that the entry takes in memory, once it is kept."""
    return ENTRY_OVERHEAD_BYTES + sum([TENSOR_OVERHEAD_BYTES + _contents(tensor) for tensor in entry.outputs])


def copy_of(entry: Entry) -> Entry:
    """The same answer in memory of its own: an answer may be views on memory of a whole batch."""
    outputs = [OutputTensor(each.name, each.datatype, each.shape, _copy(each)) for each in entry.outputs]
    return Entry(entry.rows, tuple(outputs))


def _copy(tensor: OutputTensor) -> Array:
    array: Array
    if tensor.datatype is BYTES:
        flat = np.empty(tensor.data.size, dtype=object)
        flat[:] = [_as_bytes(element) for element in tensor.data.ravel().tolist()]
        array = flat.reshape(tensor.data.shape)
    else:
        array = np.array(tensor.data, order="C", copy=True)
    array.setflags(write=False)
    return array


def _contents(tensor: OutputTensor) -> int:
    if tensor.datatype is BYTES:
        elements = tensor.data.ravel().tolist()
        return sum([len(_as_bytes(element)) + ELEMENT_OVERHEAD_BYTES for element in elements])
    return tensor.data.nbytes


def _as_bytes(element: object) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode()
