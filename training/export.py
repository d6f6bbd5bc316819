"""From a run to a served model: ONNX, proof that ONNX Runtime computes what torch computes, and only then files.

    python -m training export lenet5 [--repository model_repository] [--name lenet5] [--version N]

    <repository>/<name>/
      config.pbtxt          an existing one is its owner's, and stays
      labels.txt            one class a line; must be the same for all versions
      README.md             the model card, of the version exported last
      <version>/model.onnx  `input` (batch, C, H, W) float32 → `probabilities` (batch, classes) float32

Nothing half-written is ever visible: files are made in a hidden folder of the repository and renamed into place.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training import card, nets, runs
from training.data import DATA_SETS
from training.files import TrainingError, write_atomically

INPUT, OUTPUT = "input", "probabilities"
BATCH_SIZES = (1, 7, 64)
MAX_BATCH_SIZE = 64
TOLERANCE = 1e-5
"""Greatest absolute difference between ONNX Runtime's and torch's probabilities, float32."""
RELATIVE_TOLERANCE = 1e-4
"""For networks without data of their own: greatest difference as a part of the greatest answer."""

Reference = Callable[[Tensor], Tensor]
"""What the exported graph must agree with: (N, C, H, W) → (N, classes)."""


@dataclass(frozen=True, slots=True)
class Difference:
    """ONNX Runtime against torch on one batch."""

    worst: float
    """Greatest absolute difference; NaN where either side is."""
    batch: int
    inputs: str
    """"random" or "real"."""


class Probabilities(nn.Module):
    """Scores → softmax: what a client can show. The order of the classes stays as the scores have it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network(images)
        return scores.softmax(dim=1)


def export_run(
    folder: Path, repository: Path, name: str | None, version: int | None, data_dir: Path | None = None
) -> Path:
    """Export the run's network into the repository, and return the new version's folder.

    `data_dir` is where the data is now; None: where the run found it.
    """
    checkpoint = runs.load(folder)
    recipe = checkpoint.plan.recipe
    name = name or recipe.name
    data_set = DATA_SETS[recipe.data]
    held_out_images, held_out_labels, labels = data_set.held_out(data_dir or checkpoint.plan.data_folder)
    network = nets.build(recipe.network, len(labels))
    network.load_state_dict(checkpoint.network)
    model = Probabilities(network).eval()
    graph = to_onnx(model, held_out_images[:2])

    differences = compare(graph, model, held_out_images)
    refuse_disagreement(name, differences)
    worst = max(differences, key=lambda difference: difference.worst)
    parity = f"{worst.worst:.1e} (batch {worst.batch}, {worst.inputs} inputs)"
    print(f"ONNX Runtime agrees with torch: worst difference {parity}")

    answers = run_onnx(graph, held_out_images.numpy()).argmax(axis=1)
    shape = tuple(held_out_images.shape[1:])
    text = card.render(
        name=name,
        checkpoint=checkpoint,
        data_set=data_set,
        classes=len(labels),
        shape=shape,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        right=int((answers == held_out_labels.numpy()).sum()),
        count=len(answers),
        parity=f"{parity}; {TOLERANCE:.0e} is allowed",
        today=datetime.now(UTC).date(),
    )
    settings = config(name, shape, (len(labels),), recipe.threads, data_set.pictures)
    target = write_version(repository, name, version, graph, settings, labels, text)
    print(f"{target / 'model.onnx'}: {len(graph) / 1000:.0f} kB")
    return target


def to_onnx(model: nn.Module, example: Tensor, output: str = OUTPUT) -> bytes:
    """One self-contained, checked ONNX file with a dynamic first axis named "batch". `example` has at least 2 rows."""
    # The exporter logs that torchvision is absent, and trips over a deprecation of torch's own.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        # An LSTM of torch's keeps its weights in a list too, and refreshes it when it is exported; its loop is traced
        # with tensors whose gradients torch then asks for.
        warnings.filterwarnings("ignore", r"The tensor attributes? .*_flat_weights", UserWarning)
        warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor", UserWarning)
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[output],
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    strip(proto)
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString(deterministic=True))


def strip(proto: onnx.ModelProto) -> None:
    """Drop the exporter's notes: they are longer than some graphs, and hold paths of the machine that exported."""
    graph = proto.graph
    for noted in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        noted.ClearField("metadata_props")


def compare(graph: bytes, reference: Reference, real: Tensor) -> list[Difference]:
    """Run both on random and on real inputs at each of `BATCH_SIZES`. `real` (N, C, H, W) has at least as many rows."""
    generator = np.random.default_rng(0)
    low, high = real.min().item(), real.max().item()
    differences = []
    for batch in BATCH_SIZES:
        random = generator.uniform(low, high, (batch, *real.shape[1:])).astype(np.float32)
        for kind, images in (("random", random), ("real", real[:batch].numpy())):
            with torch.no_grad():
                expected = reference(torch.from_numpy(images)).numpy()
            worst = float(np.abs(run_onnx(graph, images) - expected).max())
            differences.append(Difference(worst, batch, kind))
    return differences


