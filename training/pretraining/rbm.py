"""Restricted Boltzmann machine, learnt by contrastive divergence: G. Hinton, "Training Products of Experts by
Minimizing Contrastive Divergence", 2002.

    E(v, h) = -c·v - b·h - h·Wv        p(v, h) ∝ e^-E(v, h), v and h of zeros and ones
    F(v)    = -c·v - Σ log(1 + e^(b + Wv))        e^-F(v) = Σ e^-E(v, h) over all h
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training.pretraining.layer import Layer, sample


class RBM(Layer):
    """No connection inside a layer, so that all hidden units can be drawn at once given the visible ones, and back."""

    def __init__(self, visible: int, hidden: int, steps: int) -> None:
        """`steps` is the k of CD-k."""
        super().__init__(visible, hidden)
        self.steps = steps

    def energy(self, visible: Tensor, hidden: Tensor) -> Tensor:
        """Of joint states. (N, V), (N, H) → (N,)."""
        interaction = (hidden * (visible @ self.weight.T)).sum(dim=1)
        return -(visible @ self.visible_bias) - hidden @ self.hidden_bias - interaction

    def free_energy(self, visible: Tensor) -> Tensor:
        """-log of the unnormalised probability of the visible units alone. (N, V) → (N,)."""
        return -(visible @ self.visible_bias) - functional.softplus(visible @ self.weight.T + self.hidden_bias).sum(1)

    @torch.no_grad()
    def chain(self, visible: Tensor) -> Tensor:
        """The visible units after `steps` rounds of Gibbs sampling. (N, V) → (N, V) of zeros and ones."""
        for _ in range(self.steps):
            visible = sample(self.visible(sample(self.hidden(visible))))
        return visible

    def loss(self, visible: Tensor) -> Tensor:
        """CD-k as a difference of free energies: its gradient is <h·v> after the chain minus <h·v> of the data.

        The value itself says little: the chain's end is taken as given, and moves with the weights.
        """
        return self.free_energy(visible).mean() - self.free_energy(self.chain(visible)).mean()
