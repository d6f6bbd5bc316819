"""Data sets in their published formats, as small as their readers allow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.unit.test_training_cifar import packed
from tests.unit.test_training_folder import picture
from tests.unit.test_training_idx import write_mnist, write_sides


def mnist(folder: Path) -> None:
    """20 pictures on each side."""
    write_mnist(folder)


def emnist_letters(folder: Path) -> None:
    """26 pictures on each side, the labels from 1, packed."""
    sides = ("emnist-letters-train", "emnist-letters-test")
    write_sides(folder, sides, np.arange(1, 27, dtype=np.uint8), packed=True)


def cifar10(folder: Path) -> None:
    """Five batches of ten pictures, and ten held out, as the archive for Python."""
    packed(folder, "py")


def pictures(folder: Path) -> None:
    """Two classes of five pictures in each; one of five is held out."""
    for label, name in enumerate(("boat", "plane")):
        for number in range(5):
            picture(folder / name / f"{number}.png", 10 * label + number)


WRITERS: dict[str, Callable[[Path], None]] = {
    "mnist": mnist,
    "emnist_letters": emnist_letters,
    "convnetjs_cifar10": cifar10,
    "resnet20_cifar10": cifar10,
    "folder32": pictures,
    "folder224": pictures,
}
"""By recipe."""


def write(recipe: str, folder: Path) -> Path:
    """What `--data-dir` of this recipe may name."""
    folder.mkdir()
    WRITERS[recipe](folder)
    return folder
