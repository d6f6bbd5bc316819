"""Multilayer perceptrons: D. Rumelhart, G. Hinton, R. Williams, "Learning Representations by Back-Propagating Errors".

The lecture's comparison at equal size, "short and fat" against "tall and thin", with ReLU where the paper has sigmoids.
Both read LeNet-5's input, and have 426,430 parameters each at ten classes: 412 units in one layer, or 206 in each of
six. (One layer of h units has 1035·h + 10 of them, L layers of w have 1035·w + (L-1)·w·(w+1) + 10: equal here.)

    input    (N, 1, 32, 32)
    hidden   (N, 412) once, or (N, 206) six times
    output   (N, 10)
"""

from __future__ import annotations

import math

from torch import nn

INPUT_SHAPE = (1, 32, 32)
CLASSES = 10

NETWORKS: dict[str, tuple[int, ...]] = {"mlp_shallow": (412,), "mlp_deep": (206,) * 6}
"""Units of each hidden layer."""


def build(name: str, classes: int = CLASSES) -> nn.Sequential:
    """A freshly initialised network of the table."""
    network = nn.Sequential(nn.Flatten())
    width = math.prod(INPUT_SHAPE)
    for index, units in enumerate(NETWORKS[name], start=1):
        network.add_module(f"hidden{index}", nn.Linear(width, units))
        network.add_module(f"relu{index}", nn.ReLU())
        width = units
    network.add_module("output", nn.Linear(width, classes))
    initialise(network)
    return network


def initialise(network: nn.Module) -> None:
    """He's weights for ReLU, by the incoming connections; biases zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
