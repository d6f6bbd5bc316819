"""What all models of one layer share: visible and hidden units, and one matrix of weights for both directions."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Layer(nn.Module, ABC):
    """V visible units, each in [0, 1], and H hidden ones. `weight` (H, V), `hidden_bias` (H,), `visible_bias` (V,).

    All randomness comes from torch's global generator on the CPU, whatever the device.
    """

    def __init__(self, visible: int, hidden: int) -> None:
        super().__init__()
        # Hinton 2010, section 8: small enough to start near the middle of the sigmoid, large enough to break symmetry.
        self.weight = nn.Parameter(0.01 * torch.randn(hidden, visible))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.visible_bias = nn.Parameter(torch.zeros(visible))

    def hidden(self, visible: Tensor) -> Tensor:
        """The mean of each hidden unit, given the visible ones. (N, V) → (N, H)."""
        return torch.sigmoid(visible @ self.weight.T + self.hidden_bias)

    def visible(self, hidden: Tensor) -> Tensor:
        """The mean of each visible unit, given the hidden ones. (N, H) → (N, V)."""
        return torch.sigmoid(hidden @ self.weight + self.visible_bias)

    def reconstruction_error(self, visible: Tensor) -> float:
        """Mean squared error of a unit, up and down once without noise. A sign of progress, not what is minimised."""
        with torch.no_grad():
            return (self.visible(self.hidden(visible)) - visible).square().mean().item()

    @abstractmethod
    def loss(self, visible: Tensor) -> Tensor:
        """What a step of learning goes down on: (N, V) → (), mean over the batch."""


def sample(probabilities: Tensor) -> Tensor:
    """1 with the given probability, otherwise 0; the same shape."""
    return (torch.rand(probabilities.shape).to(probabilities.device) < probabilities).to(probabilities.dtype)
