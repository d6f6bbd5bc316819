"""Scikit-learn's handwritten digits: the fixed split, and the way from 8×8 counts to a network's 32×32 input.

1,797 real digits of 13 writers, 8×8 pixels whose value 0..16 counts the ink in a 4×4 block (Alpaydin & Kaynak 1998: the
test part of UCI's "Optical Recognition of Handwritten Digits", CC BY 4.0). Needs numpy, and scikit-learn's file of it.
Must not know torch: an example without it takes its pictures from here, or from the file that `write_held_out` makes.

The same split for everybody: a function of `SPLIT` and of scikit-learn's order, through SHA-256, so that no version
of a random generator has a say in it. A writer may be on both sides: figures speak of new digits, not of new hands.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.files import write_atomically

SPLIT = "convoy digits, split 1"
HELD_OUT_PER_CLASS = 36  # of the 174 to 183 digits of a class: a fifth

LABELS = tuple("0123456789")

INK = 16.0  # the value of a pixel that is all ink
# LeCun et al. 1998, section III.A: a mean input near 0 speeds learning up. Here it is 0.12.
BACKGROUND = -0.1
FOREGROUND = 1.175
OFFSET = np.float32(BACKGROUND)
SCALE = np.float32((FOREGROUND - BACKGROUND) / INK)

INPUT_SIDE = 32
DIGIT_SIDE = 24  # the digit's 8×8 grid, three times as large, in the middle: 4 pixels of paper all around


@dataclass(frozen=True, slots=True)
class Digits:
    """N digits as scikit-learn has them."""

    images: NDArray[np.uint8]
    """(N, 8, 8), 0 (paper) to 16 (ink)."""
    labels: NDArray[np.uint8]
    """(N,), 0 to 9."""


def training_digits() -> Digits:
    """The 1,437 digits to learn from, in scikit-learn's order."""
    return _side(held_out=False)


def held_out_digits() -> Digits:
    """The 360 digits, 36 of each class, that no training sees, in scikit-learn's order."""
    return _side(held_out=True)


def held_out_mask(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """True where a digit is held out: of each class the 36 whose hashed index is smallest. (N,) → (N,)."""
    rank = [hashlib.sha256(f"{SPLIT}/{index}".encode()).digest() for index in range(len(labels))]
    mask = np.zeros(len(labels), dtype=np.bool_)
    for label in range(len(LABELS)):
        mask[sorted(np.flatnonzero(labels == label), key=lambda index: rank[index])[:HELD_OUT_PER_CLASS]] = True
    return mask


def upscale_matrix() -> NDArray[np.float32]:
    """U (32, 8): `U @ image @ U.T` is the 8×8 image enlarged to 24×24, bilinearly, in the middle of 32×32 zeros."""
    scale = DIGIT_SIDE / 8
    centres = (np.arange(INPUT_SIDE) - (INPUT_SIDE - DIGIT_SIDE) / 2 + 0.5) / scale - 0.5
    # Beyond the grid lies paper: one ring of zeros, so that strokes fade out rather than stop short.
    weights = [np.interp(centres, np.arange(-1, 9), np.eye(10)[column], left=0, right=0) for column in range(1, 9)]
    return np.stack(weights, axis=1).astype(np.float32)


def to_input(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the networks read: (N, 8, 8) of 0..16 → (N, 1, 32, 32), paper -0.1 and ink 1.175."""
    upscale = upscale_matrix()
    pixels = upscale @ images.astype(np.float32) @ upscale.T
    return np.ascontiguousarray((pixels * SCALE + OFFSET)[:, np.newaxis])


def write_held_out(path: Path) -> Digits:
    """Write the held-out digits with all that it takes to make a network's input of them, for numpy alone.

    Fields: `images` uint8 (360, 8, 8), 0..16; `labels` uint8 (360,); `upscale` float32 (32, 8); `scale` and `offset`
    float32. The input is `upscale @ image @ upscale.T * scale + offset`, shaped (N, 1, 32, 32).
    """
    digits = held_out_digits()
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, images=digits.images, labels=digits.labels, upscale=upscale_matrix(), scale=SCALE, offset=OFFSET
    )
    write_atomically(path, buffer.getvalue())
    return digits


def _side(*, held_out: bool) -> Digits:
    table = _table()
    images, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    mask = held_out_mask(labels) == held_out
    return Digits(images[mask], labels[mask])


def _table() -> NDArray[np.uint8]:
    """A digit in each of 1,797 rows: 64 pixels, then the label.

    From the file that scikit-learn's `load_digits` reads: to import that takes as long as to import torch.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the digits are in the package scikit-learn, which is missing", name="sklearn")
    return np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", np.uint8, delimiter=",")
