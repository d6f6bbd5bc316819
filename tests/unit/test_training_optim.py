"""Optimisers, schedules, losses, and recipes that contradict themselves."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from training import losses, optim
from training.files import TrainingError
from training.losses import LOSSES, half_squared_error, squared_error
from training.optim import OPTIMIZERS, learning_rate
from training.recipes import RECIPES, Recipe

COSINE = dataclasses.replace(RECIPES["lenet5"], learning_rate=1.0, warm_up=0.2, weight_decay=0.0)


def rates(recipe: Recipe, steps: int = 100) -> list[float]:
    return [learning_rate(recipe, step, steps) for step in range(steps)]


def test_the_learning_rate_rises_to_its_height_and_falls_to_nearly_nothing() -> None:
    by_step = rates(COSINE)
    assert by_step[19] == 1.0 == max(by_step)
    assert by_step[:20] == sorted(by_step[:20]) and by_step[19:] == sorted(by_step[19:], reverse=True)
    assert 0 < by_step[0] < 0.01 and 0 < by_step[-1] < 0.01
    assert learning_rate(COSINE, 0, 1) == 1.0


def test_steps_go_down_by_a_tenth_at_each_milestone() -> None:
    by_step = rates(dataclasses.replace(COSINE, schedule="step", milestones=(0.5, 0.75)))
    assert by_step[:20] == rates(COSINE)[:20]
    assert by_step[20:] == pytest.approx([1.0] * 30 + [0.1] * 25 + [0.01] * 25)


def test_a_constant_rate_stays_after_its_warm_up() -> None:
    by_step = rates(dataclasses.replace(COSINE, schedule="constant"))
    assert by_step[19:] == [1.0] * 81 and by_step[:20] == sorted(by_step[:20])
    assert rates(dataclasses.replace(COSINE, schedule="constant", warm_up=0.0)) == [1.0] * 100


def test_the_cifar_resnet_takes_the_papers_64000_steps() -> None:
    recipe = RECIPES["resnet20_cifar10"]
    steps = recipe.epochs * math.ceil(50_000 / recipe.batch_size)
    assert steps == pytest.approx(64_000, rel=0.005)
    by_step = [learning_rate(recipe, step, steps) for step in (0, 31_900, 32_200, 47_900, 48_300, steps - 1)]
    assert by_step == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimiser_goes_downhill(name: str) -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    inputs, labels = torch.randn(32, 3), torch.randint(2, (32,))
    rate = 1.0 if name == "Adadelta" else 0.05
    optimizer = optim.optimizer(dataclasses.replace(COSINE, optimizer=name, learning_rate=rate), network)
    seen = []
    for _ in range(60):
        loss = functional.cross_entropy(network(inputs), labels)
        seen.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert seen[-1] < seen[0]


def test_momentum_and_nesterov_are_the_formulas() -> None:
    """v ← 0.9v + g; w ← w − rate·v, and for Nesterov w ← w − rate·(g + 0.9v), on f(w) = w²/2, where g = w."""
    for name, nesterov in (("momentum", False), ("Nesterov", True)):
        network = nn.Linear(1, 1, bias=False)
        nn.init.constant_(network.weight, 1.0)
        optimizer = optim.optimizer(dataclasses.replace(COSINE, optimizer=name, learning_rate=0.1), network)
        w, v = 1.0, 0.0
        for _ in range(5):
            optimizer.zero_grad()
            (network.weight.square().sum() / 2).backward()
            optimizer.step()
            v = 0.9 * v + w
            w -= 0.1 * (w + 0.9 * v if nesterov else v)
        assert network.weight.item() == pytest.approx(w, rel=1e-6)


def test_the_error_of_the_boat_in_the_lecture() -> None:
    error = half_squared_error(torch.tensor([0.2, 0.4, 0.1, 0.3]), torch.tensor([0.0, 0.0, 1.0, 0.0]))
    assert error.item() == pytest.approx(0.55)


def test_the_squared_error_of_scores_is_that_of_their_softmax() -> None:
    probabilities = torch.tensor([[0.2, 0.4, 0.1, 0.3], [0.7, 0.1, 0.1, 0.1]])
    mean = squared_error(probabilities.log(), torch.tensor([2, 0]))
    assert mean.item() == pytest.approx((0.55 + (0.09 + 3 * 0.01) / 2) / 2)


def test_smoothed_targets_sum_to_one_and_are_torchs() -> None:
    smoothed = losses.targets(torch.tensor([1, 3]), 4, 0.2)
    assert torch.allclose(smoothed, torch.tensor([[0.05, 0.85, 0.05, 0.05], [0.05, 0.05, 0.05, 0.85]]))
    scores, labels = torch.randn(2, 4), torch.tensor([1, 3])
    recipe = dataclasses.replace(RECIPES["lenet5_modern"], label_smoothing=0.2)
    by_hand = -(smoothed * scores.log_softmax(dim=1)).sum(dim=1).mean()
    assert losses.loss(recipe)(scores, labels).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_a_recipe_without_smoothing_has_the_plain_loss() -> None:
    assert losses.loss(RECIPES["lenet5"]) is LOSSES["competitive"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schedule": "step"}, "milestones belong to the schedule"),
        ({"milestones": (0.5,)}, "milestones belong to the schedule"),
        ({"schedule": "step", "milestones": (0.7, 0.5)}, "must rise between 0 and 1"),
        ({"schedule": "step", "milestones": (0.5, 1.0)}, "must rise between 0 and 1"),
        ({"label_smoothing": 1.0}, r"label_smoothing 1\.0 must be in"),
        ({"label_smoothing": 0.1}, "the competitive loss has no targets"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"patience": 0}, "patience"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        dataclasses.replace(RECIPES["lenet5"], **change)
