"""What an exported graph is worth on held-out data, and how long it takes on this machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.export.parity import Runner
from training.train import confusion_matrix

MOST_RUNS = 50
FEWEST_RUNS = 3
SECONDS = 0.1
"""That the runs of one batch size may take, beyond the fewest."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """On the held-out data."""

    confusion: NDArray[np.int64]
    """Of class (row) taken for class (column)."""

    @property
    def right(self) -> int:
        """Answers."""
        return int(self.confusion.trace())

    @property
    def count(self) -> int:
        """Of all answers."""
        return int(self.confusion.sum())

    @property
    def part(self) -> float:
        """0 to 1."""
        return self.right / self.count

    def rows(self) -> tuple[tuple[int, ...], ...]:
        """The matrix in plain numbers."""
        return tuple(tuple(row) for row in self.confusion.tolist())

    def __str__(self) -> str:
        return f"{self.part:.2%} ({self.right} of {self.count})"


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one batch in ONNX Runtime, on this machine."""

    batch: int
    milliseconds: float
    """The median."""


def accuracy(graph: bytes, batches: Iterable[tuple[Tensor, Tensor]], classes: int) -> Accuracy:
    """The graph's own answers, in ONNX Runtime, to inputs with their labels."""
    run = Runner(graph)
    confusion = np.zeros((classes, classes), np.int64)
    for images, labels in batches:
        confusion += confusion_matrix(torch.from_numpy(run(images).argmax(axis=1)), labels, classes)
    return Accuracy(confusion)


def latencies(graph: bytes, example: Tensor, batches: Sequence[int], threads: int | None) -> list[Latency]:
    """At each batch size, of copies of one input (1, …)."""
    run = Runner(graph, threads)
    return [Latency(batch, _median_ms(run, example.repeat(batch, *[1] * (example.dim() - 1)))) for batch in batches]


def _median_ms(run: Runner, images: Tensor) -> float:
    run(images)  # the first one allocates
    seconds: list[float] = []
    while len(seconds) < FEWEST_RUNS or (len(seconds) < MOST_RUNS and sum(seconds) < SECONDS):
        began = time.perf_counter()
        run(images)
        seconds.append(time.perf_counter() - began)
    return round(median(seconds) * 1000, 4)


def machine(threads: int | None) -> str:
    """What was measured on: threads, by default a core's each, and the processor's name."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = threads or cores
    return f"{count} thread{'s' if count > 1 else ''} of {_processor()}"


def _processor() -> str:
    """Its name, as Linux has it, or its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
