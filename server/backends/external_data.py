"""Which other files an ONNX file reads its weights from, found without loading it.

An ONNX file may say that a tensor's values lie in another file, by a path of its own choosing. Whoever wrote the file
must not read the rest of the disk with it, so the paths are checked before ONNX Runtime sees them. The file is walked
where it lies (memory-mapped, tensor values skipped), which takes milliseconds for what parsing would copy to memory.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from server.errors import LoadFailed

_LENGTH_DELIMITED = 2
_ORT_FORMAT = ".ort"  # ONNX Runtime goes by this ending; such files hold all their weights themselves

# Of each message of onnx.proto, the fields that lead to tensors: field number → message.
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "ExternalData"},
    "ExternalData": {1: "Key", 2: "Value"},
}
_LOCATION = b"location"
_MIN_TAG = 1 << 3  # there is no field 0: zeros are refused at once, and not walked over one by one
_MAX_TAG = 2**32 - 1


class NotProtobuf(ValueError):
    """The bytes are no protobuf message."""


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
    messages = [("Model", 0, len(data))]
    while messages:  # a stack of our own: a file chooses how deeply it nests
        kind, position, end = messages.pop()
        fields = _FIELDS[kind]
        key = value = b""
        while position < end:
            tag, position = _varint(data, position, end)
            if tag > _MAX_TAG or tag < _MIN_TAG:  # parsers may cut it down to 32 bits, and then it is another field
                raise NotProtobuf(f"byte {position} belongs to no field of a model")
            start, position = _field(data, tag & 7, position, end)
            child = fields.get(tag >> 3) if tag & 7 == _LENGTH_DELIMITED else None
            if child == "Key":
                key = data[start:position]
            elif child == "Value":
                value = data[start:position]
            elif child is not None:
                messages.append((child, start, position))
        if key == _LOCATION:
            found.add(value)
    return found


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
