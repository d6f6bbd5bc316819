"""Denoising autoencoder: P. Vincent, H. Larochelle, I. Lajoie, Y. Bengio, P.-A. Manzagol, "Stacked Denoising
Autoencoders: Learning Useful Representations in a Deep Network with a Local Denoising Criterion", 2010.

Encoder and decoder share their weights (the paper's tied ones). Stacked, each layer learns to repair what the layer
below it gives; the corruption is for learning only.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training.pretraining.layer import Layer, sample


class DenoisingAutoencoder(Layer):
    """Rebuilds the whole input from one in which a random part of the units was set to 0 (masking noise)."""

    def __init__(self, visible: int, hidden: int, corruption: float) -> None:
        """`corruption` is the probability that a unit is set to 0."""
        super().__init__(visible, hidden)
        self.corruption = corruption

    def corrupt(self, visible: Tensor) -> Tensor:
        """The same shape; each unit stays with probability 1 - corruption."""
        return visible * sample(torch.full_like(visible, 1 - self.corruption))

    def loss(self, visible: Tensor) -> Tensor:
        """Cross entropy between the clean input and what is made of the corrupted one, summed over the units."""
        scores = self.hidden(self.corrupt(visible)) @ self.weight + self.visible_bias
        return functional.binary_cross_entropy_with_logits(scores, visible, reduction="sum") / len(visible)
