"""CIFAR-10 as published: the Python and the binary version, packed or unpacked.

Both hold five batches to learn from and one that is held out. Binary: records of one label byte and 3,072 pixel bytes,
red, green, blue, each row by row. Python: a pickled dictionary with `data` (N, 3072) in the same order, and `labels`.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training.data.sets import CIFAR10, Data, refuse_wrong_labels, to_data
from training.files import TrainingError

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = "cifar-10-python.tar.gz or cifar-10-binary.tar.gz, or what one of them unpacks to"
SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32

Side = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Images (N, 3, 32, 32) and labels (N,)."""


def read_cifar10(folder: Path) -> Data:
    """50,000 pictures to learn from and 10,000 held out, (N, 3, 32, 32)."""
    batches, read = _find(folder)
    suffix = ".bin" if read is _from_binary else ""
    names = [*(f"data_batch_{number}{suffix}" for number in range(1, 6)), f"test_batch{suffix}"]
    contents = _archived(batches, names) if batches.is_file() else _unpacked(batches, names)
    sides = [read(f"{batches}: {name}" if batches.is_file() else str(batches / name), contents[name]) for name in names]
    counts = [len(labels) for _, labels in sides]
    if len(set(counts[:5])) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))
        raise TrainingError(f"{batches}: batches of one size are expected, and there are {listed}. Fetch it again.")
    seen = np.concatenate([images for images, _ in sides[:5]]), np.concatenate([labels for _, labels in sides[:5]])
    refuse_wrong_labels(f"{batches}: data_batch_1 to 5", seen[1], NAMES)
    refuse_wrong_labels(f"{batches}: {names[5]}", sides[5][1], NAMES)
    return to_data(seen, sides[5], NAMES, CIFAR10)


def _find(folder: Path) -> tuple[Path, Callable[[str, bytes], Side]]:
    for name, read in (("batches-py", _from_pickle), ("batches-bin", _from_binary)):
        if (folder / f"cifar-10-{name}").is_dir():
            return folder / f"cifar-10-{name}", read
    for name, read in (("data_batch_1", _from_pickle), ("data_batch_1.bin", _from_binary)):
        if (folder / name).is_file():
            return folder, read
    for name, read in (("python", _from_pickle), ("binary", _from_binary)):
        if (folder / f"cifar-10-{name}.tar.gz").is_file():
            return folder / f"cifar-10-{name}.tar.gz", read
    raise TrainingError(f"{folder} holds no CIFAR-10: {FILES} is expected.")


def _unpacked(folder: Path, names: list[str]) -> dict[str, bytes]:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise TrainingError(f"{folder / missing[0]} is missing; {', '.join(names)} are expected. Unpack it again.")
    return {name: (folder / name).read_bytes() for name in names}


def _archived(archive: Path, names: list[str]) -> dict[str, bytes]:
    """The members of those names, whatever their folder; nothing is written anywhere."""
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                file = tar.extractfile(member) if Path(member.name).name in names and member.isreg() else None
                if file is not None:
                    contents[Path(member.name).name] = file.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise TrainingError(
            f"{archive} cannot be read as a .tar.gz: {error}. It is truncated or damaged: fetch it again."
        ) from error
    missing = [name for name in names if name not in contents]
    if missing:
        raise TrainingError(f"{archive}: {missing[0]} is missing; {', '.join(names)} are expected. Fetch it again.")
    return contents


def _from_binary(where: str, content: bytes) -> Side:
    if not content or len(content) % (1 + PIXELS):
        raise TrainingError(
            f"{where}: {len(content)} bytes are not a whole number of records of {1 + PIXELS}. "
            "The file is truncated or damaged: fetch it again."
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + PIXELS)
    return records[:, 1:].reshape(-1, *SHAPE), records[:, 0]


def _from_pickle(where: str, content: bytes) -> Side:
    expected = f"a dictionary with `data` of {PIXELS} bytes a row and as many `labels` is expected"
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Refused as error:
        raise TrainingError(
            f"{where}: its pickle asks for {error}, which CIFAR-10 does not. Do not trust it."
        ) from error
    except Exception as error:  # damaged pickles raise whatever the instruction at hand does
        raise TrainingError(f"{where} cannot be read as a pickle: {error!r}; {expected}. Fetch it again.") from error
    try:
        data, labels = _field(batch, "data"), _field(batch, "labels")
        images = np.frombuffer(data.content, np.uint8).reshape(data.shape, order=data.order)
        if len(images) != len(labels) or not len(images):
            raise ValueError(f"{len(images)} pictures and {len(labels)} labels")
        return images.reshape(-1, *SHAPE), np.array(labels, np.uint8)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise TrainingError(f"{where}: {expected} ({error}). Fetch it again.") from error


def _field(batch: dict[bytes | str, Any], name: str) -> Any:
    return batch[name.encode()] if name.encode() in batch else batch[name]


class Refused(Exception):
    """A pickle wants to call something that no batch of CIFAR-10 needs."""


class _Unpickler(pickle.Unpickler):
    """Knows an array of bytes and nothing else: no name in a pickle leads to any code but this file's."""

    def find_class(self, module: str, name: str) -> Any:
        stand_ins = {
            "numpy.core.multiarray._reconstruct": _Array,
            "numpy._core.multiarray._reconstruct": _Array,  # since numpy 2
            "numpy.ndarray": None,
            "numpy.dtype": _Dtype,
            "_codecs.encode": _encode,
        }
        if f"{module}.{name}" not in stand_ins:
            raise Refused(f"{module}.{name}")
        return stand_ins[f"{module}.{name}"]


class _Dtype:
    """Stands for numpy's dtype: remembers the type's code."""

    def __init__(self, code: bytes | str, *_: Any) -> None:
        self.code = code.decode("latin-1") if isinstance(code, bytes) else code

    def __setstate__(self, _: Any) -> None:
        """Byte order and the like: nothing that bytes have."""


class _Array:
    """Stands for a numpy array: its shape and content as the pickle has them."""

    def __init__(self, *_: Any) -> None:
        self.shape: tuple[int, ...] = ()
        self.content = b""
        self.order: Literal["C", "F"] = "C"

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, self.shape, dtype, column_by_column, self.content = state
        self.order = "F" if column_by_column else "C"
        if dtype.code != "u1":
            raise ValueError(f"numbers of type {dtype.code}, not bytes")


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 pickles bytes for Python 2."""
    if encoding != "latin1":
        raise Refused(f"bytes encoded as {encoding}")
    return text.encode("latin-1")
