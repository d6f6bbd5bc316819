"""RepositoryModelLoad messages with files, which may be as large as a message can be.

protobuf would copy their contents again and again, with everybody waiting. So they are viewed where they lie, and who
makes such a message writes them to where they stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from google.protobuf.message import DecodeError

from proto import grpc_service_pb2 as pb
from server.errors import InvalidRequest
from server.frontends.varints import read_varint, varint
from server.models.overrides import FILE_PREFIX
from server.tensors import Buffer

LARGE_BYTES = 64 << 10
"""Parameters of a load that have less are protobuf's to read."""

_LENGTH_DELIMITED = 2
_PARAMETERS = 3 << 3 | _LENGTH_DELIMITED  # of a load: a map, on the wire a list of entries
_KEY, _VALUE = 1 << 3 | _LENGTH_DELIMITED, 2 << 3 | _LENGTH_DELIMITED  # of an entry
_BYTES_PARAM = 4 << 3 | _LENGTH_DELIMITED  # of a value


class Load(NamedTuple):
    """What a caller wants to be loaded."""

    request: pb.RepositoryModelLoadRequest
    """But for the parameters that are in `contents`."""
    contents: Mapping[str, memoryview]
    """Of large files, by the names of their parameters."""


def decode_load(message: Buffer, large_bytes: int = LARGE_BYTES) -> Load:
    """A serialized RepositoryModelLoadRequest, which is what protobuf makes of it. Raises `InvalidRequest`.

    The contents of files are views of it where they have more than `large_bytes`.
    """
    view = memoryview(message)
    rest, contents = _split(view, large_bytes) if len(view) > large_bytes else (view, {})
    try:
        request = pb.RepositoryModelLoadRequest.FromString(bytes(rest))
        if any(key in request.parameters for key in contents):  # twice, and the last one counts
            request, contents = pb.RepositoryModelLoadRequest.FromString(bytes(view)), {}
    except DecodeError as error:
        raise InvalidRequest(f"the message is not a RepositoryModelLoadRequest: {error}") from None
    return Load(request, contents)


def file_prefix(key: str, size: int) -> bytes:
    """What stands before a file's `size` bytes where both are appended to a serialized RepositoryModelLoadRequest."""
    value = bytes((_BYTES_PARAM,)) + varint(size)
    name = key.encode()
    entry = b"".join((bytes((_KEY,)), varint(len(name)), name, bytes((_VALUE,)), varint(len(value) + size), value))
    return bytes((_PARAMETERS,)) + varint(len(entry) + size) + entry


def _split(view: memoryview, large_bytes: int) -> tuple[Buffer, dict[str, memoryview]]:
    """A load without its large files, and those; with all of them where it has what only protobuf can read."""
    rest: list[memoryview] = []
    contents: dict[str, memoryview] = {}
    try:
        for tag, field, content in _fields(view):
            large = _file_of(content) if tag == _PARAMETERS and len(content) > large_bytes else None
            if large is None:
                rest.append(field)
            else:
                contents[large[0]] = large[1]
    except (IndexError, ValueError):
        return view, {}
    return b"".join(rest), contents


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Tag, all of it, and content of each field of a message that has only length-delimited ones."""
    position = 0
    while position < len(view):
        start = position
        tag, position = read_varint(view, position)
        if tag & 7 != _LENGTH_DELIMITED:
            raise ValueError(f"wire type {tag & 7}")
        length, position = read_varint(view, position)
        if length > len(view) - position:
            raise ValueError("a field is cut off")
        yield tag, view[start : position + length], view[position : position + length]
        position += length


def _file_of(entry: memoryview) -> tuple[str, memoryview] | None:
    """The key and the content of a parameter that is a file, written as all libraries write it; else None."""
    fields = {tag: content for tag, _, content in _fields(entry)}
    if tuple(fields) != (_KEY, _VALUE):
        return None
    key = str(fields[_KEY], "utf-8")
    if not key.startswith(FILE_PREFIX) or not fields[_VALUE] or fields[_VALUE][0] != _BYTES_PARAM:
        return None
    values = [content for _, _, content in _fields(fields[_VALUE])]
    return (key, values[0]) if len(values) == 1 else None
