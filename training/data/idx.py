"""MNIST and EMNIST as published: IDX files, compressed or not.

An IDX file is two zero bytes, the type of its numbers (0x08: bytes), the number of dimensions, the size of each as a
big-endian 32-bit number, then the numbers.
"""

from __future__ import annotations

import gzip
import math
import string
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.sets import INK, Data, refuse_wrong_labels, to_data
from training.files import TrainingError

BYTES = 0x08
SIDE = 28
DIGITS = tuple(string.digits)
LETTERS = tuple(string.ascii_uppercase)

MNIST_FILES = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte"
EMNIST_FILES = "emnist-letters-{train,test}-images-idx3-ubyte, emnist-letters-{train,test}-labels-idx1-ubyte"


def read_mnist(folder: Path) -> Data:
    """MNIST's 60,000 digits to learn from and 10,000 held out, (N, 1, 28, 28). Labels 0 to 9."""
    return _read(folder, "train", "t10k", DIGITS, first_label=0, transposed=False)


def read_emnist_letters(folder: Path) -> Data:
    """EMNIST's letters, capitals and small ones in one class, (N, 1, 28, 28). Labels 1 to 26 there, 0 to 25 here."""
    return _read(folder, "emnist-letters-train", "emnist-letters-test", LETTERS, first_label=1, transposed=True)


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array in an IDX file of bytes; a name that ends in .gz is unpacked on the way."""
    content = _content(path)
    header = 4 + 4 * dimensions
    expected = bytes([0, 0, BYTES, dimensions])
    if content[:4] != expected:
        raise TrainingError(
            f"{path}: the magic number is 0x{content[:4].hex() or '(nothing)'}, not 0x{expected.hex()}. "
            f"An IDX file of bytes with {dimensions} dimension{'s' * (dimensions > 1)} is expected."
        )
    if len(content) < header:
        raise TrainingError(f"{path} is truncated: {len(content)} bytes, and the header alone has {header}.")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    if len(content) - header != math.prod(shape):
        raise TrainingError(
            f"{path}: {'×'.join(map(str, shape))} = {math.prod(shape)} bytes are promised after the header, and "
            f"{len(content) - header} are there. The file is truncated or damaged: fetch it again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _read(folder: Path, train: str, test: str, names: tuple[str, ...], *, first_label: int, transposed: bool) -> Data:
    sides = []
    for prefix in (train, test):
        images_path, labels_path = _find(folder, f"{prefix}-images", 3), _find(folder, f"{prefix}-labels", 1)
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if images.shape[1:] != (SIDE, SIDE):
            raise TrainingError(
                f"{images_path}: pictures of {images.shape[1]}×{images.shape[2]} pixels; {SIDE}×{SIDE} are expected."
            )
        if len(images) != len(labels):
            raise TrainingError(f"{images_path} has {len(images)} pictures, and {labels_path} {len(labels)} labels.")
        refuse_wrong_labels(labels_path, labels, names, first_label)
        # EMNIST keeps Matlab's order: columns first.
        images = images.transpose(0, 2, 1) if transposed else images
        sides.append((images[:, np.newaxis], labels - np.uint8(first_label)))
    return to_data(sides[0], sides[1], names, INK)


def _find(folder: Path, stem: str, dimensions: int) -> Path:
    # The second spelling is that of some unpackers, which turn the last dash into a dot.
    names = [f"{stem}-idx{dimensions}-ubyte", f"{stem}.idx{dimensions}-ubyte"]
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise TrainingError(f"{folder / names[0]} is missing, also as .gz. Unpack the published archive into {folder}.")


def _content(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise TrainingError(f"{path} cannot be read: {error}. An IDX file is expected; fetch it again.") from error
