"""Entries as bytes, for a store at a distance. What comes from there is not trusted: it is an entry, or it is refused.

A version, the length of a header, the header in JSON, then the contents of the tensors as they travel on the wire
(`tensors`). A byte that is out of place makes a miss, and never an answer of another shape than it says.
"""

from __future__ import annotations

import json
from math import prod
from struct import Struct

import numpy as np

from server.cache.entries import Entry
from server.messages import OutputTensor
from server.tensors import BYTES, DATATYPES, Array, DataType, byte_size, decode_bytes_elements, encode_bytes_elements

_START = Struct("<4sI")
_MAGIC = b"cvy1"
MAX_DIMS = 32
"""numpy takes twice as many."""


def encode(entry: Entry) -> bytes:
    """An entry as bytes."""
    contents = [
        encode_bytes_elements(each.data) if each.datatype is BYTES else each.data.tobytes() for each in entry.outputs
    ]
    tensors = [
        [each.name, each.datatype.name, list(each.shape), len(data)]
        for each, data in zip(entry.outputs, contents, strict=True)
    ]
    header = json.dumps([entry.rows, tensors]).encode()
    return b"".join((_START.pack(_MAGIC, len(header)), header, *contents))


def decode(data: bytes) -> Entry:
    """The entry that these bytes are. Raises ValueError where they are none."""
    view = memoryview(data)
    if len(view) < _START.size:
        raise ValueError("it is cut off")
    magic, header_size = _START.unpack_from(view)
    if magic != _MAGIC:
        raise ValueError("it does not begin as an entry")
    position = _START.size + header_size
    if position > len(view):
        raise ValueError("its header is cut off")
    rows, tensors = _header(bytes(view[_START.size : position]))
    outputs: list[OutputTensor] = []
    for name, datatype, shape, size in tensors:
        if size > len(view) - position:
            raise ValueError(f"output '{name}' is cut off")
        outputs.append(OutputTensor(name, datatype, shape, _array(datatype, shape, view[position : position + size])))
        position += size
    if position < len(view):
        raise ValueError("something follows it")
    return Entry(rows, tuple(outputs))


def _header(text: bytes) -> tuple[int, list[tuple[str, DataType, tuple[int, ...], int]]]:
    try:
        rows, tensors = json.loads(text)
        read = [
            (str(name), DATATYPES[datatype], tuple(map(_natural, shape)), _natural(size))
            for name, datatype, shape, size in tensors
        ]
        return _natural(rows), read
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"its header is none: {error!r}") from None


def _natural(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"its header has {value!r} where a size is expected")
    return value


def _array(datatype: DataType, shape: tuple[int, ...], contents: memoryview) -> Array:
    if len(shape) > MAX_DIMS:
        raise ValueError(f"a tensor of it has {len(shape)} dimensions")
    if datatype is BYTES:
        count = prod(shape)
        if count > len(contents) // 4:
            raise ValueError("a tensor of it has more elements than bytes")
        array = decode_bytes_elements(contents, count).reshape(shape)
    elif byte_size(datatype, shape) != len(contents):
        raise ValueError("a tensor of it has another size than its shape")
    else:
        array = np.frombuffer(contents, datatype.dtype).reshape(shape)
    array.setflags(write=False)
    return array
