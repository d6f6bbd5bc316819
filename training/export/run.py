"""A run as a served model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from training import runs
from training.data import DATA_SETS, Data
from training.data.streams import Streamed
from training.evaluate import reopen
from training.export.card import DataNote, Training
from training.export.publish import publish
from training.export.source import Examples, Source
from training.export_options import PLAIN, ExportOptions

AT_ONCE = 64
"""Pictures that are decoded together, and that stay in memory to compare ONNX Runtime and torch on."""


def export_run(
    folder: Path,
    repository: Path,
    name: str | None,
    version: int | None,
    data_dir: Path | None = None,
    options: ExportOptions = PLAIN,
) -> Path:
    """Export the run's network into the repository, and return the new version's folder.

    `data_dir` is where the data is now; None: where the run found it.
    """
    checkpoint, data, network = reopen(folder, data_dir)
    plan, recipe = checkpoint.plan, checkpoint.plan.recipe
    name = name or recipe.name
    data_set = DATA_SETS[recipe.data]
    examples = examples_of(data)
    depth, height, width = examples.images.shape[1:]
    source = Source(
        name,
        recipe.network,
        network,
        (depth, height, width),
        len(data.names),
        data.names,
        preparation=data_set.preprocessing,
        again=(
            runs.command(plan),
            f"python -m training export {runs.default_folder(recipe.name, plan.seed)} --name {name}",
        ),
        training=Training(recipe.name, plan.seed, len(checkpoint.history), plan.device, recipe.pretraining),
        pictures=data_set.pictures,
        threads=recipe.threads,
        task=data_set.task,
        data=DataNote(data_set.source, data_set.licence, data_set.split),
        examples=examples,
    )
    return publish(source, repository, version, options)


def examples_of(data: Data | Streamed) -> Examples:
    """The first of the held-out side in memory, and ways to all of it and to some of the training side."""

    def to_learn_from(count: int) -> Tensor:
        chosen = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))[:count]
        return torch.cat([images for images, _ in data.plain_batches(chosen, AT_ONCE)])

    some, _ = next(data.held_out_batches(AT_ONCE))
    return Examples(some, data.held_out_batches, to_learn_from)
