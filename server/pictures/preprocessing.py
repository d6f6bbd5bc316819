"""What a model wants done to a picture before it reads it. Pure: sizes in, sizes out.

The rules are torchvision's, whose networks they are for: `Resize`, `CenterCrop`, `ToTensor` and `Normalize`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.tensors import DataType

CHANNEL_COUNTS = (1, 3, 4)
"""Grey, RGB and RGBA: what pixels may be sent as."""


class ImageInvalid(ValueError):
    """A picture that cannot be served. `str(error)` goes on after its name: "cannot be decoded: …"."""


class Color(StrEnum):
    """The channels that a model reads, in its order."""

    RGB = "RGB"
    BGR = "BGR"
    GRAY = "GRAY"

    @property
    def channels(self) -> int:
        return 1 if self is Color.GRAY else 3


class Interpolation(StrEnum):
    """How a picture is resized. All but NEAREST average over what they shrink, as Pillow does (antialiasing)."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class Window(NamedTuple):
    """The part of a picture that the model sees, in the picture's own pixels."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class ImagePreprocessing:
    """How pictures become rows of one input."""

    input: str
    """The name of the input."""
    datatype: DataType
    """FP32, FP16 or UINT8."""
    height: int
    width: int
    """What the model reads, and the size of the crop in the middle where `resize` leaves more."""
    resize: int | tuple[int, int]
    """The shorter side, or height and width whatever the proportions."""
    color: Color
    channels_first: bool
    interpolation: Interpolation
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """One for each channel in the model's order: the input is (pixel * scale - mean) / std, for pixels of 0 to 255."""
    max_pixels: int
    """A picture of more is refused before it is decoded."""
    jpeg_draft: bool
    """Whether large JPEG files may be decoded at 1/2, 1/4 or 1/8 of their size."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """One row in the model's layout."""
        size, channels = (self.height, self.width), self.color.channels
        return (channels, *size) if self.channels_first else (*size, channels)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that a picture of this size is resized to, before the crop."""
        if isinstance(self.resize, tuple):
            return self.resize
        if height < width:
            return self.resize, self.resize * width // height
        return self.resize * height // width, self.resize

    def window(self, height: int, width: int) -> Window:
        """What the model sees of a picture of this size."""
        rows, columns = self.resized(height, width)
        top, left = round((rows - self.height) / 2), round((columns - self.width) / 2)
        y, x = height / rows, width / columns
        return Window(left * x, top * y, (left + self.width) * x, (top + self.height) * y)

    def factors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(a, b) such that the input is pixel * a + b; they broadcast against `shape`."""
        std = np.array(self.std)
        factors = np.stack([self.scale / std, -np.array(self.mean) / std]).astype(np.float32)
        if self.channels_first:
            a, b = factors.reshape(2, -1, 1, 1)
        else:
            # A whole line of pixels: numpy is six times slower where its innermost loop is over three channels.
            a, b = np.tile(factors[:, np.newaxis], (1, self.width, 1))
        return a, b
