"""The CIFAR-10 network of A. Karpathy's ConvNetJS demo (cs.stanford.edu/people/karpathy/convnetjs/demo/cifar10.html).

input   (N, 3, 32, 32)
pool1   (N, 16, 16, 16)   each: 5×5 convolution with a margin of 2, ReLU, 2×2 maximum pooling
pool2   (N, 20, 8, 8)
pool3   (N, 20, 4, 4)
fc      (N, 10)           22,466 parameters in all
"""

from __future__ import annotations

from torch import nn

INPUT_SHAPE = (3, 32, 32)
CLASSES = 10

NETWORKS = {"convnetjs_cifar10": (16, 20, 20)}
"""Filters of the three convolutions."""


def build(name: str, classes: int = CLASSES) -> nn.Sequential:
    """A freshly initialised network of the table."""
    network = nn.Sequential()
    depth, side = INPUT_SHAPE[0], INPUT_SHAPE[1]
    for index, filters in enumerate(NETWORKS[name], start=1):
        network.add_module(f"conv{index}", nn.Conv2d(depth, filters, 5, padding=2))
        network.add_module(f"relu{index}", nn.ReLU())
        network.add_module(f"pool{index}", nn.MaxPool2d(2))
        depth, side = filters, side // 2
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc", nn.Linear(depth * side * side, classes))
    initialise(network)
    return network


def initialise(network: nn.Module) -> None:
    """The library's: weights normal with variance 1/fan-in; biases 0.1 before ReLU, so that each unit starts alive."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, 0.1 if isinstance(layer, nn.Conv2d) else 0.0)
