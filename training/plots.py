"""A run's pictures. Figures without pyplot: no window, no global state."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.files import write_atomically
from training.runs import Epoch

LEGIBLE_CLASSES = 60  # of more the confusion matrix shows colours only
MOST_TILES = 64
MOST_LAYERS = 8
MOST_MAPS = 16


def learning_curve(path: Path, title: str, history: list[Epoch]) -> None:
    """Training loss (left, logarithmic) and held-out error in % (right) by epoch."""
    epochs = [epoch.epoch for epoch in history]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(title=f"{title}: learning curve", xlabel="epoch", ylabel="training loss", yscale="log")
    axes.plot(epochs, [epoch.loss for epoch in history], color="tab:blue", label="training loss")
    if any(epoch.validation_loss is not None for epoch in history):
        validation = [math.nan if epoch.validation_loss is None else epoch.validation_loss for epoch in history]
        axes.plot(epochs, validation, color="tab:blue", linestyle="dashed", label="validation loss")
        axes.set_ylabel("training and validation loss")
    right = axes.twinx()
    errors = [100 * (1 - epoch.held_out_accuracy) for epoch in history]
    right.plot(epochs, errors, color="tab:orange", label="held-out error")
    right.set(ylabel="held-out error (%)", ylim=(0, min(100, max(20, 2 * errors[-1]))))
    figure.legend(loc="outside lower center", ncols=3)
    _write(path, figure)


def confusion_matrix(path: Path, confusion: NDArray[np.int64], labels: Sequence[str]) -> None:
    """Counts; the colour is a row's share, so that a small class is as visible as a large one."""
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = min(max(6, 0.4 * len(labels)), 24)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot(title=f"{confusion.trace()} of {confusion.sum()} right", xlabel="answer", ylabel="truth")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= LEGIBLE_CLASSES:
        axes.set_xticks(range(len(labels)), labels, rotation="vertical" if max(map(len, labels)) > 3 else "horizontal")
        axes.set_yticks(range(len(labels)), labels)
        _write_counts(axes, confusion, share)
    _write(path, figure)


def filters(path: Path, weights: NDArray[np.float32]) -> None:
    """The first layer's weights (K, C, H, W): filters of colour as they are, others channel by channel. Grey is 0."""
    bound = max(float(np.abs(weights).max()), 1e-12)
    pictures = 0.5 + weights / (2 * bound)
    tiles = pictures.transpose(0, 2, 3, 1) if weights.shape[1] == 3 else pictures.reshape(-1, *weights.shape[2:])
    shown = tiles[:MOST_TILES]
    sheet = tiled(shown, math.ceil(math.sqrt(len(shown))))
    figure = Figure(figsize=(6, 6 * sheet.shape[0] / sheet.shape[1] + 0.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(f"first layer: {len(shown)} of {len(tiles)} filters, {weights.shape[2]}×{weights.shape[3]}")
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
    _write(path, figure)


def feature_maps(path: Path, image: NDArray[np.float32], maps: dict[str, NDArray[np.float32]]) -> None:
    """An image (C, H, W), and a row of maps (maps, height, width) for each layer. Each map has its own grey scale."""
    picture = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
    sheets = [("input", tiled(_to_grey(picture[np.newaxis]), MOST_MAPS))]
    for name, stack in list(maps.items())[:MOST_LAYERS]:
        title = f"{name}: {len(stack)}@{stack.shape[1]}×{stack.shape[2]}"
        sheets.append((title, tiled(_to_grey(stack[:MOST_MAPS]), MOST_MAPS)))
    figure = Figure(figsize=(14, 1.15 * len(sheets)), layout="constrained")
    for axes, (title, sheet) in zip(figure.subplots(len(sheets), squeeze=False).flat, sheets, strict=True):
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, loc="left", fontsize=8)
        axes.set_axis_off()
    _write(path, figure)


def tiled(pictures: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    """Pictures (N, H, W[, 3]) of 0 to 1 side by side, `columns` in a row, on white, with a gap between them."""
    count, height, width, *colour = pictures.shape
    gap = max(1, height // 16)
    rows = math.ceil(count / columns)
    sheet = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, *colour), dtype=np.float32)
    for index, picture in enumerate(pictures):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def _to_grey(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each picture (N, ...) from its least value, 0, to its greatest, 1."""
    within = tuple(range(1, pictures.ndim))
    low, high = pictures.min(axis=within, keepdims=True), pictures.max(axis=within, keepdims=True)
    return np.asarray((pictures - low) / np.maximum(high - low, 1e-12), dtype=np.float32)


def _write_counts(axes: Axes, confusion: NDArray[np.int64], share: NDArray[np.float64]) -> None:
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour)


def _write(path: Path, figure: Figure) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())
