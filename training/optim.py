"""Optimisers and learning rate schedules, as tables. A recipe names a row of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.optim import Optimizer

from training.recipes import Recipe

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "SGD": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "Nesterov": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "Adadelta": partial(torch.optim.Adadelta, rho=0.95, eps=1e-6),  # as in its paper (Zeiler 2012), at a rate of 1
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
}

STEP_FACTOR = 0.1
"""What a milestone leaves of the learning rate, in AlexNet, VGG and ResNet alike."""


def optimizer(recipe: Recipe, network: nn.Module) -> Optimizer:
    """The recipe's optimiser, of all parameters of the network."""
    build = OPTIMIZERS[recipe.optimizer]
    return build(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Half a cosine up over the warm-up, then as the schedule says. A function of the step: nothing to store."""
    warm_up = max(1, round(recipe.warm_up * steps))
    if step < warm_up:
        return recipe.learning_rate * (1 - math.cos(math.pi * (step + 1) / warm_up)) / 2
    return recipe.learning_rate * SCHEDULES[recipe.schedule](recipe, step, steps, warm_up)


def cosine(_: Recipe, step: int, steps: int, warm_up: int) -> float:
    """Half a cosine down over what the warm-up left."""
    return (1 + math.cos(math.pi * (step + 1 - warm_up) / (steps + 1 - warm_up))) / 2


def stepwise(recipe: Recipe, step: int, steps: int, _: int) -> float:
    """A tenth after each milestone."""
    return STEP_FACTOR ** sum(step >= round(milestone * steps) for milestone in recipe.milestones)


def constant(_recipe: Recipe, _step: int, _steps: int, _warm_up: int) -> float:
    """The whole rate to the end."""
    return 1.0


SCHEDULES: dict[str, Callable[[Recipe, int, int, int], float]] = {
    "cosine": cosine,
    "step": stepwise,
    "constant": constant,
}
"""(recipe, step, steps, steps of warm-up) → part of the recipe's learning rate; asked after the warm-up only."""
