"""The model card as `README.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from training.evaluate import mistakes
from training.export.card import Agreement, Card, DataNote, File, Timing, Training
from training.export.pixels import Scaling
from training.export.repository import OPEN, Port

MOST_CONFUSIONS = 5
WORST_CLASSES = 3
ANSWERS = {
    "probabilities": "The probabilities are the softmax of the network's scores. They order the classes well, but are "
    "not calibrated: they may\nbe near 1 for a wrong answer, and for a picture of something else altogether.",
    "logits": "The logits are the network's scores, the largest of which wins; their softmax are probabilities.",
}
"""What the numbers are, by the output's name."""

NO_DATA = "How well it does is not known here: no data came with the weights."


def render(card: Card) -> str:
    """Markdown: a title, a table and sections; what there is nothing to say on is left out."""
    rows = [
        ("network", f"`{card.network}`, {card.parameters:,} trainable parameters (`training/nets/`)"),
        ("held-out accuracy", describe_accuracy(card)),
        *(describe_agreement(one) for one in card.agreement),
        ("calibration", describe_calibration(card.calibration_pictures)),
        ("training", "" if card.training is None else describe_training(card.training)),
        ("weights", card.weights),
        ("file", f"version {card.version}, {describe_size(card.file)}, opset {card.file.opset}"),
        ("exported", f"{card.exported.date}, with {listed(card.exported.libraries)}"),
    ]
    sections = [
        ("Input and output", describe_ends(card)),
        ("Mistakes", "" if card.confusion is None else describe_mistakes(card.confusion, card.labels)),
        ("Latency", describe_latency(card.latency)),
        ("Data", NO_DATA if card.data is None else describe_data(card.data)),
        ("Again", "\n".join(f"    {command}" for command in card.again)),
    ]
    table = "\n".join(f"| {key} | {value} |" for key, value in rows if value)
    parts = [f"# {card.name}", card.task, f"| | |\n|---|---|\n{table}"]
    parts += [f"## {heading}\n\n{text}" for heading, text in sections if text]
    return "\n\n".join(part for part in parts if part) + "\n"


def describe_accuracy(card: Card) -> str:
    """Of this file, and where it has a lower precision also before that; empty: unknown."""
    if card.accuracy is None:
        return ""
    before = "" if card.float32_accuracy is None else f"; {card.float32_accuracy} in float32"
    return f"{card.accuracy}, of this ONNX file in ONNX Runtime{before}"


def describe_agreement(agreement: Agreement) -> tuple[str, str]:
    """A row of the table."""
    precision = "" if agreement.precision == "float32" else f" in {agreement.precision}"
    said = f"{agreement.worst:.1e} (batch {agreement.batch}, {agreement.inputs} inputs)"
    return (
        f"ONNX Runtime against torch{precision}",
        f"worst difference {said}, as a part of the greatest answer; {agreement.allowed:.0e} is allowed",
    )


def describe_calibration(pictures: int | None) -> str:
    """Of int8; empty: none."""
    return "" if pictures is None else f"on {pictures} pictures of the training data, undistorted"


def describe_training(training: Training) -> str:
    """One line."""
    before = f", after pre-training `{training.pretraining}` (`training/pretraining/`)" if training.pretraining else ""
    return f"recipe `{training.recipe}`, seed {training.seed}, {training.epochs} epochs, on {training.device}{before}"


def describe_size(file: File) -> str:
    """Of the file; of a lower precision also what it was in float32."""
    before = "" if file.precision == "float32" else f" ({size(file.float32_bytes)} in float32)"
    return f"{size(file.bytes)} in {file.precision}{before}"


def size(count: int) -> str:
    """Bytes, for people."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def listed(libraries: Mapping[str, str]) -> str:
    """Names and versions."""
    return ", ".join(f"{library} {number}" for library, number in libraries.items())


def describe_mistakes(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """The classes that fare worst and the confusions that happen most; empty if there are no mistakes."""
    matrix = np.array(confusion, np.int64)
    counts, right = matrix.sum(axis=1), matrix.diagonal()
    if right.sum() == counts.sum():
        return ""
    recalls = sorted((right[c] / counts[c], c) for c in range(len(labels)) if right[c] < counts[c])
    worst = ", ".join(f"{labels[c]} {part:.1%} ({right[c]} of {counts[c]})" for part, c in recalls[:WORST_CLASSES])
    confused = [f"- {times} × {truth} taken for {answer}" for times, truth, answer in mistakes(matrix, labels)]
    shown = "\n".join(confused[:MOST_CONFUSIONS])
    more = len(confused) - MOST_CONFUSIONS
    rest = f"\n- and {more} other kinds" if more > 0 else ""
    return f"On the held-out examples, least often recognised: {worst}. The most frequent mistakes:\n\n{shown}{rest}"


def describe_preparation(text: str, channels: int, scaling: Scaling | None) -> str:
    """How an input is made, from how the network's is; `scaling` is the graph's own."""
    if scaling is None:
        return text
    return (
        f"Pixels of 0 to 255, channels last ({'grey' if channels == 1 else 'RGB'}). The graph makes of them "
        f"what the network reads: {scaling}. That is:\n\n{text}"
    )


def describe_ends(card: Card) -> str:
    """What goes in and what comes out."""
    order = "in the order of `labels.txt`" if card.labels else "in the order of the weights"
    return f"""\
`{card.input.name}` {_kind(card.input)} → `{card.output.name}` {_kind(card.output)}, {order}.

{card.preparation}

{ANSWERS[card.output.name]}"""


def describe_latency(latency: Timing) -> str:
    """A table: a row for each precision, a column for each batch size."""
    batches = [str(one.batch) for one in next(iter(latency.medians.values()))]
    lines = [
        ["batch", *batches],
        ["---"] * (len(batches) + 1),
        *([f"{name}, ms", *(f"{one.milliseconds:.2f}" for one in row)] for name, row in latency.medians.items()),
    ]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\nMedians of whole batches in ONNX Runtime on {latency.machine}, without the server."


def describe_data(data: DataNote) -> str:
    """Where the data is from."""
    return f"{data.source}\nLicence of the data: {data.licence}\n{data.split}"


def _kind(port: Port) -> str:
    datatype = {"TYPE_FP32": "float32", "TYPE_UINT8": "uint8"}[port.datatype]
    open_axes = iter(("height", "width"))
    dims = [next(open_axes) if dim == OPEN else str(dim) for dim in port.dims]
    return f"{datatype} (batch, {', '.join(dims)})"
