"""Train one recipe, with the loop on the page. Everything that decides the result is a row of `recipes.py`, or is here.

    python -m training train lenet5 [--seed 0] [--epochs N] [--run-dir runs/mine] [--resume] [--device auto|cpu|cuda]
    python -m training train lenet5 --early-stop 10 --precision bfloat16 --compile --tensorboard
    torchrun --nproc-per-node 2 -m training train lenet5

The weights of the last epoch are the result; with early stopping those of the epoch with the least loss on a part of
the training data that is set aside. The held-out data is looked at after each epoch, but chooses nothing.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training import losses, nets, optim, results, runs
from training.data import DATA_SETS
from training.distribution import ALONE, Processes
from training.files import TrainingError
from training.losses import Loss
from training.pretraining import pretrain_by_name
from training.runs import Checkpoint, Epoch, Plan
from training.scalars import Scalars

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PREDICTED_AT_ONCE = 64
"""The first maps of VGG take 0.8 GB for so many photographs, and two of them are there at a time."""
SET_ASIDE_EVERY = 10
"""Of each class, for early stopping to look at."""

Batches = Iterable[tuple[Tensor, Tensor]]
"""Images (N, C, H, W) and labels (N,)."""


def train(plan: Plan, folder: Path, *, resume: bool, processes: Processes = ALONE, tensorboard: bool = False) -> None:
    """Run the plan to its end, from its start or from the folder's checkpoint, and leave the results in the folder."""
    recipe = plan.recipe
    make_deterministic(plan)
    data_set = DATA_SETS[recipe.data]
    data = data_set.open(plan.data_folder).to(plan.device)
    to_learn, to_validate = set_aside(data.labels.cpu(), plan)
    example, _ = next(data.held_out_batches(1))

    network = nets.build(recipe.network, len(data.names)).to(plan.device)
    optimizer = optim.optimizer(recipe, network)
    # Small gradients vanish in float16: they are made larger before the backward pass, and smaller before the step.
    scaler = torch.amp.GradScaler(plan.device, enabled=plan.precision == "float16")
    loss_function = losses.loss(recipe)
    history: list[Epoch] = []
    best: dict[str, Any] | None = None
    if resume:
        checkpoint = runs.resume(folder, plan)
        runs.refuse_other_classes(folder, checkpoint, data.names)
        network.load_state_dict(checkpoint.network)
        optimizer.load_state_dict(checkpoint.optimizer)
        scaler.load_state_dict(checkpoint.scaler)
        torch.set_rng_state(checkpoint.generator)
        history, best = checkpoint.history, checkpoint.best
    else:
        runs.start(folder, plan, write=processes.first)
        if recipe.pretraining is not None:
            pretrain_by_name(
                recipe.pretraining,
                network,
                lambda: next(data.batches(to_learn, len(to_learn), recipe.augmentation, data_set.background))[0],
                say=print if processes.first else lambda _: None,
            )

    def save() -> None:
        states = network.state_dict(), optimizer.state_dict(), torch.get_rng_state(), scaler.state_dict()
        runs.save(folder, Checkpoint(plan, history, *states, best, data.names))

    model: Callable[[Tensor], Tensor] = processes.together(network, example)
    if plan.compile:
        model = torch.compile(model)
    steps_per_epoch = math.ceil(len(to_learn) / recipe.batch_size)
    scalars = Scalars(folder, len(history)) if tensorboard and processes.first else None
    with results.progress(plan, len(history), len(to_learn), show=processes.first) as bar:
        while not runs.is_over(plan, history):
            epoch, began, rate = len(history), time.perf_counter(), 0.0
            total_loss = torch.zeros((), dtype=torch.float64, device=plan.device)
            network.train()
            order = to_learn[torch.randperm(len(to_learn))]
            batches = data.batches(order, recipe.batch_size, recipe.augmentation, data_set.background)
            for step, (inputs, labels) in enumerate(batches):
                rate = optim.learning_rate(recipe, epoch * steps_per_epoch + step, plan.epochs * steps_per_epoch)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                part, weight = processes.part(len(labels))
                with processes.own_draws(plan.seed, epoch * steps_per_epoch + step), arithmetic(plan):
                    scores = model(inputs[part])
                loss = loss_function(scores.float(), labels[part]) * weight
                optimizer.zero_grad()
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                if recipe.clip_norm is not None:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
                scaler.step(optimizer)
                scaler.update()
                total_loss += loss.detach().double() * len(labels) / processes.count
                bar.update(len(labels))
            figures = torch.zeros(3, dtype=torch.float64)
            figures[0] = total_loss / len(to_learn)
            if processes.first:
                figures[1] = accuracy(network, data.held_out_batches(PREDICTED_AT_ONCE))
                if len(to_validate):
                    validate_on = data.plain_batches(to_validate, PREDICTED_AT_ONCE)
                    figures[2] = mean_loss(network, validate_on, loss_function)
            mean, right, validation = processes.sum(figures.to(plan.device))
            if not math.isfinite(mean):
                raise TrainingError(
                    f"{folder}: the training loss is {mean} in epoch {epoch + 1}. A lower learning rate or a clip_norm "
                    "may help; the checkpoint of the epoch before is kept."
                )
            seconds = time.perf_counter() - began
            history.append(Epoch(epoch + 1, mean, right, rate, seconds, validation if len(to_validate) else None))
            if len(to_validate) and runs.best_epoch(history) == epoch + 1:
                best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
            if processes.first:
                if scalars is not None:
                    scalars.add(history[-1], len(to_learn) / seconds)
                save()
                results.tell(bar, plan, history[-1], len(to_learn) / seconds)

    if scalars is not None:
        scalars.close()
    if processes.first:
        if best is not None:
            network.load_state_dict(best)
            save()
        predicted = predict(network, data.held_out_batches(PREDICTED_AT_ONCE))
        confusion = confusion_matrix(predicted, data.held_out_labels, len(data.names))
        results.write(folder, plan, history, network, example[0], confusion, data.names)


