"""From a source to a version of a served model: graph, proof, measurements, and only then files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import onnx
import onnxruntime

from training.export.card import Card, describe_ends, describe_latency, describe_mistakes
from training.export.graph import Served, to_onnx
from training.export.lower_precision import CALIBRATION_PICTURES, to_float16, to_int8
from training.export.measure import Accuracy, accuracy, latencies, machine
from training.export.parity import HALF_TOLERANCE, TOLERANCE, TRAINED_TOLERANCE, compare, probes, worst_of
from training.export.repository import MAX_BATCH_SIZE, choose_version, config, write_version
from training.export.source import Inputs, Source, refuse_impossible
from training.export_options import ExportOptions
from training.files import TrainingError
from training.runs import versions

MAX_BATCH_VALUES = 16 * 3 * 224 * 224
"""What `max_batch_size` lets a batch hold: 16 pictures of ImageNet's size, whose maps take a GB in VGG."""
TIMED_BATCHES = (1, 8, 32, 64)

Rows = list[tuple[str, str]]
"""Of the card's table."""


@dataclass(frozen=True, slots=True)
class Made:
    """A graph that has passed."""

    graph: bytes
    plain: bytes
    """The same in float32; the same object, if that was asked for."""
    accuracy: Accuracy | None
    """Of `graph`; None: without data."""
    rows: Rows
    """What was found."""


def publish(source: Source, repository: Path, version: int | None, options: ExportOptions) -> Path:
    """Export into the repository, and return the new version's folder; or raise TrainingError and write nothing."""
    refuse_impossible(source, options)
    inputs = Inputs.of(source, options)
    interface = inputs.interface(source, options)
    version = choose_version(repository, source.name, version, source.labels, interface)

    made = make(source, inputs, options)
    largest = max_batch_size(source.shape)
    timed = [batch for batch in TIMED_BATCHES if batch <= largest]
    graphs = {"float32": made.plain, options.precision: made.graph}
    medians = {name: latencies(graph, inputs.example[:1], timed, source.threads) for name, graph in graphs.items()}
    count = sum(parameter.numel() for parameter in source.network.parameters())
    card = Card(
        source.name,
        source.task,
        [
            ("network", f"`{source.network_name}`, {count:,} trainable parameters (`training/nets/`)"),
            *made.rows,
            source.origin,
            ("file", f"version {version}, {sizes(made, options)}, opset {options.opset}"),
            ("exported", f"{datetime.now(UTC).date().isoformat()}, with {libraries()}"),
        ],
        [
            ("Input and output", describe_ends(source, interface, inputs.scaling)),
            ("Mistakes", "" if made.accuracy is None else describe_mistakes(made.accuracy, source.labels)),
            ("Latency", describe_latency(medians, machine(source.threads))),
            ("Data", source.data or "How well it does is not known here: no data came with the weights."),
            ("Again", " ".join([source.again, *options.flags()])),
        ],
    )
    settings = config(
        source.name,
        interface,
        source.threads,
        inputs.pictures(source),
        labelled=bool(source.labels),
        max_batch_size=largest,
    )
    target = write_version(
        repository, source.name, version, made.graph, interface, settings, source.labels, card.render()
    )
    print(f"{target / 'model.onnx'}: {sizes(made, options)}")
    return target


def make(source: Source, inputs: Inputs, options: ExportOptions) -> Made:
    """The graph in the form that is asked for; raise if it does not compute what the network computes."""
    model = Served(source.network, softmax=options.output == "softmax", scaling=inputs.scaling).eval()
    plain = to_onnx(
        model,
        inputs.example,
        options.output_name,
        input_name=options.input_name,
        opset=options.opset,
        open_axes=dict(zip(inputs.spatial_axes, ("height", "width"), strict=True)) if options.any_size else None,
    )
    trained = source.examples is not None and options.output == "softmax"
    rows = [agreement(source, inputs, options, model, plain, "float32", TRAINED_TOLERANCE if trained else TOLERANCE)]
    graph = plain
    if options.precision == "float16":
        graph = to_float16(plain)
        rows.append(agreement(source, inputs, options, model, graph, "float16", HALF_TOLERANCE))
    elif options.precision == "int8":
        assert source.examples is not None
        pictures = inputs.prepared(source.examples.to_learn_from(CALIBRATION_PICTURES))
        graph = to_int8(source.name, plain, pictures)
        rows.append(("calibration", f"on {len(pictures)} pictures of the training data, undistorted"))
    if source.examples is None:
        return Made(graph, plain, None, rows)
    largest = max_batch_size(source.shape)
    before = accuracy(plain, inputs.held_out(source.examples, largest), source.classes)
    if graph is plain:
        return Made(
            graph, plain, before, [("held-out accuracy", f"{before}, of this ONNX file in ONNX Runtime"), *rows]
        )
    after = accuracy(graph, inputs.held_out(source.examples, largest), source.classes)
    refuse_loss(source.name, before, after, options)
    row = ("held-out accuracy", f"{after}, of this ONNX file in ONNX Runtime; {before} in float32")
    return Made(graph, plain, after, [row, *rows])


def agreement(
    source: Source,
    inputs: Inputs,
    options: ExportOptions,
    model: Served,
    graph: bytes,
    precision: str,
    tolerance: float,
) -> tuple[str, str]:
    """The card's row on how well the graph agrees with torch; raise if not well enough."""
    batches = (1, 7, max_batch_size(source.shape)) if source.examples else (1, 2, 5)
    tried = probes(
        inputs.shape,
        batches,
        real=inputs.real,
        dtype=inputs.dtype,
        other_shapes=inputs.other_shapes() if options.any_size else (),
    )
    worst = worst_of(source.name, compare(source.name, graph, model, tried), tolerance)
    print(f"ONNX Runtime agrees with torch in {precision}: worst difference {worst}")
    said = f"worst difference {worst}, as a part of the greatest answer; {tolerance:.0e} is allowed"
    return f"ONNX Runtime against torch{'' if options.precision == 'float32' else f' in {precision}'}", said


def refuse_loss(name: str, before: Accuracy, after: Accuracy, options: ExportOptions) -> None:
    """Raise if the lower precision costs more accuracy than allowed."""
    print(f"Held-out accuracy: {after} in {options.precision}, {before} in float32")
    if (before.right - after.right) / before.count > options.max_accuracy_drop:
        raise TrainingError(
            f"{name} is not exported: of the held-out examples it has {after} right in {options.precision}, and "
            f"{before} in float32. {options.max_accuracy_drop:.2%} less is allowed (--max-accuracy-drop). "
            "Nothing was written."
        )


def max_batch_size(shape: Sequence[int]) -> int:
    """For rows of that shape."""
    return max(1, min(MAX_BATCH_SIZE, MAX_BATCH_VALUES // math.prod(shape)))


def sizes(made: Made, options: ExportOptions) -> str:
    """Of the file; of a lower precision also what it was in float32."""
    if made.graph is made.plain:
        return f"{size(made.plain)} in float32"
    return f"{size(made.graph)} in {options.precision} ({size(made.plain)} in float32)"


def size(graph: bytes) -> str:
    """For people."""
    return f"{len(graph) / 1e6:.1f} MB" if len(graph) >= 1e6 else f"{len(graph) / 1e3:.0f} kB"


def libraries() -> str:
    """That took part, and their versions."""
    used = {**versions(), "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    return ", ".join(f"{library} {number}" for library, number in used.items())
