"""The models that all servers serve, and what is sent to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from loadtest.bench import large, networks
from loadtest.peers.base import Subject, Tensor

LENET5, RESNET18, PICTURE = "lenet5", "resnet18", "picture_corner"
_SIDE = 224
_ROWS = 16


@dataclass(frozen=True)
class Objective:
    """A promise: of Poisson arrivals, 99 % are answered within `limit_ms`."""

    limit_ms: float
    rates: tuple[float, ...]
    """Arrivals per second that are tried, ascending."""
    seconds: float
    """Of arrivals at each."""


@dataclass(frozen=True)
class Workload:
    """A subject, and the loads that are put on it."""

    subject: Subject
    in_flight: tuple[int, ...]
    seconds: float
    """About how long a volley takes."""
    objective: Objective | None = None


SUBJECTS = (LENET5, RESNET18, PICTURE)


def workloads(names: Sequence[str], folder: Path, model_repository: Path) -> dict[str, Workload]:
    """Those of SUBJECTS that are named. What has to be generated is written to `folder`, once."""
    make: dict[str, Callable[[], Workload]] = {
        LENET5: partial(_lenet5, model_repository),
        RESNET18: partial(_resnet18, folder),
        PICTURE: partial(_picture, folder),
    }
    return {name: make[name]() for name in names}


def _lenet5(model_repository: Path) -> Workload:
    subject = Subject(
        name=LENET5,
        title="LeNet-5, 4 KB a request",
        file=model_repository / "lenet5" / "1" / "model.onnx",
        input="input",
        output="probabilities",
        shape=(1, 32, 32),
        row_values=10,
        max_batch=64,
        threads=1,
    )
    objective = Objective(10.0, tuple(250.0 * 2 ** (step / 2) for step in range(13)), 1.0)
    return Workload(subject, in_flight=(1, 16, 64), seconds=2.0, objective=objective)


def _resnet18(folder: Path) -> Workload:
    file = folder / "resnet18.onnx"
    if not file.exists():
        networks.write_resnet18(file, _SIDE)
    subject = Subject(
        name=RESNET18,
        title="ResNet-18, 602 KB a request",
        file=file,
        input=networks.INPUT,
        output=networks.OUTPUT,
        shape=(3, _SIDE, _SIDE),
        row_values=networks.CLASSES,
        max_batch=8,
        threads=2,
    )
    return Workload(subject, in_flight=(1, 8), seconds=2.5)


def _picture(folder: Path) -> Workload:
    repository = folder / "pictures"
    file = repository / large.MODEL / "1" / "model.onnx"
    if not file.exists():
        large.write_repository(repository)
    subject = Subject(
        name=PICTURE,
        title="602 KB a request, hardly any computing",
        file=file,
        input=large.INPUT,
        output="values",
        shape=(3, _SIDE, _SIDE),
        row_values=10,
        max_batch=8,
        threads=1,
    )
    return Workload(subject, in_flight=(8,), seconds=2.0)


def rows(subject: Subject) -> tuple[list[Tensor], list[Tensor]]:
    """Requests that differ, and what ONNX Runtime computes from each, one at a time."""
    import onnxruntime

    random = np.random.default_rng(0)
    inputs = [random.random(subject.shape, dtype=np.float32) for _ in range(_ROWS)]
    session = onnxruntime.InferenceSession(subject.file, providers=["CPUExecutionProvider"])
    return inputs, [session.run([subject.output], {subject.input: row[None]})[0].ravel() for row in inputs]
