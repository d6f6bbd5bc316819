"""Augmentations as arithmetic on tensors. Every draw is made on the CPU: the same seed, the same pictures everywhere.

`generator` None is torch's global one, whose state a run's checkpoint keeps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training.augmentations import Affine, Augmentation, PadCropFlip
from training.files import TrainingError

# Principal components of ImageNet's RGB values, on a scale of 0 to 1: (RGB, component), and each one's size.
COLOUR_DIRECTIONS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
COLOUR_SIZES = (0.2175, 0.0188, 0.0045)


def augment(images: Tensor, how: Augmentation, background: float, generator: torch.Generator | None = None) -> Tensor:
    """Each image changed by its own random draw. (N, C, H, W) → the same shape and device."""
    if isinstance(how, Affine):
        return distort(images, how, background, generator)
    if isinstance(how, PadCropFlip):
        return pad_crop_flip(images, how, background, generator)
    raise TrainingError(
        "RandomCrops scales pictures from their files, and this data set is in memory. "
        "Use Affine or PadCropFlip in the recipe, or the data set folder224."
    )


def distort(images: Tensor, how: Affine, background: float, generator: torch.Generator | None = None) -> Tensor:
    """Each image rotated, scaled, shifted and sheared by its own random draw. (N, C, H, W) → the same shape."""
    count, _, height, width = images.shape
    angle, scale_x, scale_y, shift_x, shift_y, shear = torch.rand(6, count, generator=generator) * 2 - 1
    cos, sin = torch.cos(torch.deg2rad(how.rotation * angle)), torch.sin(torch.deg2rad(how.rotation * angle))
    scale_x, scale_y = 1 + how.scale * scale_x, 1 + how.scale * scale_y
    # affine_grid measures in half images: ±1 are the borders.
    row_x = torch.stack([cos * scale_x, how.shear * shear - sin * scale_x, how.shift * shift_x * 2 / width], dim=1)
    row_y = torch.stack([sin * scale_y, cos * scale_y, how.shift * shift_y * 2 / height], dim=1)
    grid = functional.affine_grid(torch.stack([row_x, row_y], dim=1), list(images.shape), align_corners=False)
    # grid_sample fills with zeros from outside, so that paper must be zero meanwhile.
    return functional.grid_sample(images - background, grid.to(images.device), align_corners=False) + background


def pad_crop_flip(
    images: Tensor, how: PadCropFlip, background: float, generator: torch.Generator | None = None
) -> Tensor:
    """Each image moved by up to `padding` pixels along each axis, and mirrored or not. (N, C, H, W) → the same."""
    count, channels, height, width = images.shape
    top, left = torch.randint(0, 2 * how.padding + 1, (2, count), generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5
    rows = top[:, None] + torch.arange(height)  # (N, H)
    columns = left[:, None] + torch.arange(width)  # (N, W)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = functional.pad(images, [how.padding] * 4, value=background)
    device = images.device
    return padded[
        torch.arange(count, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[None, :, None, None],
        rows.to(device)[:, None, :, None],
        columns.to(device)[:, None, None, :],
    ]


def crop_flip(image: Tensor, side: int, generator: torch.Generator | None = None) -> Tensor:
    """A random square of the picture, mirrored or not. (C, H, W), both at least `side` → (C, side, side)."""
    _, height, width = image.shape
    top = int(torch.randint(0, height - side + 1, (), generator=generator))
    left = int(torch.randint(0, width - side + 1, (), generator=generator))
    cropped = image[:, top : top + side, left : left + side]
    return cropped.flip(2) if torch.rand((), generator=generator) < 0.5 else cropped


def shift_colours(image: Tensor, deviation: float, generator: torch.Generator | None = None) -> Tensor:
    """AlexNet's colours: one random step along each principal component, the same for all pixels.

    (3, H, W) on a scale of 0 to 1, before any normalisation → the same shape; values may leave 0 to 1.
    """
    steps = torch.randn(3, generator=generator) * deviation * torch.tensor(COLOUR_SIZES)
    return image + (torch.tensor(COLOUR_DIRECTIONS) @ steps)[:, None, None]
