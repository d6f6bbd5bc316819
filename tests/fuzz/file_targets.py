"""Files of strangers: ONNX models before a session sees them, labels, what comes with a load, and pictures."""

from __future__ import annotations

import resource

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message

from server.backends.external_data import NotProtobuf, external_files, locations
from server.errors import ConvoyError, LoadFailed, one_line
from server.models import overrides, repository
from server.pictures import decode as picture_files
from server.pictures.preprocessing import ImageInvalid, Interpolation
from tests.fuzz.checks import check_message, check_refusal
from tests.fuzz.folder import FOLDER
from tests.fuzz.mutators import split_messages
from tests.pictures import preprocessing

MODEL = FOLDER.path / "1" / "fuzzed.onnx"
OUTSIDE = FOLDER.root / "outside"
LABELS = FOLDER.path / "fuzzed.txt"


def fuzz_onnx(data: bytes) -> None:
    """A model file: every place of external data that protobuf sees, the walker sees; none outside is let through."""
    OUTSIDE.touch()
    try:
        found = locations(data)
    except NotProtobuf:
        found = None
    try:
        known = set(_locations(onnx.ModelProto.FromString(data)))
    except DecodeError:
        known = set()
    if found is not None:
        assert known <= found, known - found
    MODEL.write_bytes(data)
    try:
        files = external_files(MODEL, FOLDER.path)
    except LoadFailed as error:
        check_refusal(error)
        return
    assert found is not None
    inside = FOLDER.path.resolve()
    assert all(file.resolve().is_relative_to(inside) and file.is_file() for file in files)
    assert len(files) == len(found)


def _locations(message: Message) -> list[bytes]:
    """What stands beside the key "location", anywhere."""
    found: list[bytes] = []
    pending: list[Message] = [message]
    while pending:
        current = pending.pop()
        if isinstance(current, onnx.TensorProto):
            found += [_raw(entry.value) for entry in current.external_data if _raw(entry.key) == b"location"]
        for field, value in current.ListFields():
            if field.message_type is not None:
                pending += list(value) if field.is_repeated else [value]
    return found


def _raw(text: str | bytes) -> bytes:
    """protobuf leaves what is no UTF-8 as it is."""
    return text if isinstance(text, bytes) else text.encode()


def fuzz_labels(data: bytes) -> None:
    """A label file: one line a class, or a refusal. The first line is its name."""
    name, _, contents = data.partition(b"\n")
    LABELS.write_bytes(contents)
    for filename in ("fuzzed.txt", name.decode("utf-8", "replace")):
        try:
            labels = repository.read_labels(FOLDER.model, filename)
        except LoadFailed as error:
            check_refusal(error)
            continue
        assert all("\n" not in label and label == label.strip() for label in labels)
        if filename == "fuzzed.txt":
            lines = contents.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").rstrip()
            assert len(labels) == 1 + lines.count("\n")


def fuzz_load(data: bytes) -> None:
    """A model's name, and files that come with the request to load it: all below the model's folder, or none."""
    parts = [contents for _, contents in split_messages(data)] or [data]
    name = parts[0].decode("utf-8", "replace")
    files = {path.decode("utf-8", "replace"): b"." * (index % 7) for index, path in enumerate(parts[1:])}
    kept = overrides.Overrides()
    try:
        overrides.check_model_name(name)
        folder = kept.write(name, files or {"1/model.onnx": b""})
    except ConvoyError as error:
        check_refusal(error)
        assert kept._root is None or not any(kept._root.iterdir()), "a refused load left something behind"
        return
    else:
        root = kept._root
        assert root is not None
        written = {path for path in root.rglob("*") if path.is_file()}
        assert len(written) == len(files or {"": b""})
        assert all(path.is_relative_to(folder.path) for path in written)
    finally:
        kept.close()
    assert not root.exists()


MAX_PIXELS = 100_000
PICTURE_BYTES = 64 << 20
"""What one picture of a fuzzer may add to the memory of this process, at most: some twenty times its pixels' bytes."""
_INTERPOLATIONS = list(Interpolation)


def fuzz_pictures(data: bytes) -> None:
    """A picture: a row of the model's shape, or a refusal; memory in proportion to the bound on its pixels."""
    choice, file = data[0], data[1:]
    wanted = preprocessing(
        max_pixels=MAX_PIXELS, interpolation=_INTERPOLATIONS[choice % 4], jpeg_draft=bool(choice & 4),
        channels_first=bool(choice & 8),
    )  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        pixels = picture_files.decode(file, wanted)
    except ImageInvalid as error:
        check_message(one_line(f"image 0 {error}"))
    else:
        assert pixels.shape == wanted.shape
        assert pixels.dtype == np.uint8
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert added << 10 < PICTURE_BYTES, f"a picture took {added} KiB"
