"""The networks, one paper per file: (N, C, H, W) → scores (N, classes). Must know neither data nor training."""

from __future__ import annotations

from torch import nn

from training.nets import deep_sigmoid, lenet5


def build(name: str) -> nn.Module:
    """A freshly initialised network, drawn from torch's global generator."""
    return deep_sigmoid.build(name) if name in deep_sigmoid.NETWORKS else lenet5.build(name)
