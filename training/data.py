"""Data sets as tensors, and their distortion. A row is what a recipe may name and a model card must say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training import digits
from training.files import TrainingError
from training.recipes import Affine


@dataclass(frozen=True, slots=True)
class Data:
    """Both sides of a data set in memory: images (N, C, H, W) float32 as the network reads them, labels (N,) int64."""

    images: Tensor
    labels: Tensor
    held_out_images: Tensor
    held_out_labels: Tensor


@dataclass(frozen=True, slots=True)
class DataSet:
    """One row: how to load it, and what its users must know."""

    load: Callable[[Path | None], Data]
    """From the folder of `--data-dir`; None: what is embedded."""
    labels: tuple[str, ...]
    background: float
    """The value of an empty pixel: what a distortion moves in from outside."""
    task: str
    source: str
    licence: str
    split: str
    preprocessing: str
    pictures: Mapping[str, str]
    """The server's `image.*` parameters that make an input of a picture file."""


def load_digits(folder: Path | None) -> Data:
    """Scikit-learn's digits: 1,437 to learn from, 360 held out, (N, 1, 32, 32)."""
    if folder is not None:
        raise TrainingError(f"--data-dir {folder}: the digits come with scikit-learn, not from a folder. Leave it out.")
    seen, unseen = digits.training_digits(), digits.held_out_digits()
    return Data(
        torch.from_numpy(digits.to_input(seen.images)),
        torch.from_numpy(seen.labels.astype(np.int64)),
        torch.from_numpy(digits.to_input(unseen.images)),
        torch.from_numpy(unseen.labels.astype(np.int64)),
    )


DATA_SETS = {
    "digits": DataSet(
        load_digits,
        digits.LABELS,
        digits.BACKGROUND,
        task="One handwritten digit in the middle of the picture → which of 0 to 9 it is.",
        source="scikit-learn's `load_digits`: 1,797 real digits of 13 writers, the test part of UCI's *Optical "
        "Recognition of Handwritten Digits* (E. Alpaydin, C. Kaynak, 1998).",
        licence="CC BY 4.0 (UCI Machine Learning Repository, doi:10.24432/C50P49).",
        split="Fixed and stratified: 1,437 digits to learn from, 360 held out (36 of each class), by "
        "`training/digits.py`. A writer may be on both sides, so the figure speaks of new digits, not of new hands.",
        preprocessing="One channel, 32×32, float32: paper -0.1, ink 1.175, the digit 24 pixels high in the middle. "
        "From 8×8 counts of 0 to 16: `upscale @ image @ upscale.T * scale + offset`, with the arrays of "
        "`examples/digits_held_out.npz` (`upscale` enlarges to 24×24, bilinearly, inside 32×32).\n\n"
        "Or a PNG or JPEG file of any size, as one BYTES element a row: a dark digit on light paper, in the middle "
        "three quarters of the picture.",
        pictures={"image.resize": "32x32", "image.scale": "-0.005", "image.mean": "-1.175"},
    )
}


def distort(images: Tensor, how: Affine, background: float) -> Tensor:
    """Each image rotated, scaled, shifted and sheared by its own random draw. (N, C, H, W) → the same shape and device.

    The draws come from torch's global generator on the CPU, whatever the device: the same seed, the same distortions.
    """
    count, _, height, width = images.shape
    angle, scale_x, scale_y, shift_x, shift_y, shear = torch.rand(6, count) * 2 - 1
    cos, sin = torch.cos(torch.deg2rad(how.rotation * angle)), torch.sin(torch.deg2rad(how.rotation * angle))
    scale_x, scale_y = 1 + how.scale * scale_x, 1 + how.scale * scale_y
    # affine_grid measures in half images: ±1 are the borders.
    row_x = torch.stack([cos * scale_x, how.shear * shear - sin * scale_x, how.shift * shift_x * 2 / width], dim=1)
    row_y = torch.stack([sin * scale_y, cos * scale_y, how.shift * shift_y * 2 / height], dim=1)
    grid = functional.affine_grid(torch.stack([row_x, row_y], dim=1), list(images.shape), align_corners=False)
    # grid_sample fills with zeros from outside, so that paper must be zero meanwhile.
    return functional.grid_sample(images - background, grid.to(images.device), align_corners=False) + background
