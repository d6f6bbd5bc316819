"""Which other files an ONNX file reads its weights from, found without loading it.

An ONNX file may say that a tensor's values lie in another file, by a path of its own choosing. Whoever wrote the file
must not read the rest of the disk with it, so the paths are checked before ONNX Runtime sees them. The file is walked
where it lies (memory-mapped), and whatever cannot lead to a path is skipped: tensor values in one step, and runs of
small fields by one regular expression, since a file may have millions of them.

A file chooses how often and how deeply it nests, so both are bounded, and the memory that is held grows with the depth
alone.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterable
from pathlib import Path

from server.errors import LoadFailed

MAX_DEPTH = 100
"""Messages within messages: what protobuf's own parsers read, ONNX Runtime's among them."""

MAX_FIELDS = 2_000_000
"""Nodes, attributes, tensors and whatever else is counted: ONNX Runtime takes some 100 bytes for each, empty ones too.
A graph of 100,000 nodes has a third of them."""

MAX_FILES = 100_000
"""A file for each tensor is not unheard of; more tensors than this are."""

_LENGTH_DELIMITED = 2
_ORT_FORMAT = ".ort"  # ONNX Runtime goes by this ending; such files hold all their weights themselves

# Of each message of onnx.proto, the fields that lead to tensors: field number → message. Counted: messages that do not.
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 8: "Counted", 14: "Counted", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", **dict.fromkeys((11, 12, 13, 14), "Counted"), 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "ExternalData"},
    "ExternalData": {1: "Key", 2: "Value"},
}
_LOCATION = b"location"
_SHORTEST = 2 + len(_LOCATION)  # bytes of a message that leads to a location: the key at least
_LONGEST_PATH = 4096  # bytes, a zero behind it among them: PATH_MAX of Linux. What is cut off here is no path
_MIN_TAG = 1 << 3  # there is no field 0: zeros are refused at once, and not walked over one by one
_MAX_TAG = 2**32 - 1


class NotProtobuf(ValueError):
    """The bytes are no protobuf message, or one that no ONNX model is."""


def external_files(path: Path, folder: Path) -> tuple[Path, ...]:
    """The files that the ONNX file at `path` names, sorted. All lie inside `folder`, symbolic links resolved.

    Raises LoadFailed for a name that leads out of `folder` or to no file, and for a file that is no ONNX model.
    """
    if path.suffix == _ORT_FORMAT:
        return ()
    try:
        with path.open("rb") as file, _mapped(file.fileno()) as data:
            names = locations(data)
    except OSError as error:
        raise LoadFailed(f"{path}: cannot be read: {error.strerror}") from error
    except NotProtobuf as error:
        raise LoadFailed(f"{path}: is no ONNX model: {error}") from error
    return tuple(_inside(path, folder, os.fsdecode(name)) for name in sorted(names))


def locations(data: bytes | mmap.mmap) -> set[bytes]:
    """Every location of external data in a serialized ModelProto, wherever a tensor may be. Raises NotProtobuf."""
    found: set[bytes] = set()
    fields = 0
    kind, position, end = "Model", 0, len(data)
    key = value = b""
    outer: list[tuple[str, int, int]] = []
    """The messages around this one, and where each goes on."""
    while True:
        position = _after_small_fields(kind, data, position, end)
        if position == end:
            if key == _LOCATION:
                found.add(value)
                if len(found) > MAX_FILES:
                    raise NotProtobuf(f"it names more than {MAX_FILES} files of external data")
            if not outer:
                return found
            kind, position, end = outer.pop()
            key = value = b""
            continue
        fields += 1
        if fields > MAX_FIELDS:
            raise NotProtobuf(f"it has more than {MAX_FIELDS} fields before byte {position}")
        tag, position = _varint(data, position, end)
        if tag > _MAX_TAG or tag < _MIN_TAG:  # parsers may cut it down to 32 bits, and then it is another field
            raise NotProtobuf(f"byte {position} belongs to no field of a model")
        start, after = _field(data, tag & 7, position, end)
        child = _FIELDS[kind].get(tag >> 3) if tag & 7 == _LENGTH_DELIMITED else None
        position = after
        if child == "Key":
            key = data[start:after] if after - start == len(_LOCATION) else b""
        elif child == "Value":
            value = data[start : min(after, start + _LONGEST_PATH)]
        elif child not in (None, "Counted") and after - start >= _SHORTEST:
            if len(outer) == MAX_DEPTH:
                raise NotProtobuf(f"byte {start} is more than {MAX_DEPTH} messages deep")
            outer.append((kind, after, end))
            kind, position, end = child, start, after


_SHORT_BYTES = b"(?>" + b"|".join(b"\\x%02x.{%d}" % (length, length) for length in range(128)) + b")"
"""A length of one byte, and as many bytes."""


def _small_fields(kind: str) -> re.Pattern[bytes]:
    """What matches fields that lead nowhere, of tags of one or two bytes: numbers, and up to 127 bytes of anything.

    Every repetition is possessive: whoever made the file must not have the expression try again.
    """
    leading = sorted(_FIELDS[kind])
    plain = [n for n in range(1, 16) if n not in leading]
    # A tag of two bytes: whether its field leads anywhere is not asked for 16 to 31, where some do.
    second = rb"[\x02-\x7f]" if leading[-1] > 15 else rb"[\x01-\x7f]"
    two = {wire_type: _one_of(range(0x80 | wire_type, 0x100, 8)) for wire_type in (0, 1, 2, 5)}
    one = {wire_type: _one_of(n << 3 | wire_type for n in range(1, 16)) for wire_type in (0, 1, 5)}
    tags = {wire_type: b"(?:" + one[wire_type] + b"|" + two[wire_type] + rb"[\x01-\x7f])" for wire_type in one}
    fields = (
        b"(?:" + _one_of(n << 3 | _LENGTH_DELIMITED for n in plain) + b"|" + two[2] + second + b")" + _SHORT_BYTES,
        tags[0] + rb"[\x80-\xff]{0,9}+[\x00-\x7f]",
        tags[5] + b".{4}",
        tags[1] + b".{8}",
    )
    return re.compile(b"(?>" + b"|".join(fields) + b")*+", re.DOTALL)


def _one_of(values: Iterable[int]) -> bytes:
    return b"[" + b"".join(b"\\x%02x" % value for value in values) + b"]"


_SMALL_FIELDS = {kind: _small_fields(kind) for kind in _FIELDS}


def _after_small_fields(kind: str, data: bytes | mmap.mmap, position: int, end: int) -> int:
    found = _SMALL_FIELDS[kind].match(data, position, end)
    assert found is not None, "it matches nothing, too"
    return found.end()


def _mapped(descriptor: int) -> mmap.mmap:
    if os.fstat(descriptor).st_size == 0:
        raise NotProtobuf("the file is empty")
    return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)


def _field(data: bytes | mmap.mmap, wire_type: int, position: int, end: int) -> tuple[int, int]:
    """Where a field's content begins and ends."""
    match wire_type:
        case 0:
            start = position
            _, position = _varint(data, position, end)
        case 1:
            start, position = position, position + 8
        case 2:
            length, start = _varint(data, position, end)
            position = start + length
        case 5:
            start, position = position, position + 4
        case _:  # groups: onnx.proto never had any
            raise NotProtobuf(f"byte {position} belongs to no field of a model")
    if position > end:
        raise NotProtobuf(f"the field at byte {start} ends {position - end} bytes too late; the file may be truncated")
    return start, position


def _varint(data: bytes | mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise NotProtobuf(f"the number before byte {position} has no end; the file may be truncated")


def _inside(path: Path, folder: Path, name: str) -> Path:
    file = path.parent / name
    try:
        inside = file.resolve().is_relative_to(folder.resolve())
        exists = file.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, before Python 3.13; a zero byte
        raise LoadFailed(f"{path}: external data '{name}' cannot be resolved: {error}") from error
    if not inside:
        raise LoadFailed(
            f"{path}: external data '{name}' lies outside of the model's folder {folder}; move it into the version's "
            "folder, and export the model with a plain file name"
        )
    if not exists:
        raise LoadFailed(f"{path}: external data '{name}' is no file; put it beside the model")
    return file
