"""The loop with each of its options, on a data set of 64 pictures: what each changes, and that a broken run goes on."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny_training
from tests.tiny_training import RECIPE, Broken, breaking_at, leaves, states
from training import runs
from training.data import DATA_SETS
from training.files import TrainingError
from training.losses import LOSSES
from training.runs import Plan
from training.train import train

PLAN = Plan(RECIPE, seed=0, epochs=RECIPE.epochs, device="cpu")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(DATA_SETS, "tiny", tiny_training.DATA_SET)
    with tiny_training.torch_as_before():
        yield


def trained(folder: Path, plan: Plan = PLAN, **how: Any) -> runs.Checkpoint:
    train(plan, folder, resume=False, **how)
    return runs.load(folder)


def difference(one: runs.Checkpoint, other: runs.Checkpoint) -> float:
    """The greatest, of any weight."""
    return max(float((one.network[name] - other.network[name]).abs().max()) for name in one.network)


def variant(plan: Plan = PLAN, **fields: Any) -> Plan:
    """The plan with other fields of its recipe."""
    return dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": "Nesterov", "learning_rate": 0.02, "schedule": "step", "milestones": (0.5,)},
        {"optimizer": "Adadelta", "learning_rate": 1.0, "schedule": "constant"},
        {"loss": "squared error"},
        {"label_smoothing": 0.1, "clip_norm": 1.0},
    ],
    ids=" ".join,
)
def test_a_recipe_of_other_rows_learns(fields: dict[str, Any], tmp_path: Path) -> None:
    history = trained(tmp_path, variant(**fields)).history
    assert history[-1].loss < history[0].loss
    assert (tmp_path / "metrics.json").exists()


def test_a_clipped_gradient_makes_steps_that_are_no_longer_than_allowed(tmp_path: Path) -> None:
    recipe = {"optimizer": "SGD", "learning_rate": 1.0, "warm_up": 0.0, "schedule": "constant", "weight_decay": 0.0}
    short = dataclasses.replace(variant(**recipe, clip_norm=1e-6), epochs=1)
    shorter = dataclasses.replace(variant(**recipe, clip_norm=1e-9), epochs=1)
    assert difference(trained(tmp_path / "one", short), trained(tmp_path / "two", shorter)) <= 4e-6


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_lower_precision_trains_nearly_the_same_weights_and_keeps_them_in_float32(
    precision: str, tmp_path: Path
) -> None:
    full = trained(tmp_path / "full")
    lower = trained(tmp_path / "lower", dataclasses.replace(PLAN, precision=precision))
    assert 0 < difference(full, lower) < 0.05
    assert all(weight.dtype == torch.float32 for weight in lower.network.values())
    assert ("scale" in lower.scaler) == (precision == "float16")


# An epoch asks for five losses: four batches of at most 16 of the 57 that are not set aside, and those set aside.
@pytest.mark.parametrize("options", [{"patience": 1}, {"precision": "float16", "patience": 2}], ids=str)
def test_a_run_with_state_beside_its_weights_resumes_to_the_same_bits(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = dataclasses.replace(variant(loss="breaking", learning_rate=0.05), epochs=3, **options)
    monkeypatch.setitem(LOSSES, "breaking", breaking_at(0))
    trained(tmp_path / "undisturbed", plan)
    monkeypatch.setitem(LOSSES, "breaking", breaking_at(8))
    with pytest.raises(Broken):
        train(plan, tmp_path / "broken", resume=False)
    assert len(runs.load(tmp_path / "broken").history) == 1
    train(plan, tmp_path / "broken", resume=True)
    assert states(tmp_path / "broken") == states(tmp_path / "undisturbed")


def test_early_stopping_gives_the_weights_of_the_best_epoch(tmp_path: Path) -> None:
    hopeless = variant(optimizer="SGD", learning_rate=2.0, warm_up=0.0, schedule="constant")
    plan = dataclasses.replace(hopeless, epochs=8, patience=2)
    stopped = trained(tmp_path, plan)
    best = runs.best_epoch(stopped.history)
    assert len(stopped.history) == best + 2 < 8
    assert stopped.best is not None and leaves(stopped.network) == leaves(stopped.best)
    final = json.loads((tmp_path / "metrics.json").read_text())["final"]
    assert final["epoch"] == best
    assert final["held_out_accuracy"] == stopped.history[best - 1].held_out_accuracy

    train(plan, tmp_path, resume=True)
    assert leaves(runs.load(tmp_path).network) == leaves(stopped.network)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count(1)
    monkeypatch.setitem(
        LOSSES, "bursting", lambda scores, labels: scores.mean() * (float("nan") if next(calls) > 6 else 1.0)
    )
    with pytest.raises(TrainingError, match="the training loss is nan in epoch 2"):
        train(variant(loss="bursting"), tmp_path, resume=False)
    assert len(runs.load(tmp_path).history) == 1


def test_tensorboard_reads_each_epoch_once_also_after_a_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setitem(LOSSES, "breaking", breaking_at(8))
    plan = variant(loss="breaking")
    with pytest.raises(Broken):
        train(plan, tmp_path, resume=False, tensorboard=True)
    train(plan, tmp_path, resume=True, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    points = events.Scalars("loss/training")
    assert [point.step for point in points] == [1, 2, 3]
    assert [point.value for point in points] == pytest.approx([epoch.loss for epoch in runs.load(tmp_path).history])
    assert set(events.Tags()["scalars"]) == {"loss/training", "held-out accuracy", "learning rate", "images per second"}


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler imports what torch deprecates
def test_a_compiled_network_trains_the_same_weights(tmp_path: Path) -> None:
    from torch._dynamo.utils import counters  # slow to import, and the other tests do not need it
    from torch._inductor import config

    plan = dataclasses.replace(PLAN, epochs=1)
    # Neither processes of compilers, each of which imports torch, nor a look at which vectors the processor has.
    with config.patch({"compile_threads": 1, "cpp.vec_isa_ok": False}):
        compiled = trained(tmp_path / "compiled", dataclasses.replace(plan, compile=True))
    assert counters["stats"]["unique_graphs"] > 0
    assert difference(compiled, trained(tmp_path / "plain", plan)) < 1e-5
    assert set(compiled.network) == set(runs.load(tmp_path / "plain").network)
