"""Datatypes of the protocol and the byte layouts of tensors. Pure: knows numpy, and neither protobuf nor ONNX Runtime.

Raw tensor contents are little-endian and row-major (KServe v2, binary tensor data extension). BYTES elements are
each a 4-byte little-endian length followed by that many bytes. BF16 has no numpy dtype: its bits travel as uint16.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Buffer = bytes | memoryview


class Stored(Protocol):
    """Raw contents that lie elsewhere, and are read when they are needed."""

    def __len__(self) -> int:
        """Bytes."""
        ...

    def read(self) -> Buffer:
        """A copy. Raises `ConvoyError` where they are not there any more."""
        ...

    def write_into(self, rows: Array) -> None:
        """Copy all into a C-contiguous array of as many bytes."""
        ...

    def part(self, start: int, count: int) -> Stored:
        """Some of the rows."""
        ...


@dataclass(frozen=True, slots=True)
class DataType:
    """One tensor element type."""

    name: str
    """The protocol's name: "FP32", "BYTES", …"""
    dtype: np.dtype[np.generic]
    """How elements lie in memory here; `object` for BYTES, `uint16` bits for BF16."""
    itemsize: int
    """Bytes per element on the wire; 0 for BYTES, whose elements vary."""


def _datatype(name: str, dtype: str) -> DataType:
    numpy_dtype: np.dtype[np.generic] = np.dtype(dtype)
    return DataType(name, numpy_dtype, 0 if dtype == "O" else numpy_dtype.itemsize)


BOOL = _datatype("BOOL", "?")
UINT8 = _datatype("UINT8", "u1")
UINT16 = _datatype("UINT16", "<u2")
UINT32 = _datatype("UINT32", "<u4")
UINT64 = _datatype("UINT64", "<u8")
INT8 = _datatype("INT8", "i1")
INT16 = _datatype("INT16", "<i2")
INT32 = _datatype("INT32", "<i4")
INT64 = _datatype("INT64", "<i8")
FP16 = _datatype("FP16", "<f2")
FP32 = _datatype("FP32", "<f4")
FP64 = _datatype("FP64", "<f8")
BF16 = _datatype("BF16", "<u2")
BYTES = _datatype("BYTES", "O")

DATATYPES: dict[str, DataType] = {
    t.name: t for t in (BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, FP32, FP64, BF16, BYTES)
}

FLOATS = (FP16, FP32, FP64, BF16)
"""Those that have NaN."""

_NAN_ABOVE = {"FP16": 0x7C00, "BF16": 0x7F80}
"""Of the 16-bit floats: the bits of infinity. What is above them, sign aside, is no number."""

_LENGTH = struct.Struct("<I")


def decode_bytes_elements(raw: Buffer, count: int) -> Array:
    """Split a raw BYTES tensor into a flat object array of `count` bytes objects. Raises as `split_bytes_elements`."""
    elements = split_bytes_elements(raw, count)
    array = np.empty(count, dtype=object)
    array[:] = [bytes(element) for element in elements]
    return array


def split_bytes_elements(raw: Buffer, count: int) -> list[memoryview]:
    """Views of the `count` elements of a raw BYTES tensor.

    Raises ValueError where the lengths do not add up to exactly `count` elements; nothing is allocated beyond the
    elements that are really there.
    """
    view = memoryview(raw)
    elements: list[memoryview] = []
    offset, end = 0, len(view)
    while offset < end and len(elements) < count:
        if end - offset < 4:
            raise ValueError(f"{end - offset} bytes are left over where a 4-byte element length is expected")
        (length,) = _LENGTH.unpack_from(view, offset)
        offset += 4
        if length > end - offset:
            raise ValueError(f"element {len(elements)} claims {length} bytes, but {end - offset} are left")
        elements.append(view[offset : offset + length])
        offset += length
    if len(elements) < count:
        raise ValueError(f"expected {count} elements, got {len(elements)}")
    if offset < end:
        raise ValueError(f"{end - offset} bytes follow the last of {count} elements")
    return elements


def encode_bytes_elements(array: Array) -> bytes:
    """Join an object array (bytes, str or anything printable) into raw BYTES contents, row-major."""
    parts: list[bytes] = []
    for element in array.ravel():
        data = element if isinstance(element, bytes) else str(element).encode()
        parts.append(_LENGTH.pack(len(data)))
        parts.append(data)
    return b"".join(parts)


LARGE_BYTES = 1 << 20
"""From here on, bytes are copied without the interpreter's lock."""


def joined(parts: Sequence[Buffer]) -> Buffer:
    """All parts in a row. Others may run meanwhile, where they are large."""
    size = sum([memoryview(part).nbytes for part in parts])
    if size < LARGE_BYTES:
        return b"".join(parts)
    whole = np.empty(size, np.uint8)
    start = 0
    for part in parts:
        contents = np.frombuffer(part, np.uint8)
        whole[start : start + len(contents)] = contents
        start += len(contents)
    return whole.data.toreadonly()


def byte_size(datatype: DataType, shape: tuple[int, ...]) -> int:
    """Bytes of a raw tensor of this shape. Python integers: a giant shape cannot overflow. Not for BYTES."""
    return datatype.itemsize * prod(shape)


def nan_row(datatype: DataType, array: Array) -> int | None:
    """Where along the first axis the first NaN is; None where there is none, or the datatype has none.

    A scalar counts as its own only row.
    """
    if not array.size or datatype not in FLOATS:
        return None
    if datatype.name in _NAN_ABOVE:  # numpy compares half floats one by one, and knows no bfloat16
        magnitudes = array.view(np.uint16) & np.uint16(0x7FFF)
        infinity = _NAN_ABOVE[datatype.name]
        found = magnitudes > infinity if magnitudes.max() > infinity else None
    else:  # the minimum is NaN where anything is: one pass, and nothing to allocate
        found = np.isnan(array) if isnan(float(np.minimum.reduce(array, axis=None))) else None
    if found is None:
        return None
    return int(np.argmax(found.reshape(len(found), -1).any(axis=1))) if found.ndim else 0
