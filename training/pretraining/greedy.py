"""Greedy, one layer after the other: G. Hinton, S. Osindero, Y.-W. Teh, "A Fast Learning Algorithm for Deep Belief
Nets", 2006; for autoencoders Y. Bengio, P. Lamblin, D. Popovici, H. Larochelle, "Greedy Layer-Wise Training of Deep
Networks", 2006.

Each layer learns, without labels, to model what the layers below it make of the input; then it is frozen. A stack of
RBMs made this way is a deep belief net. Its upward weights become the weights of the feed-forward network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.nets.deep_sigmoid import DeepSigmoid
from training.pretraining.layer import Layer

Draw = Callable[[], Tensor]
"""One epoch's inputs, all of them: the same at each call, or distorted anew."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Plain gradient descent with momentum, for each layer the same."""

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    """Of weights, not of biases."""


def pretrain(
    network: DeepSigmoid,
    draw: Draw,
    make: Callable[[int, int], Layer],
    schedule: Schedule,
    say: Callable[[str], None] = lambda _: None,
) -> list[Layer]:
    """Learn a stack of `make(visible, hidden)`, copy it into the network's hidden layers, and return it.

    `draw` gives what the network reads. The output layer is left as it is: it has nothing to learn without labels.
    """
    stack: list[Layer] = []
    for place, linear in enumerate(network.hidden, start=1):
        assert isinstance(linear, nn.Linear)
        layer = make(linear.in_features, linear.out_features).to(linear.weight.device)
        errors = fit(layer, lambda: upward(stack, network.units(draw())), schedule)
        say(f"layer {place} of {len(network.hidden)}: reconstruction error {errors[0]:.4f} → {errors[-1]:.4f}")
        stack.append(layer)
        with torch.no_grad():
            linear.weight.copy_(layer.weight)
            linear.bias.copy_(layer.hidden_bias)
    return stack


@torch.no_grad()
def upward(stack: Sequence[Layer], visible: Tensor) -> Tensor:
    """The mean-field pass: each layer's means are the next one's input. (N, V) → (N, width of the last layer)."""
    for layer in stack:
        visible = layer.hidden(visible)
    return visible


def fit(layer: Layer, draw: Draw, schedule: Schedule) -> list[float]:
    """Teach one layer; return the reconstruction error before learning and after each epoch. `draw` gives (N, V)."""
    groups: list[dict[str, Any]] = [
        {"params": [layer.weight], "weight_decay": schedule.weight_decay},
        {"params": [layer.hidden_bias, layer.visible_bias]},
    ]
    optimizer = torch.optim.SGD(groups, lr=schedule.learning_rate, momentum=schedule.momentum)
    inputs = draw()
    errors = [layer.reconstruction_error(inputs)]
    for _ in range(schedule.epochs):
        inputs = draw()
        order = torch.randperm(len(inputs))
        for start in range(0, len(order), schedule.batch_size):
            loss = layer.loss(inputs[order[start : start + schedule.batch_size]])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        errors.append(layer.reconstruction_error(inputs))
    return errors
