"""What a run shows: a bar or lines while it goes on; figures and pictures in its folder at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from training import features, plots, runs
from training.files import write_atomically
from training.runs import Epoch, Plan


def progress(plan: Plan, epochs_done: int, images: int, *, show: bool) -> tqdm[None]:
    """A bar with rate and time left, in a terminal. `images` are an epoch's; early stopping may end it sooner."""
    return tqdm(
        total=plan.epochs * images,
        initial=epochs_done * images,
        unit=" images",
        unit_scale=True,
        desc=f"epoch {epochs_done + 1}/{plan.epochs}",
        disable=None if show else True,
    )


def tell(bar: tqdm[None], plan: Plan, epoch: Epoch, images_per_second: float) -> None:
    """An epoch's figures: beside the bar, or as a line where there is none."""
    validation = "" if epoch.validation_loss is None else f"  validation {epoch.validation_loss:.4f}"
    line = f"loss {epoch.loss:.4f}{validation}  held-out {epoch.held_out_accuracy:.2%}"
    if bar.disable:
        print(f"epoch {epoch.epoch}/{plan.epochs}  {line}  {images_per_second:.0f} images/s", flush=True)
    else:
        bar.set_description_str(f"epoch {min(epoch.epoch + 1, plan.epochs)}/{plan.epochs}", refresh=False)
        bar.set_postfix_str(line)


def write(
    folder: Path,
    plan: Plan,
    history: list[Epoch],
    network: nn.Module,
    example: Tensor,
    confusion: NDArray[np.int64],
    names: Sequence[str],
) -> None:
    """`metrics.json` and the pictures, and a line for the terminal.

    `example` is one held-out image (C, H, W); `names` are those of the classes.
    """
    right, count = int(confusion.trace()), int(confusion.sum())
    final = {
        "epoch": len(history) if plan.patience is None else runs.best_epoch(history),
        "held_out_accuracy": right / count,
        "held_out_right": right,
        "held_out_count": count,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "seconds": sum(epoch.seconds for epoch in history),
    }
    metrics = {
        "recipe": plan.recipe.name,
        "seed": plan.seed,
        "final": final,
        "epochs": [dataclasses.asdict(epoch) for epoch in history],
    }
    plots.learning_curve(folder / "learning_curve.png", plan.recipe.name, history)
    plots.confusion_matrix(folder / "confusion_matrix.png", confusion, names)
    filters = features.first_filters(network, example.shape)
    if filters is not None:
        plots.filters(folder / "filters.png", filters)
    maps = features.feature_maps(network, example)
    if maps:
        plots.feature_maps(folder / "feature_maps.png", example.cpu().numpy(), maps)
    write_atomically(folder / "metrics.json", runs.to_json(metrics))
    stopped = f" after epoch {final['epoch']}, the best of {len(history)}" if plan.patience is not None else ""
    result = f"{right} of {count} held-out examples right{stopped}, {right / count:.2%}"
    print(f"{folder}: {result}{verdict(right / count, plan.recipe.target)}, {final['seconds']:.0f} s")


def verdict(accuracy: float, promised: float | None) -> str:
    """What a recipe's promise has become, in brackets; nothing if it promised nothing."""
    if promised is None:
        return ""
    return f" (as promised: {promised:.2%})" if accuracy >= promised else f" (below the recipe's {promised:.2%})"
