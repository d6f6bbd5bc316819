"""From a source to a version of a served model: graph, proof, measurements, and only then files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import onnx
import onnxruntime

from training.export.card import Agreement, Card, Exported, File, Score, Timing
from training.export.card_text import describe_preparation, describe_size, render
from training.export.graph import Served, to_onnx
from training.export.lower_precision import CALIBRATION_PICTURES, to_float16, to_int8
from training.export.measure import Accuracy, accuracy, latencies, machine
from training.export.parity import HALF_TOLERANCE, TOLERANCE, TRAINED_TOLERANCE, compare, probes, worst_of
from training.export.repository import CARD_FILENAME, MAX_BATCH_SIZE, Interface, choose_version, config, write_version
from training.export.source import Inputs, Source, refuse_impossible
from training.export_options import ExportOptions
from training.files import TrainingError
from training.runs import versions

MAX_BATCH_VALUES = 16 * 3 * 224 * 224
"""What `max_batch_size` lets a batch hold: 16 pictures of ImageNet's size, whose maps take a GB in VGG."""
TIMED_BATCHES = (1, 8, 32, 64)


@dataclass(frozen=True, slots=True)
class Made:
    """A graph that has passed."""

    graph: bytes
    plain: bytes
    """The same in float32; the same object, if that was asked for."""
    agreement: tuple[Agreement, ...]
    """With torch, by precision."""
    accuracy: Accuracy | None = None
    """Of `graph`; None: without data."""
    plain_accuracy: Accuracy | None = None
    """Of `plain`, where that is another one."""
    calibration_pictures: int | None = None


def publish(source: Source, repository: Path, version: int | None, options: ExportOptions) -> Path:
    """Export into the repository, and return the new version's folder; or raise TrainingError and write nothing."""
    refuse_impossible(source, options)
    inputs = Inputs.of(source, options)
    interface = inputs.interface(source, options)
    version = choose_version(repository, source.name, version, source.labels, interface)

    made = make(source, inputs, options)
    card = describe(source, inputs, interface, version, made, options)
    settings = config(
        source.name,
        interface,
        source.threads,
        inputs.pictures(source),
        labelled=bool(source.labels),
        max_batch_size=max_batch_size(source.shape),
    )
    files = {"model.onnx": made.graph, CARD_FILENAME: card.to_json()}
    target = write_version(repository, source.name, version, files, interface, settings, source.labels, render(card))
    print(f"{target / 'model.onnx'}: {describe_size(card.file)}")
    return target


def describe(
    source: Source, inputs: Inputs, interface: Interface, version: int, made: Made, options: ExportOptions
) -> Card:
    """What is known of the version; how long it takes is measured here."""
    batches = timed_batches(source.shape)
    graphs = {"float32": made.plain, options.precision: made.graph}
    medians = {
        name: tuple(latencies(graph, inputs.example[:1], batches, source.threads)) for name, graph in graphs.items()
    }
    today = datetime.now(UTC).date().isoformat()
    *commands, last = source.again
    return Card(
        name=source.name,
        version=version,
        task=source.task,
        network=source.network_name,
        parameters=sum(parameter.numel() for parameter in source.network.parameters()),
        labels=source.labels,
        training=source.training,
        weights=source.weights,
        accuracy=None if made.accuracy is None else Score.from_accuracy(made.accuracy),
        float32_accuracy=None if made.plain_accuracy is None else Score.from_accuracy(made.plain_accuracy),
        confusion=None if made.accuracy is None else made.accuracy.rows(),
        agreement=made.agreement,
        calibration_pictures=made.calibration_pictures,
        file=File(len(made.graph), options.precision, options.opset, len(made.plain)),
        exported=Exported(today, libraries()),
        input=interface.input,
        output=interface.output,
        preparation=describe_preparation(source.preparation, source.shape[0], inputs.scaling),
        latency=Timing(machine(source.threads), onnxruntime.__version__, today, medians),
        data=source.data,
        again=(*commands, " ".join([last, *options.flags()])),
    )


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
    found = [agreement(source, inputs, options, model, plain, "float32", TRAINED_TOLERANCE if trained else TOLERANCE)]
    graph, calibrated_on = plain, None
    if options.precision == "float16":
        graph = to_float16(plain)
        found.append(agreement(source, inputs, options, model, graph, "float16", HALF_TOLERANCE))
    elif options.precision == "int8":
        assert source.examples is not None
        pictures = inputs.prepared(source.examples.to_learn_from(CALIBRATION_PICTURES))
        graph, calibrated_on = to_int8(source.name, plain, pictures), len(pictures)
    if source.examples is None:
        return Made(graph, plain, tuple(found))
    largest = max_batch_size(source.shape)
    before = accuracy(plain, inputs.held_out(source.examples, largest), source.classes)
    if graph is plain:
        return Made(graph, plain, tuple(found), before)
    after = accuracy(graph, inputs.held_out(source.examples, largest), source.classes)
    refuse_loss(source.name, before, after, options)
    return Made(graph, plain, tuple(found), after, before, calibrated_on)


def agreement(
    source: Source,
    inputs: Inputs,
    options: ExportOptions,
    model: Served,
    graph: bytes,
    precision: str,
    tolerance: float,
) -> Agreement:
    """How well the graph agrees with torch; raise if not well enough."""
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
    return Agreement(precision, worst.worst, worst.batch, worst.inputs, tolerance)


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


def timed_batches(shape: Sequence[int]) -> list[int]:
    """Batch sizes that are measured for rows of that shape."""
    return [batch for batch in TIMED_BATCHES if batch <= max_batch_size(shape)]


def libraries() -> dict[str, str]:
    """That took part, and their versions."""
    return {**versions(), "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
