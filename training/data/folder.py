"""Pictures in a folder for each class, as people keep them and as ImageNet is unpacked.

FOLDER/train/<class>/*.png, *.jpg, *.jpeg     to learn from
FOLDER/val/<class>/...                        held out
FOLDER/<class>/...                            or without the two: a fifth of each class is held out
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from training.augmentations import Augmentation, RandomCrops
from training.data.augment import augment, crop_flip, shift_colours
from training.data.sets import Normalisation
from training.files import TrainingError

FILES = "train/CLASS/ and val/CLASS/, or CLASS/ alone, with PNG and JPEG files"
SUFFIXES = (".png", ".jpg", ".jpeg")
HELD_OUT_PART = 5  # one in five, where the folder has no val/


@dataclass(frozen=True, slots=True)
class Pictures:
    """One side of a data set as files: a path and a label each."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]


def find_pictures(folder: Path) -> tuple[Pictures, Pictures, tuple[str, ...]]:
    """What to learn from, what is held out, and the classes' names: the sub-folders in alphabetical order."""
    train, val = folder / "train", folder / "val"
    if train.is_dir() != val.is_dir():
        there, missing = (train, val) if train.is_dir() else (val, train)
        raise TrainingError(f"{missing} is missing beside {there}. Expected: {FILES}.")
    if train.is_dir():
        classes, held_out_classes = _classes(train), _classes(val)
        for one, other, where in ((classes, held_out_classes, val), (held_out_classes, classes, train)):
            if set(one) - set(other):
                name = min(set(one) - set(other))
                raise TrainingError(f"{where / name} is missing: train/ and val/ must have the same classes.")
    else:
        everything = _classes(folder)
        held_out_classes = {name: _held_out(paths) for name, paths in everything.items()}
        held_out = {path for paths in held_out_classes.values() for path in paths}
        classes = {name: [path for path in paths if path not in held_out] for name, paths in everything.items()}
        for name, paths in classes.items():
            if not paths:
                raise TrainingError(f"{folder / name} holds one picture: at least 2 are needed, one to be held out.")
    return _side(classes), _side(held_out_classes), tuple(classes)


def decode(path: Path) -> Image.Image:
    """The picture upright, in 8-bit RGB."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            if picture.mode.startswith(("I", "F")):
                raise TrainingError(f"{path}: more than 8 bits a channel ({picture.mode}). Convert it to 8-bit RGB.")
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise TrainingError(
            f"{path} cannot be read as PNG or JPEG: {error}. Is it truncated? Fetch it again, or take it away."
        ) from error


def central_view(picture: Image.Image, side: int) -> Image.Image:
    """What evaluation sees: the short side scaled to 256/224 of `side`, and the square of `side` in the middle."""
    return _central_square(_scaled(picture, short_side_of(side)), side)


def short_side_of(side: int) -> int:
    """What a picture is scaled to before its middle is cut out: 256 for 224."""
    return round(side * 256 / 224)


def training_view(
    path: Path,
    side: int,
    how: Augmentation,
    normalisation: Normalisation,
    background: float,
    generator: torch.Generator,
) -> Tensor:
    """The picture as one sight of it in training: (3, side, side) float32, as the network reads it."""
    picture = decode(path)
    if not isinstance(how, RandomCrops):
        seen = normalisation.bytes(to_pixels(central_view(picture, side)))
        return augment(seen[None], how, background, generator)[0]
    short_side = int(torch.randint(how.short_side_from, how.short_side_to + 1, (), generator=generator))
    picture = _scaled(picture, short_side)
    if how.central_square:
        picture = _central_square(picture, short_side)
    image = crop_flip(to_pixels(picture), how.side, generator).float() / 255
    return normalisation.scaled(shift_colours(image, how.colour, generator))


def evaluation_view(path: Path, side: int, normalisation: Normalisation) -> Tensor:
    """The picture without chance: (3, side, side) float32, as the network reads it."""
    return normalisation.bytes(to_pixels(central_view(decode(path), side)))


def to_pixels(picture: Image.Image) -> Tensor:
    """(3, H, W) uint8."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def _scaled(picture: Image.Image, short_side: int) -> Image.Image:
    factor = short_side / min(picture.size)
    width, height = (max(short_side, round(size * factor)) for size in picture.size)
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def _central_square(picture: Image.Image, side: int) -> Image.Image:
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _classes(folder: Path) -> dict[str, list[Path]]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < 2:
        raise TrainingError(
            f"{folder}: {', '.join(names) or 'no folder'}; at least 2 classes are needed, a folder each."
        )
    return {name: _pictures(folder / name) for name in names}


def _pictures(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    strange = [path for path in paths if path.suffix.lower() not in SUFFIXES or not path.is_file()]
    if strange:
        raise TrainingError(
            f"{strange[0]} is not a PNG or JPEG file. Convert it, or take it out of the class's folder."
        )
    if not paths:
        raise TrainingError(f"{folder} is empty: at least one PNG or JPEG file is expected.")
    return paths


def _held_out(paths: list[Path]) -> list[Path]:
    """A fifth of a class, and one at least: those whose hashed names are smallest, wherever the folder lies."""
    by_hash = sorted(paths, key=lambda path: hashlib.sha256(path.name.encode()).digest())
    return by_hash[: max(1, len(paths) // HELD_OUT_PART)]


def _side(classes: dict[str, list[Path]]) -> Pictures:
    labels = [label for label, paths in enumerate(classes.values()) for _ in paths]
    return Pictures(tuple(path for paths in classes.values() for path in paths), tuple(labels))
