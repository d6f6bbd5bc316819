"""Proof that ONNX Runtime computes what torch computes: the same inputs to both, and no difference worth the name.

Differences are parts of the greatest answer of their batch: probabilities of 1 and scores of 20 are held to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.files import TrainingError

TOLERANCE = 1e-4
"""Of float32, whatever the network."""
TRAINED_TOLERANCE = 1e-5
"""Of the probabilities of a trained network, the greatest of which is near 1."""
HALF_TOLERANCE = 1e-2
"""Of float16: each step rounds to a part in 2,048, and a deep network has a hundred steps."""

Reference = Callable[[Tensor], Tensor]
"""What the exported graph must agree with."""
Probe = tuple[str, Tensor]
"""What a batch of inputs is ("random", "real"), and the batch."""


@dataclass(frozen=True, slots=True)
class Difference:
    """ONNX Runtime against torch on one batch."""

    worst: float
    """Greatest absolute difference as a part of the greatest answer; NaN where either side is."""
    batch: int
    inputs: str
    """What they are."""

    def __str__(self) -> str:
        return f"{self.worst:.1e} (batch {self.batch}, {self.inputs} inputs)"


class Runner:
    """A graph in ONNX Runtime on the CPU, with one input; its first output is the answer."""

    def __init__(self, graph: bytes, threads: int | None = None, *, as_written: bool = False) -> None:
        """`as_written`: node by node, without what ONNX Runtime makes of several nodes."""
        options = onnxruntime.SessionOptions()
        if as_written:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3  # what it optimises away is nobody's business
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: Tensor) -> NDArray[np.float32]:
        """The answer to one batch."""
        return np.asarray(self._session.run(None, {self._input: images.numpy()})[0], dtype=np.float32)

    def all(self, images: Tensor) -> dict[str, NDArray[Any]]:
        """All outputs, by name."""
        values = self._session.run(None, {self._input: images.numpy()})
        return {output.name: value for output, value in zip(self._session.get_outputs(), values, strict=True)}


def random_inputs(shape: Sequence[int], batch: int, seed: int, real: Tensor | None, dtype: torch.dtype) -> Tensor:
    """A batch of noise: bytes, or float32 from the least to the greatest of `real` values (0 to 1 without)."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.uint8:
        return torch.randint(0, 256, (batch, *shape), dtype=torch.uint8, generator=generator)
    low, high = (0.0, 1.0) if real is None else (real.min().item(), real.max().item())
    return torch.rand(batch, *shape, generator=generator) * (high - low) + low


def probes(
    shape: Sequence[int],
    batches: Sequence[int],
    *,
    real: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    other_shapes: Sequence[Sequence[int]] = (),
) -> Iterator[Probe]:
    """Random inputs, and as many `real` ones (over again, if they are few), at each batch size; then other shapes."""
    for batch in batches:
        yield "random", random_inputs(shape, batch, batch, real, dtype)
        if real is not None:
            yield "real", real[torch.arange(batch) % len(real)]
    for other in other_shapes:
        size = "×".join(map(str, other))
        yield f"random {size}", random_inputs(other, 2, 0, real, dtype)


def compare(name: str, graph: bytes, reference: Reference, inputs: Iterator[Probe]) -> list[Difference]:
    """Run both on each batch."""
    run = Runner(graph)
    differences = []
    for kind, images in inputs:
        with torch.no_grad():
            expected: Any = reference(images).numpy()
        greatest = np.abs(expected).max()
        if greatest == 0:
            raise TrainingError(f"{name} is not exported: it answers 0 to everything, which proves nothing.")
        worst = float(np.abs(run(images) - expected).max() / greatest)
        differences.append(Difference(worst, len(images), kind))
    return differences


def worst_of(name: str, differences: Sequence[Difference], tolerance: float) -> Difference:
    """The greatest difference; raise unless all are within the tolerance. NaN is not."""
    beyond = [difference for difference in differences if not difference.worst <= tolerance]
    if beyond:
        raise TrainingError(
            f"{name} is not exported: ONNX Runtime and torch differ by {', '.join(map(str, beyond))} of the greatest "
            f"answer; {tolerance:.0e} is allowed. Nothing was written. "
            "Look for an operator that the exporter translates wrongly."
        )
    return max(differences, key=lambda difference: difference.worst)
