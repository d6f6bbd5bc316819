"""ResNet for ImageNet: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", 2015, table 1.

Shortcuts are the paper's option B: a 1×1 convolution where the size or the width changes, otherwise the identity. In a
bottleneck the 3×3 convolution takes the step of 2, as everyone's downloaded weights have it ("v1.5"); the paper's first
1×1 did. Names of layers are torchvision's. For the networks of section 4.2 see `resnet_cifar`.

    input     (N, 3, 224, 224)
    maxpool   (N, 64, 56, 56)    7×7 convolution in steps of 2, 3×3 maximum pooling in steps of 2
    layer1    (N, 64·E, 56, 56)  E, the expansion: 1 in a basic block, 4 in a bottleneck
    layer2    (N, 128·E, 28, 28)
    layer3    (N, 256·E, 14, 14)
    layer4    (N, 512·E, 7, 7)
    fc        (N, 1000)          of the mean of each map
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

INPUT_SHAPE = (3, 224, 224)
CLASSES = 1000

WIDTHS = (64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class Variant:
    """One column of table 1."""

    blocks: tuple[int, int, int, int]
    """In each stage."""
    bottleneck: bool


NETWORKS = {
    "resnet18": Variant((2, 2, 2, 2), bottleneck=False),
    "resnet34": Variant((3, 4, 6, 3), bottleneck=False),
    "resnet50": Variant((3, 4, 6, 3), bottleneck=True),
    "resnet101": Variant((3, 4, 23, 3), bottleneck=True),
    "resnet152": Variant((3, 8, 36, 3), bottleneck=True),
}


def build(name: str, classes: int = CLASSES) -> nn.Sequential:
    """A freshly initialised network of the table."""
    row = NETWORKS[name]
    block = Bottleneck if row.bottleneck else BasicBlock
    network = nn.Sequential()
    network.add_module("conv1", nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False))
    network.add_module("bn1", nn.BatchNorm2d(64))
    network.add_module("relu", nn.ReLU())
    network.add_module("maxpool", nn.MaxPool2d(3, stride=2, padding=1))
    depth = 64
    for stage, (width, blocks) in enumerate(zip(WIDTHS, row.blocks, strict=True), start=1):
        made = []
        for index in range(blocks):
            made.append(block(depth, width, stride=2 if stage > 1 and index == 0 else 1))
            depth = width * block.expansion
        network.add_module(f"layer{stage}", nn.Sequential(*made))
    network.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc", nn.Linear(depth, classes))
    initialise(network)
    return network


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut. (N, D, H, W) → (N, width, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, depth: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(depth, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = projection(depth, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(residual + shortcut)
        return out


class Bottleneck(nn.Module):
    """1×1 to `width`, 3×3, 1×1 to 4·width, beside a shortcut. (N, D, H, W) → (N, 4·width, H/stride, W/stride)."""

    expansion = 4

    def __init__(self, depth: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(depth, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, self.expansion * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.expansion * width)
        self.relu = nn.ReLU()
        self.downsample = projection(depth, self.expansion * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(residual + shortcut)
        return out


def projection(depth: int, width: int, stride: int) -> nn.Sequential | None:
    """The shortcut's 1×1 convolution, where one is needed."""
    if depth == width and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(depth, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))


def initialise(network: nn.Module) -> None:
    """He's weights for ReLU, by the outgoing connections. Batch norm begins as the identity, as torch makes it."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
