"""The 26-letter network: the convolutional network that S. Haykin draws in "Neural Networks and Learning Machines".

One output neuron for each letter; the output layer is itself a convolution, whose kernel covers what is left.

    input   (N, 1, 28, 28)
    c1      (N, 4, 24, 24)   5×5 convolution
    s2      (N, 4, 12, 12)   2×2 mean, times a coefficient plus a bias for each map, squashed
    c3      (N, 12, 8, 8)    5×5 convolution; here each map sees all four
    s4      (N, 12, 4, 4)    as s2
    output  (N, 26)          4×4 convolution, then flat

Coefficients, squashing and initial weights are LeNet-5's, by the same school; the figure does not say.
"""

from __future__ import annotations

from torch import nn

from training.nets.lenet5 import Squash, Subsampling, initialise

INPUT_SHAPE = (1, 28, 28)
CLASSES = 26

NETWORKS = {"letters26": (4, 12)}
"""Maps of the two convolutions."""


def build(name: str, classes: int = CLASSES) -> nn.Sequential:
    """A freshly initialised network of the table."""
    few, many = NETWORKS[name]
    network = nn.Sequential()
    network.add_module("c1", nn.Conv2d(1, few, 5))
    network.add_module("squash1", Squash())
    network.add_module("s2", Subsampling(few))
    network.add_module("c3", nn.Conv2d(few, many, 5))
    network.add_module("squash3", Squash())
    network.add_module("s4", Subsampling(many))
    network.add_module("output", nn.Conv2d(many, classes, 4))
    network.add_module("flatten", nn.Flatten())
    initialise(network)
    return network
