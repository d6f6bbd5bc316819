"""ResNet for CIFAR-10: section 4.2 of K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition".

6n+2 layers: a convolution, three stages of n basic blocks, one linear layer. Shortcuts are the paper's option A, which
has no parameters: where the size halves and the width doubles, every second pixel and zeros for the new maps.

    input    (N, 3, 32, 32)
    layer1   (N, 16, 32, 32)
    layer2   (N, 32, 16, 16)
    layer3   (N, 64, 8, 8)
    fc       (N, 10)   of the mean of each map
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from training.nets.resnet import initialise

INPUT_SHAPE = (3, 32, 32)
CLASSES = 10

WIDTHS = (16, 32, 64)

NETWORKS = {"resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9, "resnet110": 18}
"""Blocks in each stage: n."""


def build(name: str, classes: int = CLASSES) -> nn.Sequential:
    """A freshly initialised network of the table."""
    network = nn.Sequential()
    network.add_module("conv1", nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False))
    network.add_module("bn1", nn.BatchNorm2d(WIDTHS[0]))
    network.add_module("relu", nn.ReLU())
    depth = WIDTHS[0]
    for stage, width in enumerate(WIDTHS, start=1):
        first, others = Block(depth, width), [Block(width, width) for _ in range(NETWORKS[name] - 1)]
        network.add_module(f"layer{stage}", nn.Sequential(first, *others))
        depth = width
    network.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc", nn.Linear(depth, classes))
    initialise(network)
    return network


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut: (N, D, H, W) → (N, width, H/s, W/s), s = 2 where the width grows."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.stride = 1 if depth == width else 2
        self.new_maps = width - depth
        self.conv1 = nn.Conv2d(depth, width, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.relu(self.bn2(self.conv2(residual)) + self.shortcut(x))
        return out

    def shortcut(self, x: Tensor) -> Tensor:
        """Option A."""
        if not self.new_maps:
            return x
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_maps))
