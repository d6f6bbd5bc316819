"""Tensors in JSON ↔ the server's own. Numbers survive exactly, and what does not fit is refused, not rounded away.

JSON has no NaN and no Infinity (RFC 8259, 6); Triton reads and writes them all the same, as bare words. Here they are
refused unless `NonFinite.WORDS` is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import Enum
from itertools import chain
from math import isinf
from typing import Any

import numpy as np
import orjson

from server.errors import InvalidRequest
from server.messages import OutputTensor
from server.tensors import BF16, BOOL, BYTES, FLOATS, FP16, FP64, Array, Buffer, DataType

MAX_CONTAINERS = 1 << 20
"""Lists and objects in one text: each takes some twenty times the memory that it takes in the text."""

_WORDS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


class NonFinite(Enum):
    """What to do about NaN and infinities in JSON."""

    REFUSE = "refuse"
    WORDS = "words"
    """Read and write NaN, Infinity and -Infinity."""


def parse(text: bytes, non_finite: NonFinite) -> Any:
    """What a text in JSON says. Raises `InvalidRequest`, for texts too deep or too bulky to hold too."""
    if text.count(b"[") + text.count(b"{") > MAX_CONTAINERS:
        raise InvalidRequest(
            f"the request's JSON has more than {MAX_CONTAINERS} lists and objects; send flat lists, or binary data"
        )
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if non_finite is NonFinite.WORDS:
            return _parse_with_words(text)
        raise InvalidRequest(f"failed to parse the request JSON buffer: {error}") from None


def _parse_with_words(text: bytes) -> Any:
    try:
        # Decoded first: Python would guess at UTF-16 and take a byte order mark, which orjson refuses.
        said = json.loads(text.decode(), parse_int=_integer, parse_float=_float)
        orjson.dumps(said)  # refuses what only Python's own parser takes: half surrogates, integers without end
        return said
    except (ValueError, RecursionError, orjson.JSONEncodeError) as error:
        raise InvalidRequest(f"failed to parse the request JSON buffer: {error}") from None


def _integer(digits: str) -> int | float:
    """As orjson has it: beyond 64 bits it is a float."""
    value = int(digits)
    return value if -(1 << 63) <= value < 1 << 64 else _float(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if isinf(value):
        raise ValueError(f"{digits[:20]}… is too large for a number")
    return value


def decode(name: str, datatype: DataType, data: object, non_finite: NonFinite) -> Buffer | Array:
    """The values of one input, flat or nested in any way, as raw contents; an array of bytes objects for BYTES.

    Raises `InvalidRequest`.
    """
    if datatype in (FP16, BF16):
        raise InvalidRequest(
            f"sending {datatype.name} data via JSON is not supported. Please use the binary data format for input "
            f"'{name}'"
        )
    values = _flat(name, data)
    kinds = set(map(type, values))
    if datatype is BYTES:
        _check_kinds(name, datatype, kinds, {str}, "strings")
        array = np.empty(len(values), object)
        array[:] = [value.encode() for value in values]
        return array
    if datatype is BOOL:
        _check_kinds(name, datatype, kinds, {bool}, "true or false")
    elif datatype in FLOATS:
        _check_kinds(name, datatype, kinds, {int, float}, "numbers")
        return _floats(name, datatype, values, non_finite)
    else:
        _check_kinds(name, datatype, kinds, {int}, "integers of at most 64 bits")
    try:
        return np.array(values, dtype=datatype.dtype).tobytes()
    except OverflowError:
        raise InvalidRequest(f"a value of input '{name}' does not fit into {datatype.name}") from None


def _flat(name: str, data: object) -> list[Any]:
    if not isinstance(data, list):
        raise InvalidRequest(f"'data' of input '{name}' must be an array")
    values = data
    while values and type(values[0]) is list:
        if set(map(type, values)) != {list}:
            raise InvalidRequest(f"'data' of input '{name}' mixes arrays and values")
        values = list(chain.from_iterable(values))
    return values


def _check_kinds(name: str, datatype: DataType, kinds: set[type], allowed: set[type], words: str) -> None:
    if not kinds <= allowed:
        raise InvalidRequest(f"'data' of input '{name}' must be {words}, since its datatype is {datatype.name}")


def _floats(name: str, datatype: DataType, values: list[Any], non_finite: NonFinite) -> bytes:
    wide = np.array(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        array = wide.astype(datatype.dtype, copy=False)
    finite = np.isfinite(array)
    if not finite.all():
        if np.isfinite(wide[~finite]).any():
            raise InvalidRequest(f"a value of input '{name}' does not fit into {datatype.name}")
        if non_finite is NonFinite.REFUSE:
            raise InvalidRequest(f"'data' of input '{name}' has NaN or Infinity, which are no numbers of JSON")
    return array.tobytes()


def encode(tensor: OutputTensor, non_finite: NonFinite) -> bytes:
    """The values of one output as a flat list: each number the shortest that reads as the same number of its datatype.

    Raises `InvalidRequest` for what JSON cannot say: its caller may ask for the same as binary data.
    """
    datatype = tensor.datatype
    if datatype in (FP16, BF16):
        raise InvalidRequest(
            f"sending {datatype.name} data via JSON is not supported. Please use the binary data format for output "
            f"'{tensor.name}'"
        )
    values = np.ascontiguousarray(tensor.data).reshape(-1)
    if datatype is BYTES:
        return orjson.dumps([_text(tensor.name, element) for element in values])
    if datatype in FLOATS and not np.isfinite(values).all():
        if non_finite is NonFinite.REFUSE:
            raise InvalidRequest(
                f"output '{tensor.name}' has NaN or Infinity, which are no numbers of JSON. Please use the binary data "
                "format for it"
            )
        return _with_words(values, datatype)
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)


def _with_words(values: Array, datatype: DataType) -> bytes:
    texts: Iterable[str] = map(repr, values.tolist()) if datatype is FP64 else map(str, values)
    return f"[{','.join(_WORDS.get(text, text) for text in texts)}]".encode()


def _text(name: str, element: object) -> str:
    try:
        return str(element, "utf-8") if isinstance(element, bytes) else str(element)
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"output '{name}' has bytes that are not UTF-8, which no string of JSON can be. Please use the binary data "
            "format for it"
        ) from None
