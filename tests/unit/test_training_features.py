"""Filters and feature maps as arrays, and how they are laid out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from training import features, nets, plots


def test_the_filters_of_a_convolution_are_its_weights() -> None:
    network = nets.build("lenet5")
    filters = features.first_filters(network, (1, 32, 32))
    assert filters is not None and filters.shape == (6, 1, 5, 5)
    assert np.array_equal(filters, network.get_submodule("c1").weight.detach().numpy())


def test_a_linear_layer_that_reads_the_image_has_filters_as_large_as_the_image() -> None:
    reads_image = nn.Sequential(nn.Flatten(), nn.Linear(2 * 3 * 4, 5))
    filters = features.first_filters(reads_image, (2, 3, 4))
    assert filters is not None and filters.shape == (5, 2, 3, 4)
    assert features.first_filters(nn.Sequential(nn.LSTM(4, 6), nn.Linear(6, 2)), (1, 4, 4)) is None


def test_of_each_size_of_map_the_last_is_kept() -> None:
    maps = features.feature_maps(nets.build("lenet5_modern"), torch.rand(1, 32, 32))
    shapes = {name: stack.shape for name, stack in maps.items()}
    assert shapes == {"squash1": (6, 28, 28), "s2": (6, 14, 14), "squash3": (16, 10, 10), "s4": (16, 5, 5)}


def test_maps_are_as_they_were_before_a_layer_changed_them_in_place() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.ReLU(inplace=True))
    maps = features.feature_maps(network, torch.randn(1, 8, 8))
    assert list(maps) == ["1", "3"]
    assert all((stack >= 0).all() for stack in maps.values())
    assert not any(layer._forward_hooks for layer in network.modules())


def test_tiles_stand_side_by_side_on_white() -> None:
    pictures = np.stack([np.full((2, 3), shade, np.float32) for shade in (0.0, 0.25, 0.5)])
    sheet = plots.tiled(pictures, 2)
    assert sheet.shape == (5, 7)
    assert (sheet[:2, :3] == 0).all() and (sheet[:2, 4:] == 0.25).all() and (sheet[3:, :3] == 0.5).all()
    assert (sheet[2] == 1).all() and (sheet[:, 3] == 1).all() and (sheet[3:, 4:] == 1).all()


def test_pictures_of_colour_and_of_grey_and_of_nothing_are_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plots.filters(tmp_path / "colour.png", rng.normal(size=(96, 3, 11, 11)).astype(np.float32))
    plots.filters(tmp_path / "grey.png", np.zeros((4, 20, 3, 3), np.float32))
    maps = {"c1": rng.normal(size=(20, 8, 8)).astype(np.float32), "dead": np.zeros((2, 4, 4), np.float32)}
    plots.feature_maps(tmp_path / "maps.png", rng.normal(size=(3, 8, 8)).astype(np.float32), maps)
    plots.confusion_matrix(tmp_path / "many.png", np.eye(100, dtype=np.int64), [str(label) for label in range(100)])
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n") for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 4
