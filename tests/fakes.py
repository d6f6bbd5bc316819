"""Typed fakes of the server's seams, and small helpers shared by tests. Tested themselves in unit/test_fakes.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import numpy as np

from server import tensors
from server.backends.base import GraphTensor, SessionOptions
from server.errors import LoadFailed
from server.frontends.calls import StatusCode
from server.scheduling.queue import Ticket
from server.tensors import Array


class NamedTicket(Ticket):
    """A ticket that prints as its name."""

    __slots__ = ("name",)

    def __init__(
        self, name: object, rows: int = 1, signature: object = None, arrived: float = 0.0, deadline: float = inf
    ) -> None:
        super().__init__(rows, signature, arrived, deadline)
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"


def names(tickets: Sequence[NamedTicket]) -> list[object]:
    return [ticket.name for ticket in tickets]


class PuppetLane:
    """A lane in virtual time: records its batches and finishes each after `seconds`, with `outcome(batch)`."""

    def __init__(
        self, seconds: float = 1.0, outcome: Callable[[Sequence[NamedTicket]], object] = list
    ) -> None:
        self.seconds = seconds
        self.outcome = outcome
        self.batches: list[tuple[float, list[object]]] = []
        self.closed = False
        self.busy = False

    def submit(self, batch: Sequence[NamedTicket], done: Callable[[object], None]) -> None:
        assert not self.busy, "a lane was given a batch while it ran another"
        self.busy = True
        loop = asyncio.get_running_loop()
        self.batches.append((loop.time(), names(batch)))
        loop.call_later(self.seconds, self._finish, batch, done)

    def close(self) -> None:
        self.closed = True

    def _finish(self, batch: Sequence[NamedTicket], done: Callable[[object], None]) -> None:
        self.busy = False
        try:
            outcome = self.outcome(batch)
        except Exception as error:  # noqa: BLE001 -- as a real lane hands it over
            outcome = error
        done(outcome)


def fp32(name: str, *shape: int) -> GraphTensor:
    return GraphTensor(name, tensors.FP32, shape)


class PuppetSession:
    """A backend session that runs a Python function on every batch and remembers what it was given."""

    def __init__(
        self,
        inputs: Sequence[GraphTensor],
        outputs: Sequence[GraphTensor],
        function: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    ) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.function = function
        self.shapes: list[dict[str, tuple[int, ...]]] = []
        self.asked: list[tuple[str, ...]] = []

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        self.shapes.append({name: array.shape for name, array in inputs.items()})
        self.asked.append(tuple(outputs))
        results = self.function(inputs)
        return [np.asarray(results[name]) for name in outputs]


@dataclass
class PuppetBackend:
    """Opens files by looking their text up among `sessions`; any other file cannot be loaded."""

    sessions: dict[str, PuppetSession] = field(default_factory=dict)
    opened: list[tuple[Path, SessionOptions]] = field(default_factory=list)

    def load(self, path: Path, options: SessionOptions) -> PuppetSession:
        self.opened.append((path, options))
        session = self.sessions.get(path.read_text())
        if session is None:
            raise LoadFailed(f"{path}: not a model")
        return session


@dataclass
class FakeCall:
    """A `frontends.calls.Call` that records how it ended."""

    deadline: float = inf
    metadata: Mapping[str, str | bytes] = field(default_factory=dict)
    on_cancel: Callable[[], None] | None = None
    sent: list[bytes] = field(default_factory=list)
    status: StatusCode | None = None
    message: str = ""

    def reply(self, message: bytes) -> None:
        self.send(message)
        self.finish()

    def send(self, message: bytes) -> None:
        assert self.status is None, "a message after the end of the call"
        self.sent.append(message)

    def finish(self) -> None:
        self._end(StatusCode.OK, "")

    def fail(self, status: StatusCode, message: str) -> None:
        self._end(status, message)

    def _end(self, status: StatusCode, message: str) -> None:
        assert self.status is None, "a call ended twice"
        self.status, self.message = status, message
