"""What a network is trained to make small, as a table. A recipe names a row."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn import functional

from training.nets.lenet5 import competitive_loss
from training.recipes import Recipe

Loss = Callable[[Tensor, Tensor], Tensor]
"""(N, classes) scores, (N,) labels → the mean over the batch."""


def squared_error(scores: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """½Σ(target − p)² over the classes, with p the softmax of the scores; mean over the batch."""
    return half_squared_error(scores.softmax(dim=1), targets(labels, scores.shape[1], label_smoothing)).mean()


def half_squared_error(probabilities: Tensor, target: Tensor) -> Tensor:
    """The lecture's total error, ½Σ(target − p)². (..., classes), (..., classes) → (...)."""
    return (target - probabilities).square().sum(dim=-1) / 2


def targets(labels: Tensor, classes: int, label_smoothing: float) -> Tensor:
    """One-hot, with a part of the certainty spread over all classes evenly. (N,) → (N, classes), rows sum to 1."""
    return functional.one_hot(labels, classes) * (1 - label_smoothing) + label_smoothing / classes


LOSSES: dict[str, Callable[..., Tensor]] = {
    "competitive": competitive_loss,
    "cross entropy": functional.cross_entropy,
    "squared error": squared_error,
}


def loss(recipe: Recipe) -> Loss:
    """The recipe's loss, with its label smoothing if it has any."""
    function = LOSSES[recipe.loss]
    return partial(function, label_smoothing=recipe.label_smoothing) if recipe.label_smoothing else function
