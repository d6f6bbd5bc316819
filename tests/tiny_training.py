"""Training in the test's own process: a data set of 64 pictures, and torch's global settings put back afterwards."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.data import DATA_SETS, Data
from training.losses import LOSSES
from training.recipes import RECIPES

EXAMPLES, HELD_OUT = 64, 20


def read() -> Data:
    """Bright squares: the class is where they are."""
    labels = torch.arange(EXAMPLES + HELD_OUT) % 10
    images = torch.rand(len(labels), 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.1
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 4 + 12 * (label // 5) :][:12, 2 + 6 * (label % 5) :][:, :5] += 1
    return Data(images[:EXAMPLES], labels[:EXAMPLES], images[EXAMPLES:], labels[EXAMPLES:], tuple("0123456789"))


DATA_SET = dataclasses.replace(DATA_SETS["digits"], read=read)
RECIPE = dataclasses.replace(
    RECIPES["lenet5_modern"], name="tiny", data="tiny", batch_size=16, epochs=3, warm_up=0.1, target=0.1
)


@contextmanager
def torch_as_before() -> Iterator[None]:
    """Determinism, threads and the generator are afterwards as they were."""
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)
            torch.set_num_threads(threads)


class Broken(Exception):
    """What ends a run in the middle of an epoch."""


def breaking_at(call: int) -> Any:
    """Cross entropy, but for one call."""
    calls = itertools.count(1)

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        if next(calls) == call:
            raise Broken
        return LOSSES["cross entropy"](scores, labels)

    return loss


def leaves(tree: Any) -> Any:
    """Tensors as bytes, so that equal means equal to the bit."""
    if isinstance(tree, torch.Tensor):
        return (tree.dtype, tuple(tree.shape), tree.numpy().tobytes())
    if isinstance(tree, dict):
        return {key: leaves(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [leaves(value) for value in tree]
    return tree


def states(folder: Path) -> Any:
    """All of a run's checkpoint that must not depend on whether somebody disturbed it."""
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    for epoch in checkpoint["history"]:
        del epoch["seconds"]
    return leaves({part: value for part, value in checkpoint.items() if part != "plan"})
