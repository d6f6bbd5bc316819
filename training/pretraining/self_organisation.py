"""Without a teacher, winner takes all: K. Fukushima, "Neocognitron…", 1980. The learning itself is the network's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from training.nets.neocognitron import Neocognitron, SCells
from training.pretraining.greedy import Draw


@dataclass(frozen=True, slots=True)
class SelfOrganisation:
    """How long."""

    rounds: int
    """Times that each picture is shown to each module."""


def organise(
    network: Neocognitron, draw: Draw, row: SelfOrganisation, say: Callable[[str], None] = lambda _: None
) -> None:
    """Show one epoch's pictures in random order. Weights with gradients are left as they are: they need labels.

    The cells learn picture by picture on the CPU, whatever the device: steps this small gain nothing elsewhere.
    """
    images, device = draw().cpu(), next(network.parameters()).device
    began = time.perf_counter()
    network.cpu().learn(images[torch.randperm(len(images))], row.rounds)
    network.to(device)
    seconds = time.perf_counter() - began
    for name, layer in network.layers.named_children():
        if isinstance(layer, SCells):
            taught, planes = int((layer.b > 0).sum()), len(layer.b)
            say(f"layer {name}: {taught} of {planes} planes found a feature in {len(images)} pictures")
    say(f"learned without labels in {seconds:.1f} s")
