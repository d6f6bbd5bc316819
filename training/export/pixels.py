"""How pixels become what a network reads: the `image.*` parameters of its data set, as arithmetic inside the graph.

The parameters are the same ones by which the server makes a network's input of a picture, so that a picture means the
same to a model that reads pixels and to one whose pixels the server prepares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

NUMBERS = ("image.scale", "image.mean", "image.std")
"""The parameters that move into the graph; the others stay the server's."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """(pixel · scale − mean) ÷ std for pixels of 0 to 255, each channel by itself."""

    scale: Fraction
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, pictures: Mapping[str, str], channels: int) -> Scaling:
        """What the parameters say, with the server's defaults: a single number is for all channels."""
        scale, mean, std = (pictures.get(key, usual) for key, usual in zip(NUMBERS, ("1", "0", "1"), strict=True))
        return cls(Fraction(scale), _per_channel(mean, channels), _per_channel(std, channels))

    @staticmethod
    def channels(pictures: Mapping[str, str]) -> int | None:
        """How many the parameters have numbers for; None: any number of them."""
        count = max(len(pictures.get(key, "").split(",")) for key in NUMBERS)
        return count if count > 1 else None

    def to_bytes(self, images: Tensor) -> Tensor:
        """The inverse, to the nearest byte: (N, C, H, W) as the network reads it → (N, H, W, C) uint8."""
        mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (self.mean, self.std))
        pixels = (images * std + mean) / float(self.scale)
        return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def __str__(self) -> str:
        """The formula, with its numbers."""
        return f"(pixel × {self.scale} − {_listed(self.mean)}) ÷ {_listed(self.std)}"


class Pixels(nn.Module):
    """(N, H, W, C) uint8 → (N, C, H, W) float32: the scaling, as one factor and one summand for each channel."""

    factor: Tensor
    summand: Tensor

    def __init__(self, scaling: Scaling) -> None:
        super().__init__()
        std = torch.tensor(scaling.std, dtype=torch.float64)[:, None, None]
        mean = torch.tensor(scaling.mean, dtype=torch.float64)[:, None, None]
        self.register_buffer("factor", (float(scaling.scale) / std).float())
        self.register_buffer("summand", (-mean / std).float())

    def forward(self, pixels: Tensor) -> Tensor:
        # Bytes are turned around before they become four times as large.
        return pixels.permute(0, 3, 1, 2).float() * self.factor + self.summand


def picture_size(pictures: Mapping[str, str]) -> tuple[int, int]:
    """Height and width of the network's input, as the parameters make it."""
    text = pictures.get("image.center_crop", pictures["image.resize"])
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def _per_channel(text: str, channels: int) -> tuple[float, ...]:
    numbers = tuple(float(Fraction(number)) for number in text.split(","))
    return numbers * channels if len(numbers) == 1 else numbers


def _listed(numbers: tuple[float, ...]) -> str:
    different = [f"{number:g}" for number in dict.fromkeys(numbers)]
    return different[0] if len(different) == 1 else f"({', '.join(different)})"
