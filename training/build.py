"""From a recipe to a version that a server can load, and a second time without doing anything twice.

    python -m training build letters26 [--data-dir DIR] [--repository model_repository] [--name letters26]

| what is there                                  | what is done            |
|------------------------------------------------|-------------------------|
| nothing                                        | train                   |
| a run that was cut short                       | go on with it           |
| a finished run                                 | not trained again       |
| its newest version in the repository, unharmed | not exported again      |

A run of another plan (seed, epochs, a recipe's row that has changed since) is refused, as by `train --resume`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from training import runs
from training.evaluate import evaluate
from training.export import export_run, next_version
from training.export.repository import refuse_impossible_name
from training.files import write_atomically
from training.runs import Plan
from training.train import train

EXPORTED = "exported.json"
"""In the run's folder: what `build` made of it last."""


def build(plan: Plan, folder: Path, repository: Path, name: str, *, tensorboard: bool = False) -> Path:
    """Train, evaluate and export as far as it is not done; return the version's folder."""
    refuse_impossible_name(name)  # rather than after hours of training
    begun = (folder / "checkpoint.pt").exists()
    if begun and (folder / "metrics.json").exists():
        runs.resume(folder, plan)
        print(f"{folder}: trained already")
    else:
        train(plan, folder, resume=begun, tensorboard=tensorboard)
    evaluate(folder, plan.data_folder)
    version = exported(folder, repository / name)
    if version is not None:
        print(f"{version}: exported already")
        return version
    version = export_run(folder, repository, name, None, plan.data_folder)
    remember(folder, version)
    return version


def remember(folder: Path, version: Path) -> None:
    """Note in the run's folder that this version was made of the run as it is now."""
    write_atomically(folder / EXPORTED, runs.to_json(identity(folder, version)))


def exported(folder: Path, model: Path) -> Path | None:
    """The version that was made of the run as it is now, if it is the model's newest and nobody has changed it."""
    newest = model / str(next_version(model) - 1)
    if not (folder / EXPORTED).exists() or not (newest / "model.onnx").exists():
        return None
    known = (folder / EXPORTED).read_bytes()
    return newest if known == runs.to_json(identity(folder, newest)) else None


def identity(folder: Path, version: Path) -> dict[str, str]:
    """An export: where it went, and the SHA-256 of both its ends."""
    files = {"checkpoint": folder / "checkpoint.pt", "model": version / "model.onnx"}
    digests = {end: hashlib.sha256(path.read_bytes()).hexdigest() for end, path in files.items()}
    return {"version": str(version.resolve()), **digests}
