"""The model card: what a user must know before trusting a version. One set of facts, whatever the model comes from.

It is written twice: as `card.json` in the version's folder, for programs and for the server's `/card`, and as
`README.md` beside the versions, for people (`card_text`). JSON's keys are the fields here.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.export.measure import Accuracy, Latency
from training.export.repository import CARD_FILENAME, Port
from training.files import TrainingError


@dataclass(frozen=True, slots=True)
class Training:
    """The run that made the weights."""

    recipe: str
    seed: int
    epochs: int
    """That were trained; early stopping may end before the recipe does."""
    device: str
    """"cpu" or "cuda"."""
    pretraining: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """Answers to held-out examples."""

    right: int
    of: int

    @classmethod
    def from_accuracy(cls, accuracy: Accuracy) -> Score:
        """Its two counts."""
        return cls(accuracy.right, accuracy.count)

    def __str__(self) -> str:
        return f"{self.right / self.of:.2%} ({self.right} of {self.of})"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far ONNX Runtime was from torch at export, on the worst batch."""

    precision: str
    worst: float
    """Greatest difference, as a part of the batch's greatest answer."""
    batch: int
    inputs: str
    allowed: float


@dataclass(frozen=True, slots=True)
class File:
    """`model.onnx`."""

    bytes: int
    precision: str
    opset: int
    float32_bytes: int
    """Of the same graph in float32."""


@dataclass(frozen=True, slots=True)
class Exported:
    """When, and with which versions of what took part."""

    date: str
    """ISO 8601."""
    libraries: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Timing:
    """Medians of whole batches in ONNX Runtime, without the server."""

    machine: str
    onnxruntime: str
    date: str
    """ISO 8601."""
    medians: Mapping[str, tuple[Latency, ...]]
    """By precision."""


@dataclass(frozen=True, slots=True)
class DataNote:
    """What training and evaluation read."""

    source: str
    licence: str
    split: str
    """What is held out, and what the accuracy therefore speaks of."""


@dataclass(frozen=True, slots=True)
class Card:
    """All that is known of a version. Texts are Markdown."""

    name: str
    version: int
    task: str
    """One sentence; empty: none."""
    network: str
    """A row of `training.nets`."""
    parameters: int
    """That training moves."""
    labels: tuple[str, ...]
    """In the order of the output; empty if nobody knows them."""
    training: Training | None
    weights: str
    """Where weights are from that no run made; empty: `training` says it."""
    accuracy: Score | None
    """Of this very file on the held-out data; None: no data came with the weights."""
    float32_accuracy: Score | None
    """Of the graph that a lower precision was made of."""
    confusion: tuple[tuple[int, ...], ...] | None
    """How many of a class (row) were taken for a class (column), in the order of the labels."""
    agreement: tuple[Agreement, ...]
    calibration_pictures: int | None
    """That int8's ranges were taken from."""
    file: File
    exported: Exported
    input: Port
    output: Port
    preparation: str
    """How a client makes an input."""
    latency: Timing
    data: DataNote | None
    again: tuple[str, ...]
    """The commands that make it again."""

    def to_json(self) -> bytes:
        """`card.json`: a line for each key, so that changes can be read."""
        lines = [
            f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
            for key, value in dataclasses.asdict(self).items()
        ]
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()

    @classmethod
    def from_json(cls, text: bytes) -> Card:
        """The inverse of `to_json`. Raises ValueError, KeyError or TypeError for what is no card of this form."""
        fields: dict[str, Any] = json.loads(text)
        latency = fields["latency"]
        medians = {precision: tuple(Latency(**one) for one in row) for precision, row in latency["medians"].items()}
        confusion = fields["confusion"]
        return cls(
            **fields
            | {
                "labels": tuple(fields["labels"]),
                "training": _optional(Training, fields["training"]),
                "accuracy": _optional(Score, fields["accuracy"]),
                "float32_accuracy": _optional(Score, fields["float32_accuracy"]),
                "confusion": None if confusion is None else tuple(map(tuple, confusion)),
                "agreement": tuple(Agreement(**one) for one in fields["agreement"]),
                "file": File(**fields["file"]),
                "exported": Exported(**fields["exported"]),
                "input": _port(fields["input"]),
                "output": _port(fields["output"]),
                "latency": Timing(**latency | {"medians": medians}),
                "data": _optional(DataNote, fields["data"]),
                "again": tuple(fields["again"]),
            }
        )


def read_card(version_folder: Path) -> Card:
    """The card of a version that was exported."""
    path = version_folder / CARD_FILENAME
    try:
        return Card.from_json(path.read_bytes())
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}. Export writes it.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} is no card as export writes it: {error!r}. Export anew.") from error


def _optional(kind: Any, fields: dict[str, Any] | None) -> Any:
    return None if fields is None else kind(**fields)


def _port(fields: dict[str, Any]) -> Port:
    return Port(**fields | {"dims": tuple(fields["dims"])})
