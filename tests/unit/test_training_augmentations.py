"""Augmentations: what each may change and what it must not; the same draws, the same pictures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from training import augmentations
from training.augmentations import ALEXNET, CIFAR, RESNET, Affine, PadCropFlip
from training.data import augment
from training.data.augment import COLOUR_DIRECTIONS, COLOUR_SIZES, crop_flip, pad_crop_flip, shift_colours
from training.files import TrainingError

GENTLE = Affine(rotation=12, scale=0.12, shift=1.5, shear=0.15)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int, channels: int, side: int) -> torch.Tensor:
    """Images whose pixels all have different values, none of them 0."""
    return torch.arange(1.0, count * channels * side * side + 1).view(count, channels, side, side)


@pytest.mark.parametrize("how", [GENTLE, CIFAR, ALEXNET, RESNET], ids=str)
def test_a_recipe_comes_back_from_what_a_run_recorded(how: augmentations.Augmentation) -> None:
    assert augmentations.from_dict(dataclasses.asdict(how)) == how


def test_an_augmentation_of_another_version_is_refused_with_its_fields() -> None:
    with pytest.raises(ValueError, match="no augmentation has the fields brightness"):
        augmentations.from_dict({"brightness": 1})


def test_pad_crop_flip_shows_a_window_of_the_padded_picture_or_its_mirror() -> None:
    images = numbered(200, 3, 8)
    padded = torch.nn.functional.pad(images, [4] * 4, value=-7.0)
    changed = pad_crop_flip(images, PadCropFlip(4), -7.0, seeded())
    assert changed.shape == images.shape
    seen = set()
    for whole, picture in zip(padded, changed, strict=True):
        windows = {
            (top, left, mirrored): window.flip(2) if mirrored else window
            for top in range(9)
            for left in range(9)
            for mirrored in (False, True)
            for window in [whole[:, top : top + 8, left : left + 8]]
        }
        matches = [place for place, window in windows.items() if torch.equal(window, picture)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(9))
    assert {mirrored for *_, mirrored in seen} == {False, True}


def test_crop_flip_reaches_every_corner_and_both_sides() -> None:
    image = numbered(1, 1, 5)[0]
    generator = seeded()
    crops = {tuple(crop_flip(image, 3, generator).flatten().tolist()) for _ in range(400)}
    windows = [image[:, top : top + 3, left : left + 3] for top in range(3) for left in range(3)]
    assert crops == {tuple(w.flatten().tolist()) for window in windows for w in (window, window.flip(2))}


def test_a_crop_of_the_whole_is_the_whole_or_its_mirror() -> None:
    image = numbered(1, 3, 4)[0]
    crop = crop_flip(image, 4, seeded())
    assert torch.equal(crop, image) or torch.equal(crop, image.flip(2))


def test_colours_move_together_along_the_principal_components() -> None:
    image = torch.rand(3, 6, 6, generator=seeded(1))
    generator = seeded()
    steps = torch.stack([shift_colours(image, 0.1, generator) - image for _ in range(4_000)])
    assert torch.allclose(steps, steps[:, :, :1, :1].expand_as(steps), atol=1e-6)
    along = steps[:, :, 0, 0] @ torch.tensor(COLOUR_DIRECTIONS)
    assert np.allclose(along.std(0), 0.1 * torch.tensor(COLOUR_SIZES), rtol=0.05)
    assert torch.equal(shift_colours(image, 0.0, seeded()), image)


def test_the_directions_of_colour_are_orthonormal() -> None:
    directions = torch.tensor(COLOUR_DIRECTIONS)
    assert torch.allclose(directions.T @ directions, torch.eye(3), atol=2e-3)


@pytest.mark.parametrize("how", [GENTLE, CIFAR], ids=str)
def test_the_same_draws_make_the_same_pictures(how: augmentations.Augmentation) -> None:
    images = torch.rand(4, 3, 16, 16, generator=seeded(1))
    torch.manual_seed(5)
    from_global = augment(images, how, 0.0)
    assert torch.equal(from_global, augment(images, how, 0.0, seeded(5)))
    assert not torch.equal(from_global, augment(images, how, 0.0, seeded(6)))


def test_scaling_from_files_is_refused_for_what_is_in_memory() -> None:
    with pytest.raises(TrainingError, match="this data set is in memory"):
        augment(torch.zeros(1, 3, 32, 32), ALEXNET, 0.0)