def set_aside(labels: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """Where the examples to learn from are, and those to validate on: with patience a tenth of each class, by seed."""
    everything = torch.arange(len(labels))
    if plan.patience is None:
        return everything, everything[:0]
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(plan.seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    validate = torch.zeros(len(labels), dtype=torch.bool)
    validate[by_class[::SET_ASIDE_EVERY]] = True
    return everything[~validate], everything[validate]


def arithmetic(plan: Plan) -> torch.autocast:
    """The block whose matrix products and convolutions are done in the plan's precision."""
    return torch.autocast(plan.device, PRECISIONS[plan.precision], enabled=plan.precision != "float32")


def predict(network: nn.Module, batches: Batches) -> Tensor:
    """The class with the largest score for each image of all batches: (N,) int64 on the CPU."""
    scores, _ = scores_and_labels(network, batches)
    return scores.argmax(dim=1)


def accuracy(network: nn.Module, batches: Batches) -> float:
    """The part of the images whose largest score is the label's."""
    scores, labels = scores_and_labels(network, batches)
    return int((scores.argmax(dim=1) == labels).sum()) / len(labels)


def mean_loss(network: nn.Module, batches: Batches, loss_function: Loss) -> float:
    """Of all images of all batches together."""
    return float(loss_function(*scores_and_labels(network, batches)))


def scores_and_labels(network: nn.Module, batches: Batches) -> tuple[Tensor, Tensor]:
    """(N, classes) and (N,), both on the CPU, of at least one batch; in evaluation mode and float32."""
    network.eval()
    with torch.no_grad():
        scores, labels = zip(*((network(images).cpu(), labels.cpu()) for images, labels in batches), strict=True)
    return torch.cat(scores), torch.cat(labels)


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


def require_compiler(device: str) -> None:
    """Raise TrainingError if torch.compile has nothing to compile with."""
    if device == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise TrainingError("--compile: there is no C++ compiler. Install g++ (or name one in CXX), or leave it out.")


def make_deterministic(plan: Plan) -> None:
    """The same plan, the same bits: seed, threads, and no algorithm whose sums race.

    CUDA has no other algorithm for some backward passes, adaptive pooling's say: torch then warns, and trains on.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS sums in a fixed order only with a workspace of its own
    torch.use_deterministic_algorithms(True, warn_only=plan.device == "cuda")
    torch.set_num_threads(plan.recipe.threads)
    torch.manual_seed(plan.seed)
