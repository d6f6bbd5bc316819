"""What an adapter is made of."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

Tensor = npt.NDArray[np.float32]

PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Subject:
    """A model that all servers serve: one float32 tensor in, one out, the first axis of both is the batch."""

    name: str
    title: str
    file: Path
    """The model.onnx."""
    input: str
    output: str
    shape: tuple[int, ...]
    """Of one row of the input."""
    row_values: int
    """How many values one row of the output has."""
    max_batch: int
    threads: int
    """Of ONNX Runtime, in every server."""
    window_us: int = 1_000
    """How long a batch may wait for more requests, where a server cannot do without such a window."""


@dataclass(frozen=True)
class Call:
    """One kind of request. The same bytes of a tensor always make a request of the same length."""

    http1: bool
    """HTTP/1.1; else gRPC."""
    path: str
    headers: tuple[tuple[str, str], ...]
    body: Callable[[Tensor], bytes]
    """From one row, in the model's own shape, to the body of a request; for gRPC, the message without its frame."""
    values: Callable[[bytes], Tensor]
    """From the body of an answer to the row of the output, flat. ValueError, or a kin of it, where it is none."""
    fixed_size: bool
    """Whether all answers have one length: not so where numbers are written in decimal."""


@dataclass(frozen=True)
class Serving:
    """What a server is started with."""

    subject: Subject
    python: Path
    """The interpreter of the peer's environment."""
    scratch: Path
    """A folder of its own, which is empty and goes with the turn. Its path is short: sockets are made in it."""
    ports: Mapping[str, int]
    """Free ones: "grpc", "http", "metrics"."""
    row: Tensor
    """The request of all volleys."""
    answer: Tensor
    """And what ONNX Runtime computes from it."""

    def environment(self) -> dict[str, str]:
        """Variables for the programs in `programs/`. What a peer leaves at home or in /tmp goes with the scratch."""
        subject = self.subject
        served = {
            "name": subject.name,
            "file": str(subject.file.resolve()),
            "input": subject.input,
            "output": subject.output,
            "shape": subject.shape,
            "row_values": subject.row_values,
            "max_batch": subject.max_batch,
            "threads": subject.threads,
            "window_us": subject.window_us,
            "ports": dict(self.ports),
        }
        scratch = str(self.scratch)
        return {"SERVED_MODEL": json.dumps(served), "PYTHONPATH": str(PROGRAMS), "HOME": scratch, "TMPDIR": scratch}


@dataclass(frozen=True)
class Launch:
    """A command and the variables that it needs besides those of this process."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """A server as the side-by-side benchmark knows it."""

    name: str
    """Of its files."""
    title: str
    protocol: str
    """"gRPC" or "HTTP/1.1"."""
    call: Callable[[Subject], Call]
    launch: Callable[[Serving], Launch]
    configuration: str
    """For the report: how it batches, and with which flags."""
    packages: tuple[str, ...] = ()
    """Whose versions the report names."""
    requirements: Path | None = None
    """What its environment is made of; None: it runs in ours."""
    runs_model: bool = True
    """False: it answers every request with the same bytes."""
    ours: bool = False


def program(serving: Serving, name: str, **environment: str) -> Launch:
    """Starts a file of `programs/`."""
    command = (str(serving.python), str(PROGRAMS / name))
    return Launch(command, {**serving.environment(), **environment})


def free_ports() -> dict[str, int]:
    """Three ports that nobody listened on a moment ago."""
    with ExitStack() as stack:
        ports = {}
        for name in ("grpc", "http", "metrics"):
            holder = stack.enter_context(socket.socket())
            holder.bind(("127.0.0.1", 0))
            ports[name] = holder.getsockname()[1]
    return ports


def requirements(name: str) -> Path:
    """The pinned versions of a peer."""
    return Path(__file__).parent / "requirements" / f"{name}.txt"
