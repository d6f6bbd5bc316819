"""What happens to a picture before a network learns from it, as rows of a recipe. Must not import torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Affine:
    """Random distortion of a training image: each quantity uniform in ± its bound, drawn anew at each sight."""

    rotation: float
    """Degrees."""
    scale: float
    """Of each axis by itself; 0.1 is 10 % larger or smaller."""
    shift: float
    """Pixels along each axis."""
    shear: float
    """Horizontal pixels for each vertical pixel."""


@dataclass(frozen=True, slots=True)
class PadCropFlip:
    """He et al. 2015, section 4.2, for CIFAR-10: background all around, a crop of the old size, flipped or not."""

    padding: int
    """Pixels on each side."""


@dataclass(frozen=True, slots=True)
class RandomCrops:
    """The large networks' way: a scaled picture, a random crop of it, flipped or not, its colours shifted.

    Each picture is scaled from its file, so that it needs a data set that is read picture by picture.
    """

    side: int
    """Pixels of the square that the network sees."""
    short_side_from: int
    short_side_to: int
    """The picture's short side in pixels, uniform between the two, both included."""
    central_square: bool
    """Crops come from the square in the middle of the scaled picture only."""
    colour: float
    """Standard deviation of the steps along the principal components of colour; 0 leaves colours alone."""


Augmentation = Affine | PadCropFlip | RandomCrops

CIFAR = PadCropFlip(padding=4)
# Krizhevsky, Sutskever, Hinton 2012, section 4.1.
ALEXNET = RandomCrops(side=224, short_side_from=256, short_side_to=256, central_square=True, colour=0.1)
# Simonyan & Zisserman 2014, section 3.1: scale jitter, and AlexNet's colours.
VGG = RandomCrops(side=224, short_side_from=256, short_side_to=512, central_square=False, colour=0.1)
# He, Zhang, Ren, Sun 2015, section 3.4: the scale augmentation of VGG, with AlexNet's colours.
RESNET = RandomCrops(side=224, short_side_from=256, short_side_to=480, central_square=False, colour=0.1)


def from_dict(fields: dict[str, Any]) -> Augmentation:
    """The inverse of `dataclasses.asdict`: the kinds share no name of a field, so that the names tell the kind."""
    for kind in (Affine, PadCropFlip, RandomCrops):
        if {field.name for field in dataclasses.fields(kind)} == fields.keys():
            return kind(**fields)
    raise ValueError(f"no augmentation has the fields {', '.join(fields)}")
