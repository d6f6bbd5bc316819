"""Deep networks of sigmoid layers: G. Hinton, R. Salakhutdinov, "Reducing the Dimensionality of Data with Neural
Networks", 2006. A stack of two-layer models, unrolled into one feed-forward network with a classifier on top.

    input  (N, 1, 32, 32) float32, paper -0.1 and ink 1.175
    units  (N, 256)        2×2 means, paper 0 and ink 1: what a Boltzmann machine reads as probabilities
    hidden (N, width)      sigmoid(W x + b), once for each width
    output (N, classes)    linear scores

Plain back-propagation hardly reaches the first layers: `training/pretraining/` gives them a start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10
INPUT_SHAPE = (1, 32, 32)
UNITS = 256
PAPER, INK = -0.1, 1.175

NETWORKS: dict[str, tuple[int, ...]] = {"deep_sigmoid": (200, 200, 200)}
"""The widths of the hidden layers, the first one first."""


class Intensities(nn.Module):
    """A picture as units between 0 and 1. (N, 1, 32, 32) → (N, 256)."""

    def forward(self, images: Tensor) -> Tensor:
        return ((functional.avg_pool2d(images, 2) - PAPER) / (INK - PAPER)).flatten(1)


class DeepSigmoid(nn.Module):
    """`units` makes (N, inputs) of pictures; a sigmoid follows each of the linear `hidden`; `output` gives scores."""

    def __init__(self, units: nn.Module, inputs: int, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.units = units
        self.hidden = nn.ModuleList(
            nn.Linear(below, width) for below, width in zip((inputs, *widths), widths, strict=False)
        )
        self.output = nn.Linear(widths[-1], classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.units(images)
        for layer in self.hidden:
            x = torch.sigmoid(layer(x))
        scores: Tensor = self.output(x)
        return scores


def build(name: str, classes: int = CLASSES) -> DeepSigmoid:
    """A freshly initialised network of the table, for pictures of `INPUT_SHAPE`."""
    return DeepSigmoid(Intensities(), UNITS, NETWORKS[name], classes)


def initialise(network: DeepSigmoid) -> None:
    """Uniform in ±1/√fan-in, biases 0: what the papers on pre-training started their plain networks from."""
    for layer in (*network.hidden, network.output):
        assert isinstance(layer, nn.Linear)
        bound = 1 / math.sqrt(layer.in_features)
        nn.init.uniform_(layer.weight, -bound, bound)
        nn.init.zeros_(layer.bias)
