"""BYTES elements on the wire, and sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.tensors import (
    BF16,
    BOOL,
    BYTES,
    DATATYPES,
    FP16,
    FP32,
    FP64,
    LARGE_BYTES,
    UINT8,
    UINT16,
    DataType,
    byte_size,
    decode_bytes_elements,
    joined,
    nan_row,
)
from server.tensors import encode_bytes_elements as encode


def objects(*elements: object) -> np.ndarray:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_elements_come_back_as_they_went(elements: list[bytes]) -> None:
    assert list(decode_bytes_elements(encode(objects(*elements)), len(elements))) == elements


def test_an_element_is_a_little_endian_length_and_its_bytes() -> None:
    assert encode(objects(b"ab", b"")) == b"\x02\0\0\0ab\0\0\0\0"


def test_a_length_above_a_byte_uses_the_next() -> None:
    assert encode(objects(b"x" * 513)) == b"\x01\x02\0\0" + b"x" * 513


def test_text_is_encoded_as_utf_8() -> None:
    assert encode(objects("é")) == b"\x02\0\0\0\xc3\xa9"


def test_anything_else_is_encoded_as_it_prints() -> None:
    assert encode(objects(17)) == b"\x02\0\0\x0017"


def test_elements_are_written_row_by_row_whatever_their_memory_order() -> None:
    array = objects(b"a", b"b", b"c", b"d").reshape(2, 2)
    assert encode(array.T) == encode(objects(b"a", b"c", b"b", b"d"))


def test_trailing_null_bytes_are_kept() -> None:
    assert list(decode_bytes_elements(b"\x02\0\0\0a\0", 1)) == [b"a\0"]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_decoded(kind: type) -> None:
    assert list(decode_bytes_elements(kind(b"\x01\0\0\0a"), 1)) == [b"a"]


MALFORMED = {
    "too few": (b"\x01\0\0\0a", 2, "expected 2 elements, got 1"),
    "none": (b"", 1, "expected 1 elements, got 0"),
    "too many": (b"\x01\0\0\0a" * 2, 1, "5 bytes follow the last of 1 elements"),
    "some for none": (b"\x01\0\0\0a", 0, "5 bytes follow the last of 0 elements"),
    "half a length": (b"\x01\0\0\0a\x01\0", 2, "2 bytes are left over where a 4-byte element length is expected"),
    "half an element": (b"\x03\0\0\0ab", 1, "element 0 claims 3 bytes, but 2 are left"),
    "a giant length": (b"\xff\xff\xff\xff", 1, "element 0 claims 4294967295 bytes, but 0 are left"),
    "the second one short": (b"\0\0\0\0\x01\0\0\0", 2, "element 1 claims 1 bytes, but 0 are left"),
    "a giant count": (b"", 1 << 40, "expected 1099511627776 elements, got 0"),
}


@pytest.mark.parametrize(("raw", "count", "message"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_contents_are_refused(raw: bytes, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        decode_bytes_elements(raw, count)


@given(st.binary(max_size=40), st.integers(0, 5))
def test_whatever_is_accepted_is_what_would_be_written(raw: bytes, count: int) -> None:
    try:
        elements = decode_bytes_elements(raw, count)
    except ValueError:
        return
    assert encode(elements) == raw


def test_every_datatype_has_the_size_of_its_elements_on_the_wire() -> None:
    sizes = {name: datatype.itemsize for name, datatype in DATATYPES.items()}
    assert sizes == {
        "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
        "FP16": 2, "FP32": 4, "FP64": 8, "BF16": 2, "BYTES": 0,
    }  # fmt: skip


def test_bf16_lies_in_memory_as_its_bits() -> None:
    assert (BF16.dtype, FP16.dtype, BYTES.dtype) == (np.dtype("u2"), np.dtype("f2"), np.dtype(object))


@pytest.mark.parametrize(("shape", "size"), [((), 4), ((3,), 12), ((2, 0), 0), ((2**31, 2**31, 2**31), 2**95)], ids=str)
def test_byte_sizes_are_exact(shape: tuple[int, ...], size: int) -> None:
    assert byte_size(FP32, shape) == size


def test_an_element_of_one_byte_is_as_large_as_its_shape() -> None:
    assert byte_size(UINT8, (5, 7)) == 35


FLOAT_ROWS = {
    "none": ([[1, 2], [-3, 0]], None),
    "infinities are numbers": ([[np.inf, -np.inf], [np.inf, 0]], None),
    "in the first row": ([[np.nan, 2], [np.nan, 0]], 0),
    "in the last row": ([[np.inf, 2], [3, -np.nan]], 1),
    "in a vector": ([1, 2, np.nan], 2),
    "in a cube": ([[[1], [2]], [[3], [np.nan]]], 1),
    "a scalar": (np.nan, 0),
    "a scalar number": (1, None),
    "nothing at all": ([], None),
    "rows of nothing": ([[], []], None),
}


@pytest.mark.parametrize("datatype", [FP16, FP32, FP64, BF16], ids=lambda datatype: datatype.name)
@pytest.mark.parametrize(("rows", "expected"), FLOAT_ROWS.values(), ids=FLOAT_ROWS)
def test_the_first_row_of_nan_is_found(datatype: DataType, rows: object, expected: int | None) -> None:
    array = np.array(rows, dtype=np.float32)
    if datatype is BF16:
        array = (array.view(np.uint32) >> 16).astype(np.uint16)
    assert nan_row(datatype, array if datatype is BF16 else array.astype(datatype.dtype)) == expected


def test_nan_is_found_in_any_memory_order() -> None:
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    array[1, 0] = np.nan
    assert [nan_row(FP16, view) for view in (array.T, array[::-1], array[:, ::2])] == [0, 0, 1]


@pytest.mark.parametrize("datatype", [UINT16, UINT8, BOOL, BYTES], ids=lambda datatype: datatype.name)
def test_other_datatypes_have_no_nan(datatype: DataType) -> None:
    assert nan_row(datatype, np.full((2, 2), 255).astype(datatype.dtype)) is None
    assert nan_row(UINT16, np.array([0xFFFF], np.uint16)) is None


def test_parts_are_joined_whatever_their_shape_and_size() -> None:
    for rows in (3, LARGE_BYTES // 16):
        matrix = np.arange(4 * rows, dtype=np.float32).reshape(rows, 4)
        whole = joined((b"head", matrix.data))
        assert bytes(whole) == b"head" + matrix.tobytes()
        assert memoryview(whole).readonly


def test_a_large_row_is_joined_without_the_interpreters_lock() -> None:
    row = np.zeros((1, LARGE_BYTES // 4), np.float32)
    assert not isinstance(joined((row.data,)), bytes)  # whose making holds the lock
