"""The model card: what a user must know before trusting an exported model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import onnx
import onnxruntime

from training.data import DataSet
from training.runs import Checkpoint, command, default_folder, versions


def render(
    *,
    name: str,
    checkpoint: Checkpoint,
    data_set: DataSet,
    classes: int,
    shape: Sequence[int],
    parameters: int,
    right: int,
    count: int,
    parity: str,
    today: date,
) -> str:
    """Markdown. `shape` is one input's (C, H, W); `right` of `count` held-out examples are the exported graph's own."""
    plan = checkpoint.plan
    recipe, epochs = plan.recipe, len(checkpoint.history)
    before = f", after pre-training `{recipe.pretraining}` (`training/pretraining/`)" if recipe.pretraining else ""
    libraries = {**versions(), "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    return f"""\
# {name}

{data_set.task}

| | |
|---|---|
| network | `{recipe.network}`, {parameters:,} trainable parameters (`training/nets/`) |
| held-out accuracy | {right / count:.2%} ({right} of {count}), of this ONNX file in ONNX Runtime |
| ONNX Runtime against torch | worst absolute difference {parity} |
| training | recipe `{recipe.name}`, seed {plan.seed}, {epochs} epochs, on {plan.device}{before} |
| exported | {today.isoformat()}, with {", ".join(f"{library} {number}" for library, number in libraries.items())} |

## Input and output

`input` float32 (batch, {", ".join(map(str, shape))}) → `probabilities` float32 (batch, {classes}), in the
order of `labels.txt`.

{data_set.preprocessing}

The probabilities are the softmax of the network's scores. They order the classes well, but are not calibrated: they may
be near 1 for a wrong answer, and for a picture of something else altogether.

## Data

{data_set.source}
Licence of the data: {data_set.licence}
{data_set.split}

## Again

    {command(plan)}
    python -m training export {default_folder(recipe.name, plan.seed)} --name {name}
"""
