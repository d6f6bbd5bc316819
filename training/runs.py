"""Run folders: `config.json`, `checkpoint.pt`, and at the end `metrics.json` and pictures.

    runs/<recipe>-seed<seed>/
      config.json            the recipe's row, seed, epochs, device, library versions
      checkpoint.pt          after each epoch: weights, optimiser, generator, history; replaced as a whole
      metrics.json           each epoch, and the final figures
      learning_curve.png
      confusion_matrix.png   on the held-out data
      filters.png            the first layer's weights
      feature_maps.png       what the layers make of one held-out image
      exported.json          which version `build` made of which checkpoint
      tensorboard/           if asked for

The checkpoint is the truth; the other files are for people.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pickle
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.files import TrainingError, first_line, write_atomically
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
    patience: int | None = None
    """Epochs without a better validation loss after which to stop; None: never."""
    precision: str = "float32"
    """Of the network's arithmetic: "float32", or with weights in float32 "bfloat16" or "float16"."""
    compile: bool = False
    """Whether torch.compile makes kernels for the network."""
    processes: int = 1
    """That share each batch."""
    data_dir: str | None = None
    """Where the data is, for a data set that is not built in. Only a place: a run may go on with a copy elsewhere."""

    @property
    def data_folder(self) -> Path | None:
        """`data_dir` as a path."""
        return None if self.data_dir is None else Path(self.data_dir)


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
    validation_loss: float | None = None
    """Mean over the part of the training data that is set aside, after the epoch; None if none is."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run after a whole number of epochs."""

    plan: Plan
    history: list[Epoch]
    network: dict[str, Any]
    optimizer: dict[str, Any]
    generator: torch.Tensor
    """State of torch's global generator on the CPU, which draws order and distortions."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """Of float16's gradients; empty for the other precisions."""
    best: dict[str, Any] | None = None
    """The network after the epoch with the least validation loss; None if nothing is set aside."""
    classes: tuple[str, ...] = ()
    """Their names, in the order of the network's outputs; empty: from before they were noted."""


def best_epoch(history: list[Epoch]) -> int:
    """The number of the epoch with the least validation loss, the first of equals. All epochs must have one."""
    losses = [math.inf if epoch.validation_loss is None else epoch.validation_loss for epoch in history]
    return 1 + losses.index(min(losses))


def is_over(plan: Plan, history: list[Epoch]) -> bool:
    """Whether all epochs are done, or the plan's patience is at its end."""
    if len(history) >= plan.epochs:
        return True
    return plan.patience is not None and len(history) > 0 and len(history) - best_epoch(history) >= plan.patience


def command(plan: Plan) -> str:
    """The command line that trains by this plan; the data's folder is the reader's own."""
    start = "python" if plan.processes == 1 else f"torchrun --nproc-per-node {plan.processes}"
    words = [f"{start} -m training train {plan.recipe.name} --seed {plan.seed} --epochs {plan.epochs}"]
    if plan.patience != plan.recipe.patience:
        words.append(f"--early-stop {plan.patience or 0}")
    if plan.precision != "float32":
        words.append(f"--precision {plan.precision}")
    if plan.compile:
        words.append("--compile")
    if plan.data_dir is not None:
        words.append("--data-dir DIR")
    return " ".join(words)


def default_folder(recipe: str, seed: int) -> Path:
    """Where a run goes unless told otherwise."""
    return RUNS / f"{recipe}-seed{seed}"


def find_folder(run_or_recipe: str) -> Path:
    """The run folder of that path, or the default one of the recipe of that name and its seed."""
    if (Path(run_or_recipe) / "checkpoint.pt").exists():
        return Path(run_or_recipe)
    if run_or_recipe in RECIPES:
        folder = default_folder(run_or_recipe, RECIPES[run_or_recipe].seed)
        if (folder / "checkpoint.pt").exists():
            return folder
        raise TrainingError(f"No checkpoint in {folder}. Train first: python -m training train {run_or_recipe}")
    raise TrainingError(
        f"{run_or_recipe} is neither a run folder with a checkpoint.pt nor a recipe. Recipes: {', '.join(RECIPES)}. "
        "A network's name is for export with --weights or --random-weights."
    )


def start(folder: Path, plan: Plan, *, write: bool = True) -> None:
    """Make the folder of a new run; one with a checkpoint in it is refused, because its work would be lost.

    Of several processes all look, before any can have made a checkpoint, and one writes.
    """
    if (folder / "checkpoint.pt").exists():
        raise TrainingError(f"{folder} already holds a run. Go on with --resume, or choose another --run-dir.")
    if write:
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
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{path} cannot be read as a checkpoint of this version: {first_line(error)}. Train anew."
        ) from error


def refuse_other_classes(folder: Path, checkpoint: Checkpoint, names: tuple[str, ...]) -> None:
    """Raise unless the data has the classes that the run learnt: a folder may have changed since."""
    learnt = checkpoint.classes
    if learnt and learnt != names:
        raise TrainingError(
            f"{folder} learnt the classes {', '.join(learnt)}, and the data has {', '.join(names)}. "
            "Name the data that it learnt from with --data-dir, or train anew."
        )


def versions() -> dict[str, str]:
    """Of what takes part in the result."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}


def to_json(content: dict[str, Any]) -> bytes:
    """For people to read and for `diff`."""
    return (json.dumps(content, indent=2) + "\n").encode()


def _flat(plan: Plan) -> dict[str, Any]:
    fields = dataclasses.asdict(plan)
    recipe = fields.pop("recipe")
    del fields["data_dir"]  # a place decides nothing
    for decided_by_plan in ("epochs", "seed", "patience"):
        del recipe[decided_by_plan]
    return {"recipe": recipe.pop("name"), **fields, **recipe}