def refuse_disagreement(name: str, differences: list[Difference]) -> None:
    """Raise unless each difference is within `TOLERANCE`; NaN is not."""
    beyond = [difference for difference in differences if not difference.worst <= TOLERANCE]
    if beyond:
        listed = ", ".join(f"{one.worst:.1e} (batch {one.batch}, {one.inputs} inputs)" for one in beyond)
        raise TrainingError(
            f"{name} is not exported: ONNX Runtime and torch differ by {listed}; {TOLERANCE:.0e} is allowed. "
            "Nothing was written. Look for an operator that the exporter translates wrongly."
        )


def compare_relatively(
    name: str, graph: bytes, reference: Reference, shape: Sequence[int], batches: Sequence[int] = (1, 2, 5)
) -> float:
    """The greatest difference on random inputs (C, H, W), as a part of the greatest answer; raise if out of bounds."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch in batches:
        images = torch.rand(batch, *shape, generator=generator)
        with torch.no_grad():
            expected = reference(images).numpy()
        difference = np.abs(np.asarray(session.run(None, {INPUT: images.numpy()})[0]) - expected).max()
        scale = np.abs(expected).max()
        if not scale > 0:
            raise TrainingError(f"{name} is not exported: it answers {scale:g} to everything, which proves nothing.")
        if not difference <= RELATIVE_TOLERANCE * scale:
            raise TrainingError(
                f"{name} is not exported: ONNX Runtime and torch differ by {difference:.1e} (batch {batch}) in answers "
                f"of up to {scale:.1e}; {RELATIVE_TOLERANCE:.0e} of that is allowed. Nothing was written."
            )
        worst = max(worst, float(difference / scale))
    return worst


def run_onnx(graph: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """ONNX Runtime's answer on the CPU. (N, C, H, W) → (N, classes)."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([OUTPUT], {INPUT: images})[0], dtype=np.float32)


def config(
    name: str,
    shape: Sequence[int],
    answer: Sequence[int],
    threads: int | None,
    pictures: Mapping[str, str] = MappingProxyType({}),
    *,
    output: str = OUTPUT,
    labelled: bool = True,
    max_batch_size: int = MAX_BATCH_SIZE,
) -> str:
    """config.pbtxt. Empty `dynamic_batching` is natural batching: a batch goes when an instance is idle.

    `shape` and `answer` are one row's. `threads` is how many the network is worth: what trains best on one is served
    best on one; None leaves it to the server. `pictures` are the parameters by which the server makes an input
    (C, H, W) of a picture; without them it takes tensors only.
    """
    threading = {} if threads is None else {"intra_op_thread_count": str(threads)}
    labels = '\n    label_filename: "labels.txt"' if labelled else ""
    layout = "\n    format: FORMAT_NCHW" if pictures else ""
    parameters = "".join(
        f'parameters {{\n  key: "{key}"\n  value {{ string_value: "{value}" }}\n}}\n'
        for key, value in {**threading, **pictures}.items()
    )
    return f"""\
name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: {max_batch_size}
input [
  {{
    name: "{INPUT}"
    data_type: TYPE_FP32{layout}
    dims: [ {", ".join(map(str, shape))} ]
  }}
]
output [
  {{
    name: "{output}"
    data_type: TYPE_FP32
    dims: [ {", ".join(map(str, answer))} ]{labels}
  }}
]
dynamic_batching {{ }}
{parameters}"""


def write_version(
    repository: Path,
    name: str,
    version: int | None,
    graph: bytes,
    config_text: str,
    labels: Sequence[str],
    card_text: str,
) -> Path:
    """Write one version (default: the next), and the model's folder around it if it is the first. Return its folder.

    Without `labels` there is no labels.txt.
    """
    if not name or name.startswith(".") or "/" in name:
        raise TrainingError(
            f"{name!r} cannot be a model's name: it is a folder's name, without a slash or a leading dot."
        )
    model = repository / name
    version = next_version(model) if version is None else version
    if version < 1:
        raise TrainingError(f"--version {version}: versions count from 1.")
    target = model / str(version)
    if target.exists():
        raise TrainingError(f"{target} exists. Choose another --version, or leave it out for {next_version(model)}.")
    labels_text = "".join(f"{label}\n" for label in labels)
    if (model / "labels.txt").exists() and (model / "labels.txt").read_text() != labels_text:
        raise TrainingError(f"{model / 'labels.txt'} names other classes than this run. Choose another --name.")

    repository.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=repository) as hidden:
        made = Path(hidden) / name
        write_atomically(made / str(version) / "model.onnx", graph)
        texts = {"config.pbtxt": config_text, "labels.txt": labels_text, "README.md": card_text}
        for file, text in texts.items():
            if text:
                write_atomically(made / file, text.encode())
        if not model.exists():
            os.rename(made, model)
            return target
        # The version last: a server that polls sees it only with all it needs around it.
        for file in ("config.pbtxt", "labels.txt"):
            if (made / file).exists() and not (model / file).exists():
                os.rename(made / file, model / file)
        os.rename(made / str(version), target)
        os.replace(made / "README.md", model / "README.md")
    return target


def next_version(model: Path) -> int:
    """One more than the highest numbered folder; 1 for a model that is not there."""
    if not model.exists():
        return 1
    return 1 + max((int(entry.name) for entry in model.iterdir() if entry.name.isdecimal()), default=0)
