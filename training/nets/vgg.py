"""VGG: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014.

Columns A, B, D and E of the paper's table 1, each also with batch normalisation (S. Ioffe, C. Szegedy, 2015) after
every convolution, which the paper did not have yet. Names of layers are torchvision's.

    input        (N, 3, 224, 224)
    features     (N, 512, 7, 7)   8 to 16 convolutions of 3×3, which keep the size; five 2×2 maximum poolings
    classifier   (N, 1000)        three fully connected layers, dropout after the first two
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

INPUT_SHAPE = (3, 224, 224)
CLASSES = 1000

WIDTHS = (64, 128, 256, 512, 512)
"""Maps in each of the five stages, which pooling separates."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One column of table 1."""

    convolutions: tuple[int, int, int, int, int]
    """In each stage."""
    batch_norm: bool = False


NETWORKS = {
    "vgg11": Variant((1, 1, 2, 2, 2)),
    "vgg13": Variant((2, 2, 2, 2, 2)),
    "vgg16": Variant((2, 2, 3, 3, 3)),
    "vgg19": Variant((2, 2, 4, 4, 4)),
    "vgg11_bn": Variant((1, 1, 2, 2, 2), batch_norm=True),
    "vgg13_bn": Variant((2, 2, 2, 2, 2), batch_norm=True),
    "vgg16_bn": Variant((2, 2, 3, 3, 3), batch_norm=True),
    "vgg19_bn": Variant((2, 2, 4, 4, 4), batch_norm=True),
}


def build(name: str, classes: int = CLASSES) -> nn.Sequential:
    """A freshly initialised network of the table."""
    row = NETWORKS[name]
    layers: list[nn.Module] = []
    depth, side = INPUT_SHAPE[0], INPUT_SHAPE[1]
    for width, convolutions in zip(WIDTHS, row.convolutions, strict=True):
        for _ in range(convolutions):
            layers.append(nn.Conv2d(depth, width, 3, padding=1))
            if row.batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU())
            depth = width
        layers.append(nn.MaxPool2d(2))
        side //= 2
    network = nn.Sequential()
    network.add_module("features", nn.Sequential(*layers))
    network.add_module("flatten", nn.Flatten())
    network.add_module(
        "classifier",
        nn.Sequential(
            nn.Linear(depth * side * side, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, classes),
        ),
    )
    initialise(network)
    return network


def initialise(network: nn.Module) -> None:
    """He's weights for ReLU, by the outgoing connections, so that depth neither swells nor starves the signal.

    The paper trained shallow columns first and grew deep ones from them; this makes that unnecessary (He et al. 2015).
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
