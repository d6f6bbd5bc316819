"""A run's two pictures. Figures without pyplot: no window, no global state."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.files import write_atomically
from training.runs import Epoch


def learning_curve(path: Path, title: str, history: list[Epoch]) -> None:
    """Training loss (left, logarithmic) and held-out error in % (right) by epoch."""
    epochs = [epoch.epoch for epoch in history]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(title=f"{title}: learning curve", xlabel="epoch", ylabel="training loss", yscale="log")
    axes.plot(epochs, [epoch.loss for epoch in history], color="tab:blue", label="training loss")
    right = axes.twinx()
    errors = [100 * (1 - epoch.held_out_accuracy) for epoch in history]
    right.plot(epochs, errors, color="tab:orange", label="held-out error")
    right.set(ylabel="held-out error (%)", ylim=(0, 20))
    figure.legend(loc="outside lower center", ncols=2)
    _write(path, figure)


def confusion_matrix(path: Path, confusion: NDArray[np.int64], labels: Sequence[str]) -> None:
    """Counts; the colour is a row's share, so that a small class is as visible as a large one."""
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot(title=f"{confusion.trace()} of {confusion.sum()} right", xlabel="answer", ylabel="truth")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels)
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour)
    _write(path, figure)


def _write(path: Path, figure: Figure) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())
