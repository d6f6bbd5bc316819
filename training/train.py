"""Train one recipe, with the loop on the page. Everything that decides the result is a row of `recipes.py`, or is here.

    python -m training train lenet5 [--seed 0] [--epochs N] [--run-dir runs/mine] [--resume] [--device auto|cpu|cuda]

The weights of the last epoch are the result: the held-out digits are looked at after each epoch, but choose nothing.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from training import nets, plots, runs
from training.data import DATA_SETS
from training.files import TrainingError, write_atomically
from training.nets.lenet5 import competitive_loss
from training.recipes import Recipe
from training.runs import Checkpoint, Epoch, Plan

Loss = Callable[[Tensor, Tensor], Tensor]
"""(N, classes) scores, (N,) labels → the mean over the batch."""

PREDICTED_AT_ONCE = 256

LOSSES: dict[str, Loss] = {"competitive": competitive_loss, "cross entropy": functional.cross_entropy}


def train(plan: Plan, folder: Path, *, resume: bool, data_dir: Path | None = None) -> None:
    """Run the plan to its end, from its start or from the folder's checkpoint, and leave the results in the folder."""
    recipe = plan.recipe
    make_deterministic(plan)
    data_set = DATA_SETS[recipe.data]
    data = data_set.open(data_dir).to(plan.device)

    network = nets.build(recipe.network).to(plan.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    loss_function = LOSSES[recipe.loss]
    history: list[Epoch] = []
    if resume:
        checkpoint = runs.resume(folder, plan)
        network.load_state_dict(checkpoint.network)
        optimizer.load_state_dict(checkpoint.optimizer)
        torch.set_rng_state(checkpoint.generator)
        history = checkpoint.history
    else:
        runs.start(folder, plan)

    examples = len(data.labels)
    steps_per_epoch = math.ceil(examples / recipe.batch_size)
    with tqdm(total=plan.epochs, initial=len(history), unit="epoch", disable=None) as bar:
        for epoch in range(len(history), plan.epochs):
            began, total_loss, rate = time.perf_counter(), 0.0, 0.0
            network.train()
            batches = data.batches(
                torch.randperm(examples), recipe.batch_size, recipe.augmentation, data_set.background
            )
            for step, (inputs, labels) in enumerate(batches):
                rate = learning_rate(recipe, epoch * steps_per_epoch + step, plan.epochs * steps_per_epoch)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                loss = loss_function(network(inputs), labels)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total_loss += loss.item() * len(labels)
            predicted = predict(network, data.held_out_batches(PREDICTED_AT_ONCE))
            accuracy = int((predicted == data.held_out_labels.cpu()).sum()) / len(predicted)
            seconds = time.perf_counter() - began
            history.append(Epoch(epoch + 1, total_loss / examples, accuracy, rate, seconds))
            generator = torch.get_rng_state()
            runs.save(folder, Checkpoint(plan, history, network.state_dict(), optimizer.state_dict(), generator))
            line = f"loss {history[-1].loss:.4f}  held-out {accuracy:.2%}"
            bar.set_postfix_str(line, refresh=False)
            bar.update()
            if bar.disable:
                print(f"epoch {epoch + 1}/{plan.epochs}  {line}", flush=True)

    predicted = predict(network, data.held_out_batches(PREDICTED_AT_ONCE))
    confusion = confusion_matrix(predicted, data.held_out_labels, len(data.names))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    write_results(folder, plan, history, confusion, data.names, parameters)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Half a cosine up over the warm-up, half a cosine down over the rest. A function of the step: nothing to store."""
    warm_up = max(1, round(recipe.warm_up * steps))
    if step < warm_up:
        return recipe.learning_rate * (1 - math.cos(math.pi * (step + 1) / warm_up)) / 2
    return recipe.learning_rate * (1 + math.cos(math.pi * (step + 1 - warm_up) / (steps + 1 - warm_up))) / 2


def predict(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """The class with the largest score for each image of all batches, in evaluation mode: (N,) int64 on the CPU."""
    network.eval()
    with torch.no_grad():
        return torch.cat([network(images).argmax(dim=1).cpu() for images, _ in batches])


def confusion_matrix(predicted: Tensor, truth: Tensor, classes: int) -> NDArray[np.int64]:
    """How often class (row) was taken for class (column). (N,), (N,) → (classes, classes)."""
    counts = torch.bincount(truth.cpu() * classes + predicted.cpu(), minlength=classes * classes)
    return np.asarray(counts.numpy().reshape(classes, classes), dtype=np.int64)


def choose_device(asked: str) -> str:
    """What to train on: "auto" is the GPU if torch sees one."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "--device cuda: this torch sees no CUDA device. Use --device cpu, or a CUDA build of torch."
        )
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return asked


def make_deterministic(plan: Plan) -> None:
    """The same plan, the same bits: seed, threads, and no algorithm whose sums race."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS sums in a fixed order only with a workspace of its own
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(plan.recipe.threads)
    torch.manual_seed(plan.seed)


def write_results(
    folder: Path,
    plan: Plan,
    history: list[Epoch],
    confusion: NDArray[np.int64],
    names: Sequence[str],
    parameters: int,
) -> None:
    """`metrics.json` and the two plots, and a line for the terminal."""
    right, count = int(confusion.trace()), int(confusion.sum())
    final = {
        "held_out_accuracy": right / count,
        "held_out_right": right,
        "held_out_count": count,
        "parameters": parameters,
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
    write_atomically(folder / "metrics.json", runs.to_json(metrics))
    target = plan.recipe.target
    verdict = f"as promised: {target:.2%}" if right / count >= target else f"below the recipe's {target:.2%}"
    result = f"{right} of {count} held-out examples right, {right / count:.2%} ({verdict})"
    print(f"{folder}: {result}, {final['seconds']:.0f} s")
