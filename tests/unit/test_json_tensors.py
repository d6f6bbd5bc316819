"""Tensors in JSON: exact both ways, and refused where JSON cannot say it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from server import tensors
from server.errors import InvalidRequest
from server.frontends.rest import json_tensors
from server.frontends.rest.json_tensors import MAX_CONTAINERS, NonFinite, decode, encode, parse
from server.messages import OutputTensor
from server.tensors import BYTES, DATATYPES, FP32, FP64, DataType

NUMBERS = [
    DATATYPES[name] for name in ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")
]


def output(datatype: DataType, values: Any) -> OutputTensor:
    data = np.array(values, datatype.dtype)
    return OutputTensor("y", datatype, data.shape, data)


def there_and_back(datatype: DataType, data: Any, non_finite: NonFinite = NonFinite.REFUSE) -> Any:
    text = encode(OutputTensor("y", datatype, data.shape, data), non_finite)
    decoded = decode("x", datatype, parse(text, non_finite), non_finite)
    return decoded if isinstance(decoded, np.ndarray) else np.frombuffer(decoded, datatype.dtype)


@given(st.data(), st.sampled_from([*NUMBERS, FP32, FP64]))
def test_every_number_survives(data: st.DataObject, datatype: DataType) -> None:
    elements = {"allow_nan": False, "allow_infinity": False} if datatype in (FP32, FP64) else None
    values = data.draw(npst.arrays(datatype.dtype, npst.array_shapes(min_dims=0, max_side=4), elements=elements))
    assert np.array_equal(there_and_back(datatype, values), values.reshape(-1))


@given(st.sampled_from([FP32, FP64]), st.data())
def test_every_float_survives_where_words_are_allowed(datatype: DataType, data: st.DataObject) -> None:
    values = data.draw(npst.arrays(datatype.dtype, 5))
    assert np.array_equal(there_and_back(datatype, values, NonFinite.WORDS), values, equal_nan=True)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_every_text_survives(texts: list[str]) -> None:
    values = np.array([text.encode() for text in texts] + [None], object)[:-1]
    assert list(there_and_back(BYTES, values)) == list(values)


@pytest.mark.parametrize(
    ("datatype", "values", "text"),
    [
        (FP32, [0.1, 1e-7, 16777216.0], "[0.1,1e-7,16777216.0]"),
        (FP64, [0.1, 1 / 3], "[0.1,0.3333333333333333]"),
        (tensors.UINT64, [2**64 - 1], "[18446744073709551615]"),
        (tensors.INT64, [-(2**63), 2**53 + 1], "[-9223372036854775808,9007199254740993]"),
        (tensors.BOOL, [[True], [False]], "[true,false]"),
        (FP32, [], "[]"),
    ],
)
def test_numbers_are_as_short_as_their_datatype_allows(datatype: DataType, values: Any, text: str) -> None:
    assert encode(output(datatype, values), NonFinite.REFUSE) == text.encode()


def test_words_are_pythons_and_javascripts() -> None:
    text = encode(output(FP32, [np.nan, np.inf, -np.inf, 0.1]), NonFinite.WORDS)
    assert text == b"[NaN,Infinity,-Infinity,0.1]"


def test_rows_that_lie_apart_are_put_together() -> None:
    data = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert json.loads(encode(OutputTensor("y", FP32, (3, 2), data), NonFinite.REFUSE)) == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (output(FP32, [np.nan]), "output 'y' has NaN or Infinity"),
        (output(FP64, [[1], [-np.inf]]), "output 'y' has NaN or Infinity"),
        (output(tensors.FP16, [1]), "sending FP16 data via JSON is not supported"),
        (output(tensors.BF16, [1]), "sending BF16 data via JSON is not supported"),
        (output(BYTES, [b"\xff"]), "not UTF-8"),
    ],
)
def test_what_json_cannot_say_is_refused_with_what_to_do(tensor: OutputTensor, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        encode(tensor, NonFinite.REFUSE)
    assert "binary data format" in str(caught.value)


@pytest.mark.parametrize("data", ["[1,2,3,4]", "[[1,2],[3,4]]", "[[[1],[2]],[[3],[4]]]", "[[],[1,2,3],[4]]"])
def test_data_may_be_nested_in_any_way(data: str) -> None:
    assert decode("x", tensors.INT8, parse(data.encode(), NonFinite.REFUSE), NonFinite.REFUSE) == bytes((1, 2, 3, 4))


@pytest.mark.parametrize(
    ("datatype", "data", "reason"),
    [
        ("FP16", "[1]", "sending FP16 data via JSON is not supported. Please use the binary data format for input 'x'"),
        ("BF16", "[1]", "sending BF16 data"),
        ("FP32", "3", "must be an array"),
        ("FP32", '{"a":1}', "must be an array"),
        ("FP32", "[[1],2]", "mixes arrays and values"),
        ("FP32", "[1,[2]]", "must be numbers"),
        ("FP32", '["1"]', "must be numbers, since its datatype is FP32"),
        ("FP32", "[true]", "must be numbers"),
        ("FP32", "[null]", "must be numbers"),
        ("FP32", "[1e39]", "does not fit into FP32"),
        ("INT32", "[1.0]", "must be integers"),
        ("INT32", "[true]", "must be integers"),
        ("INT32", "[2147483648]", "does not fit into INT32"),
        ("UINT8", "[-1]", "does not fit into UINT8"),
        ("UINT64", "[18446744073709551616]", "must be integers of at most 64 bits"),
        ("INT64", "[9223372036854775808]", "does not fit into INT64"),
        ("BOOL", "[1]", "must be true or false"),
        ("BYTES", "[1]", "must be strings"),
    ],
)
def test_data_of_another_kind_is_refused(datatype: str, data: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        decode("x", DATATYPES[datatype], parse(data.encode(), NonFinite.REFUSE), NonFinite.REFUSE)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[1,]",
        b"\xff",
        b'"\\ud800"',
        b"[1e999]",
        b"[" * 250_000,
        b'{"a":' * 250_000,
        b"[" * 250_000 + b"]" * 250_000,
        b"[" + b"[]," * MAX_CONTAINERS + b"[]]",
    ],
    ids=lambda text: repr(text[:12]),
)
@pytest.mark.parametrize("non_finite", NonFinite)
def test_what_is_no_json_or_too_deep_or_too_bulky_is_refused(text: bytes, non_finite: NonFinite) -> None:
    with pytest.raises(InvalidRequest, match="JSON"):
        decode("x", FP64, parse(text, non_finite), NonFinite.REFUSE)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_words_for_what_is_no_number_are_refused_by_default(word: str) -> None:
    text = f"[{word}]".encode()
    with pytest.raises(InvalidRequest, match="failed to parse the request JSON buffer"):
        parse(text, NonFinite.REFUSE)
    assert len(decode("x", FP32, json_tensors.parse(text, NonFinite.WORDS), NonFinite.WORDS)) == 4


@pytest.mark.parametrize(
    ("words", "beside"), [(NonFinite.REFUSE, "1"), (NonFinite.WORDS, "1"), (NonFinite.WORDS, "NaN")]
)
def test_numbers_are_read_alike_beside_words(words: NonFinite, beside: str) -> None:
    large = f"[{beside}, 18446744073709551616, -9223372036854775809]".encode()
    assert parse(large, words)[1:] == [2.0**64, -(2.0**63)]
    assert parse(f"[{beside}, 18446744073709551615]".encode(), words)[1] == 2**64 - 1
    for number in ("1e400", "-1e400", "1" * 400, "1" * 5000):
        with pytest.raises(InvalidRequest, match="failed to parse"):
            parse(f"[{beside}, {number}]".encode(), words)


@pytest.mark.parametrize("words", NonFinite)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_is_utf8_without_a_byte_order_mark(words: NonFinite, encoding: str) -> None:
    with pytest.raises(InvalidRequest, match="failed to parse"):
        parse("[1, 2]".encode(encoding), words)
