"""Sparse autoencoder: A. Ng, "Sparse Autoencoder", lecture notes of CS294A, Stanford, 2011.

Most hidden units shall be silent for most inputs: each unit's mean over the batch, ρ̂, is drawn to a small ρ by

    KL(ρ ‖ ρ̂) = ρ log(ρ/ρ̂) + (1-ρ) log((1-ρ)/(1-ρ̂))        with the derivative  -ρ/ρ̂ + (1-ρ)/(1-ρ̂)

The notes learn two matrices; here, as in the other models of this folder, the decoder uses the encoder's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.pretraining.layer import Layer


class SparseAutoencoder(Layer):
    """Rebuilds its input from few active hidden units."""

    def __init__(self, visible: int, hidden: int, activity: float, penalty: float) -> None:
        """`activity` is ρ, the wanted mean of a hidden unit; `penalty` is β, what a unit's divergence costs."""
        super().__init__(visible, hidden)
        self.activity = activity
        self.penalty = penalty

    def loss(self, visible: Tensor) -> Tensor:
        """½ squared error summed over the units, plus β times the sum of the hidden units' divergences."""
        hidden = self.hidden(visible)
        error = (self.visible(hidden) - visible).square().sum(dim=1).mean() / 2
        return error + self.penalty * divergence(self.activity, hidden.mean(dim=0)).sum()


def divergence(wanted: float, mean: Tensor) -> Tensor:
    """KL(wanted ‖ mean) of Bernoulli variables, elementwise; `wanted` and `mean` are inside (0, 1)."""
    return wanted * torch.log(wanted / mean) + (1 - wanted) * torch.log((1 - wanted) / (1 - mean))
