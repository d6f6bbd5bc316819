"""How well a run does on the held-out data, and where it errs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from training import nets, runs
from training.data import DATA_SETS, Data, Streamed
from training.runs import Checkpoint
from training.train import PREDICTED_AT_ONCE, confusion_matrix, predict


def evaluate(folder: Path, data_dir: Path | None = None) -> None:
    """Print the accuracy of the run's checkpoint and each kind of mistake, most frequent first.

    `data_dir` is where the data is now; None: where the run found it.
    """
    checkpoint, data, network = reopen(folder, data_dir)
    predicted = predict(network, data.held_out_batches(PREDICTED_AT_ONCE))
    confusion = confusion_matrix(predicted, data.held_out_labels, len(data.names))
    right, count = int(confusion.trace()), int(confusion.sum())
    print(f"{folder}: epoch {len(checkpoint.history)} of {checkpoint.plan.epochs}")
    print(f"{right} of {count} held-out examples right, {right / count:.2%}")
    for times, name, other in mistakes(confusion, data.names):
        print(f"{times} × {name} taken for {other}")


def reopen(folder: Path, data_dir: Path | None) -> tuple[Checkpoint, Data | Streamed, nn.Module]:
    """A run, its data and its network as it has become; raise if the data has other classes now."""
    checkpoint = runs.load(folder)
    data = DATA_SETS[checkpoint.plan.recipe.data].open(data_dir or checkpoint.plan.data_folder)
    runs.refuse_other_classes(folder, checkpoint, data.names)
    network = nets.build(checkpoint.plan.recipe.network, len(data.names))
    network.load_state_dict(checkpoint.network)
    return checkpoint, data, network


def mistakes(confusion: NDArray[np.int64], names: Sequence[str]) -> list[tuple[int, str, str]]:
    """How often one class was taken for another, the most frequent first. (classes, classes), truth by row."""
    kinds = [
        (int(confusion[truth, answer]), name, other)
        for truth, name in enumerate(names)
        for answer, other in enumerate(names)
        if truth != answer and confusion[truth, answer]
    ]
    return sorted(kinds, key=lambda kind: -kind[0])
