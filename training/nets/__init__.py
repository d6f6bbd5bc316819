"""The networks, one paper per file: (N, C, H, W) → scores (N, classes). Must know neither data nor training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from training.files import TrainingError
from training.nets import (
    alexnet,
    convnetjs,
    deep_sigmoid,
    lenet5,
    letters26,
    lstm,
    mlp,
    neocognitron,
    resnet,
    resnet_cifar,
    vgg,
)


class Paper(Protocol):
    """What each file of this room offers."""

    @property
    def NETWORKS(self) -> Mapping[str, object]:
        """A row for each network."""

    @property
    def INPUT_SHAPE(self) -> tuple[int, int, int]:
        """(C, H, W) of one picture, at the paper's size."""

    @property
    def CLASSES(self) -> int:
        """The paper's."""

    def build(self, name: str, classes: int = ...) -> nn.Module:
        """A freshly initialised network of the table."""


PAPERS: tuple[Paper, ...] = (
    neocognitron,
    mlp,
    deep_sigmoid,
    lstm,
    lenet5,
    letters26,
    alexnet,
    convnetjs,
    vgg,
    resnet,
    resnet_cifar,
)


@dataclass(frozen=True, slots=True)
class Network:
    """Where a network comes from, and what it reads and answers unless told otherwise."""

    paper: Paper
    input_shape: tuple[int, int, int]
    classes: int


NETWORKS = {name: Network(paper, paper.INPUT_SHAPE, paper.CLASSES) for paper in PAPERS for name in paper.NETWORKS}


def find(name: str) -> Network:
    """The network of that name."""
    if name not in NETWORKS:
        raise TrainingError(f"There is no network named {name!r}. There are: {', '.join(NETWORKS)}.")
    return NETWORKS[name]


def build(name: str, classes: int | None = None) -> nn.Module:
    """A freshly initialised network, drawn from torch's global generator. `classes` is the paper's unless given."""
    network = find(name)
    return network.paper.build(name, network.classes if classes is None else classes)


def reads_any_size(network: nn.Module) -> bool:
    """Whether the network's linear layers see the mean of each map, so that pictures may have any height and width."""
    return any(isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size == 1 for layer in network.modules())
