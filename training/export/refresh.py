"""A version that is there already, evaluated and timed again: its card says what is true here and now.

What only training and export can know (seed, epochs, agreement with torch) stays as the card has it.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import onnxruntime

from training import recipes
from training.data import DATA_SETS
from training.export.card import Card, Score, Timing, read_card
from training.export.card_text import render
from training.export.measure import accuracy, latencies, machine
from training.export.pixels import Scaling
from training.export.publish import max_batch_size, timed_batches
from training.export.repository import CARD_FILENAME, newest_version
from training.export.run import examples_of
from training.export.source import Inputs
from training.export_options import INPUTS
from training.files import TrainingError, write_atomically


def refresh_card(repository: Path, name: str, version: int | None, data_dir: Path | None = None) -> Card:
    """Write `card.json` of the version (default: the newest) anew, and README.md where it is of the newest.

    `data_dir` is for a data set that is not built in. Raises TrainingError for a version without a card, without a run
    that made it, or of other classes than the data has.
    """
    model = repository / name
    newest = newest_version(model)
    folder = model / str(version or newest)
    card = read_card(folder)
    if card.training is None:
        raise TrainingError(f"{folder}: its weights are from elsewhere, and no data came with them to evaluate it on.")
    recipe = recipes.find(card.training.recipe)
    data_set = DATA_SETS[recipe.data]
    data = data_set.open(data_dir)
    if data.names != card.labels:
        raise TrainingError(
            f"{folder} knows the classes {', '.join(card.labels)}; the data has {', '.join(data.names)}."
        )
    examples = examples_of(data)
    depth, height, width = shape = examples.images.shape[1:]
    scaling = Scaling.of(data_set.pictures, depth) if card.input.name == INPUTS["pixels"] else None
    inputs = Inputs(scaling, (depth, height, width), None)
    graph = (folder / "model.onnx").read_bytes()
    found = accuracy(graph, inputs.held_out(examples, max_batch_size(shape)), len(card.labels))
    medians = latencies(graph, inputs.prepared(examples.images[:1]), timed_batches(shape), recipe.threads)
    today = datetime.now(UTC).date().isoformat()
    card = dataclasses.replace(
        card,
        accuracy=Score.from_accuracy(found),
        confusion=found.rows(),
        latency=Timing(machine(recipe.threads), onnxruntime.__version__, today, {card.file.precision: tuple(medians)}),
    )
    write_atomically(folder / CARD_FILENAME, card.to_json())
    if card.version == newest:
        write_atomically(model / "README.md", render(card).encode())
    return card
