"""AlexNet: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Networks", 2012.

Two rows of one table. `alexnet_two_tower` is the paper's network: 96 to 384 maps, of which the two GPUs of 2012 held
half each (so convolutions 2, 4 and 5 see their own half only), and local response normalisation. 60,965,224 parameters.
`alexnet` is the one tower of A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014,
with torchvision's names of layers: 61,100,840.

    input        (N, 3, 224, 224)
    features     (N, 256, 6, 6)    five convolutions, three overlapping 3/2 maximum poolings
    classifier   (N, 1000)         three fully connected layers, dropout before the first two

The paper's 55×55 maps need 227 pixels, not its 224: a margin of 2 (of which the last column and row are never seen)
makes them of 224. The paper's initial weights and biases (section 5) belong to `alexnet_two_tower`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from training.nets.formulas import convolved, pooled

INPUT_SHAPE = (3, 224, 224)
CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution, then ReLU, then what follows."""

    maps: int
    kernel: int
    padding: int
    stride: int = 1
    groups: int = 1
    """2: each half of the maps sees half of the maps before."""
    normalised: bool = False
    """Local response normalisation follows."""
    pooled: bool = False
    """3×3 maximum pooling in steps of 2 follows."""
    bias: float = 0.0
    """Initially, in `alexnet_two_tower`; 1 puts most of the units into ReLU's rising half."""


NETWORKS: dict[str, tuple[Convolution, ...]] = {
    "alexnet": (
        Convolution(64, kernel=11, padding=2, stride=4, pooled=True),
        Convolution(192, kernel=5, padding=2, pooled=True),
        Convolution(384, kernel=3, padding=1),
        Convolution(256, kernel=3, padding=1),
        Convolution(256, kernel=3, padding=1, pooled=True),
    ),
    "alexnet_two_tower": (
        Convolution(96, kernel=11, padding=2, stride=4, normalised=True, pooled=True),
        Convolution(256, kernel=5, padding=2, groups=2, normalised=True, pooled=True, bias=1.0),
        Convolution(384, kernel=3, padding=1),
        Convolution(384, kernel=3, padding=1, groups=2, bias=1.0),
        Convolution(256, kernel=3, padding=1, groups=2, pooled=True, bias=1.0),
    ),
}


def build(name: str, classes: int = CLASSES) -> nn.Sequential:
    """A freshly initialised network of the table."""
    layers: list[nn.Module] = []
    depth, side = INPUT_SHAPE[0], INPUT_SHAPE[1]
    for row in NETWORKS[name]:
        layers += [nn.Conv2d(depth, row.maps, row.kernel, row.stride, row.padding, groups=row.groups), nn.ReLU()]
        depth, side = row.maps, convolved(side, row.kernel, row.padding, row.stride)
        if row.normalised:
            layers.append(local_response_normalisation())
        if row.pooled:
            layers.append(nn.MaxPool2d(3, 2))
            side = pooled(side, 3, 2)
    network = nn.Sequential()
    network.add_module("features", nn.Sequential(*layers))
    network.add_module("flatten", nn.Flatten())
    network.add_module(
        "classifier",
        nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(depth * side * side, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, classes),
        ),
    )
    if name == "alexnet_two_tower":
        initialise(network, NETWORKS[name])
    return network


def local_response_normalisation() -> nn.LocalResponseNorm:
    """The paper's: b = a / (k + α·Σ a²)^β over n = 5 neighbouring maps, k = 2, α = 1e-4, β = 0.75.

    Torch takes the mean of the squares where the paper takes their sum: its α is n times the paper's.
    """
    return nn.LocalResponseNorm(size=5, alpha=5 * 1e-4, beta=0.75, k=2.0)


def initialise(network: nn.Sequential, rows: tuple[Convolution, ...]) -> None:
    """The paper's: weights from a normal distribution of 0.01; biases 1 in some convolutions and in hidden layers."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    biases = [*(row.bias for row in rows), 1.0, 1.0, 0.0]
    for layer, bias in zip(layers, biases, strict=True):
        nn.init.normal_(layer.weight, std=0.01)
        assert layer.bias is not None
        nn.init.constant_(layer.bias, bias)
