"""The seam between the server and whatever computes. Two small Protocols; `tests/fakes.py` has the public fake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from server.tensors import Array, DataType


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


class Session(Protocol):
    """A loaded model. `run` may be called from several threads at once."""

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


class Backend(Protocol):
    """Opens model files."""

    def load(self, path: Path, options: SessionOptions) -> Session:
        """Open the model at `path`. Raises `LoadFailed` naming the file and the reason."""
        ...
