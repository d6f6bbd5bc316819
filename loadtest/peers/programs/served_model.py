"""The model that a peer's program serves, read from an environment variable, which its workers inherit.

Programs in this folder run in a peer's own virtual environment: numpy, ONNX Runtime and the peer, nothing of ours.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime

Tensor = npt.NDArray[np.float32]
VARIABLE = "SERVED_MODEL"


@dataclass(frozen=True)
class ServedModel:
    """One float32 tensor in, one out, the first axis of both is the batch."""

    name: str
    file: str
    """The model.onnx."""
    input: str
    output: str
    shape: tuple[int, ...]
    """Of one row of the input."""
    row_values: int
    """How many values one row of the output has."""
    max_batch: int
    threads: int
    """Of ONNX Runtime."""
    window_us: int
    """How long a batch may wait for more requests, where a peer cannot do without such a window."""
    ports: dict[str, int]

    def load(self) -> Callable[[Tensor], Tensor]:
        """A function from a batch of inputs to its outputs."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        # As our server does: on cores that are shared with the load generator, spinning threads only take from others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(self.file, options, providers=["CPUExecutionProvider"])

        def run(batch: Tensor) -> Tensor:
            answer: Tensor = session.run([self.output], {self.input: batch})[0]
            return answer

        return run

    def row(self, data: bytes) -> Tensor:
        """One row of the input from its bytes."""
        return np.frombuffer(data, np.float32).reshape(self.shape)


def served_model() -> ServedModel:
    """What SERVED_MODEL says."""
    fields = json.loads(os.environ[VARIABLE])
    return ServedModel(**{**fields, "shape": tuple(fields["shape"])})
