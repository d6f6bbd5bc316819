"""Run folders: `config.json`, `checkpoint.pt`, and at the end `metrics.json` and two plots.

    runs/<recipe>-seed<seed>/
      config.json            the recipe's row, seed, epochs, device, library versions
      checkpoint.pt          after each epoch: weights, optimiser, generator, history; replaced as a whole
      metrics.json           each epoch, and the final figures
      learning_curve.png
      confusion_matrix.png   on the held-out digits

The checkpoint is the truth; the other files are for people.
"""

from __future__ import annotations

import dataclasses
import io
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.files import TrainingError, write_atomically
from training.recipes import RECIPES, Recipe, from_dict

RUNS = Path("runs")


@dataclass(frozen=True, slots=True)
class Plan:
    """What decides the final weights, to the bit, on one machine. A run resumes with the plan that it started with."""

    recipe: Recipe
    seed: int
    epochs: int
    device: str
    """"cpu" or "cuda"."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of a run's history."""

    epoch: int
    """The first is 1."""
    loss: float
    """Mean over the epoch's training images, as distorted, while the weights moved."""
    held_out_accuracy: float
    """After the epoch, 0 to 1."""
    learning_rate: float
    """Of the epoch's last step."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run after a whole number of epochs."""

    plan: Plan
    history: list[Epoch]
    network: dict[str, Any]
    optimizer: dict[str, Any]
    generator: torch.Tensor
    """State of torch's global generator on the CPU, which draws order and distortions."""


def default_folder(recipe: str, seed: int) -> Path:
    """Where a run goes unless told otherwise."""
    return RUNS / f"{recipe}-seed{seed}"


def find_folder(run_or_recipe: str) -> Path:
    """The run folder of that path, or the default one of the recipe of that name, seed 0."""
    if (Path(run_or_recipe) / "checkpoint.pt").exists():
        return Path(run_or_recipe)
    if run_or_recipe in RECIPES:
        folder = default_folder(run_or_recipe, 0)
        if (folder / "checkpoint.pt").exists():
            return folder
        raise TrainingError(f"No checkpoint in {folder}. Train first: python -m training train {run_or_recipe}")
    raise TrainingError(
        f"{run_or_recipe} is neither a run folder with a checkpoint.pt nor a recipe. Recipes: {', '.join(RECIPES)}."
    )


def start(folder: Path, plan: Plan) -> None:
    """Make the folder of a new run; one with a checkpoint in it is refused, because its work would be lost."""
    if (folder / "checkpoint.pt").exists():
        raise TrainingError(f"{folder} already holds a run. Go on with --resume, or choose another --run-dir.")
    write_atomically(folder / "config.json", to_json({**dataclasses.asdict(plan), "versions": versions()}))


def resume(folder: Path, plan: Plan) -> Checkpoint:
    """The checkpoint to go on from, if it was made by the same plan."""
    if not (folder / "checkpoint.pt").exists():
        raise TrainingError(f"Nothing to resume: no checkpoint.pt in {folder}. Start the run without --resume.")
    checkpoint = load(folder)
    made, asked = _flat(checkpoint.plan), _flat(plan)
    changed = [f"{field} {made[field]}, not {asked[field]}" for field in asked if made[field] != asked[field]]
    if changed:
        raise TrainingError(
            f"{folder} was started with {'; '.join(changed)}. Resume with what it was started with, "
            "or start another run with --run-dir."
        )
    return checkpoint


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the run's checkpoint; a kill at any moment leaves the old one or the new one, whole."""
    buffer = io.BytesIO()
    plain = {field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}
    plain["plan"] = dataclasses.asdict(checkpoint.plan)
    plain["history"] = [dataclasses.asdict(epoch) for epoch in checkpoint.history]
    torch.save(plain, buffer)
    write_atomically(folder / "checkpoint.pt", buffer.getvalue())


def load(folder: Path) -> Checkpoint:
    """The run's checkpoint, with its tensors on the CPU."""
    path = folder / "checkpoint.pt"
    try:
        plain = torch.load(path, map_location="cpu", weights_only=True)
        plan = Plan(**{**plain["plan"], "recipe": from_dict(plain["plan"]["recipe"])})
        history = [Epoch(**epoch) for epoch in plain["history"]]
        return Checkpoint(**{**plain, "plan": plan, "history": history})
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read as a checkpoint of this version: {error}. Train anew.") from error


def versions() -> dict[str, str]:
    """Of what takes part in the result."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}


def to_json(content: dict[str, Any]) -> bytes:
    """For people to read and for `diff`."""
    return (json.dumps(content, indent=2) + "\n").encode()


def _flat(plan: Plan) -> dict[str, Any]:
    fields = dataclasses.asdict(plan)
    recipe = fields.pop("recipe")
    del recipe["epochs"]  # the plan's count
    return {"recipe": recipe.pop("name"), **fields, **recipe}
