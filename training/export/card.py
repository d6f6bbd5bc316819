"""The model card: what a user must know before trusting an exported model. One form, whatever the model comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.evaluate import mistakes
from training.export.measure import Accuracy, Latency
from training.export.pixels import Scaling
from training.export.repository import OPEN, Interface, Port
from training.export.source import Source

MOST_CONFUSIONS = 5
WORST_CLASSES = 3
ANSWERS = {
    "probabilities": "The probabilities are the softmax of the network's scores. They order the classes well, but are "
    "not calibrated: they may\nbe near 1 for a wrong answer, and for a picture of something else altogether.",
    "logits": "The logits are the network's scores, the largest of which wins; their softmax are probabilities.",
}
"""What the numbers are, by the output's name."""


@dataclass(frozen=True, slots=True)
class Card:
    """A title, a table and sections."""

    name: str
    task: str
    """One sentence; empty: none."""
    rows: Sequence[tuple[str, str]]
    sections: Sequence[tuple[str, str]]
    """Headings and their text; a section without text is left out."""

    def render(self) -> str:
        """Markdown."""
        table = "\n".join(f"| {key} | {value} |" for key, value in self.rows)
        parts = [f"# {self.name}", self.task, f"| | |\n|---|---|\n{table}"]
        parts += [f"## {heading}\n\n{text}" for heading, text in self.sections if text]
        return "\n\n".join(part for part in parts if part) + "\n"


def describe_mistakes(accuracy: Accuracy, labels: Sequence[str]) -> str:
    """The classes that fare worst and the confusions that happen most; empty if there are no mistakes."""
    if accuracy.right == accuracy.count:
        return ""
    counts = accuracy.confusion.sum(axis=1)
    right = accuracy.confusion.diagonal()
    recalls = sorted((right[c] / counts[c], c) for c in range(len(labels)) if right[c] < counts[c])
    worst = ", ".join(f"{labels[c]} {part:.1%} ({right[c]} of {counts[c]})" for part, c in recalls[:WORST_CLASSES])
    confused = [
        f"- {times} × {truth} taken for {answer}" for times, truth, answer in mistakes(accuracy.confusion, labels)
    ]
    listed = "\n".join(confused[:MOST_CONFUSIONS])
    more = len(confused) - MOST_CONFUSIONS
    rest = f"\n- and {more} other kinds" if more > 0 else ""
    return f"On the held-out examples, least often recognised: {worst}. The most frequent mistakes:\n\n{listed}{rest}"


def describe_ends(source: Source, interface: Interface, scaling: Scaling | None) -> str:
    """What goes in and what comes out."""
    given, answered = interface.input, interface.output
    order = "in the order of `labels.txt`" if source.labels else "in the order of the weights"
    if scaling is None:
        preparation = source.preparation
    else:
        preparation = (
            f"Pixels of 0 to 255, channels last ({'grey' if source.shape[0] == 1 else 'RGB'}). The graph makes of them "
            f"what the network reads: {scaling}. That is:\n\n{source.preparation}"
        )
    return f"""\
`{given.name}` {_kind(given)} → `{answered.name}` {_kind(answered)}, {order}.

{preparation}

{ANSWERS[answered.name]}"""


def describe_latency(medians: Mapping[str, Sequence[Latency]], where: str) -> str:
    """A table: a row for each precision, a column for each batch size."""
    batches = [str(one.batch) for one in next(iter(medians.values()))]
    lines = [
        ["batch", *batches],
        ["---"] * (len(batches) + 1),
        *([f"{name}, ms", *(f"{one.milliseconds:.2f}" for one in row)] for name, row in medians.items()),
    ]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\nMedians of whole batches in ONNX Runtime on {where}, without the server."


def _kind(port: Port) -> str:
    datatype = {"TYPE_FP32": "float32", "TYPE_UINT8": "uint8"}[port.datatype]
    open_axes = iter(("height", "width"))
    dims = [next(open_axes) if dim == OPEN else str(dim) for dim in port.dims]
    return f"{datatype} (batch, {', '.join(dims)})"
