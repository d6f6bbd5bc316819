"""The seam between the server and whatever computes. Two small Protocols; `tests/fakes.py` has the public fake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from server.backends.loading import LoadAttempt
from server.tensors import Array, DataType

RUN_LOG_SEVERITY = 4
"""ONNX Runtime's "fatal": what goes wrong in a run is raised, and its own log would quote elements of tensors."""


class GraphTensor(NamedTuple):
    """One input or output as the model file declares it."""

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    """The full shape, batch axis included; -1 where the dimension is free."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What a model's configuration may decide about its session."""

    intra_op_threads: int
    """Threads that share one operator, at least 1."""
    inter_op_threads: int = 1
    """Threads that run operators beside each other; only used with `parallel_operators`."""
    parallel_operators: bool = False
    memory_arena: bool = True
    memory_pattern: bool = True
    graph_optimization_level: int | None = None
    """Triton's numbers: -1 basic, 1 extended, 2 none; None optimises fully."""
    entries: tuple[tuple[str, str], ...] = ()
    """ONNX Runtime's session configuration entries, `session.*`, by key."""
    arena_shrinkage: str = ""
    """Arenas that give unused memory back after every run: "cpu:0", "cpu:0;gpu:0"; empty: none."""
    op_libraries: tuple[Path, ...] = ()
    """Shared libraries with operators of the model's own."""
    cache_optimized_model: bool = False
    """Whether the optimised graph is kept on disk, and taken from there the next time."""
    folder: Path | None = None
    """No file outside of it is opened for the model; None: the model file's own folder."""
    device: int | None = None
    """The GPU, counted from 0; None: the CPU."""
    providers: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (("CPUExecutionProvider", ()),)
    """ONNX Runtime's execution providers with their options, the first one preferred."""
    cuda_graphs: bool = False
    """Whether runs are recorded and replayed, one recording for each set of input shapes."""
    pinned_memory: bool = True
    """Whether inputs for a GPU are staged in page-locked memory."""


@dataclass(frozen=True, slots=True)
class Devices:
    """What a backend can run on, besides the CPU."""

    providers: frozenset[str] = frozenset()
    """Execution providers that are built in; the device that one needs may still be missing."""
    gpu_count: int = 0
    gpu_problem: str = ""
    """Why there is no GPU."""


class Session(Protocol):
    """A loaded model. `run` may be called from several threads at once."""

    @property
    def fixed_shapes(self) -> bool:
        """Whether it runs best on few batch sizes, so that filling batches up is worth it."""
        ...

    @property
    def inputs(self) -> tuple[GraphTensor, ...]: ...

    @property
    def outputs(self) -> tuple[GraphTensor, ...]: ...

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run one batch and return one array for each name in `outputs`, in that order.

        BYTES tensors are object arrays of `str`; BF16 tensors are their bits as uint16. Inputs are read before the
        call returns, outputs are the caller's to keep. Raises `OutOfMemory` where the run finds no memory, and any
        other exception where it fails.
        """
        ...

    def for_instance(self) -> Session:
        """What one instance runs: the same weights, with working memory of its own where the session has any."""
        ...

    def interruptible(self) -> Session:
        """The same weights for one lane alone, so that `interrupt` ends that lane's runs and nobody else's."""
        ...

    def interrupt(self) -> None:
        """End the runs in progress as soon as may be, and every later one at once: they raise. From any thread.

        A run that does not look up from what it does goes on.
        """
        ...

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Memory for inputs, of the kind that reaches the device fastest; its content is arbitrary."""
        ...


class Backend(Protocol):
    """Opens model files."""

    def devices(self) -> Devices:
        """What models can run on."""
        ...

    def load(self, path: Path, options: SessionOptions, attempt: LoadAttempt) -> Session:
        """Open the model at `path`, as part of a load that can be interrupted. Raises `LoadFailed` naming the file and
        the reason. Runs on a thread of its own."""
        ...
