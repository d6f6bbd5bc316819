"""What travels between the rooms of the server: requests, answers, tensors. Wire formats stay in `frontends`.

A request is split into what decides its treatment (`specs`, `outputs`: hashable, often the same from call to call)
and what differs every time (`buffers`), so that validation can be remembered per shape instead of repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from server.records import Record
from server.tensors import Array, Buffer, DataType, Stored


class TensorSpec(NamedTuple):
    """One tensor's name, datatype and full shape (batch axis included), as the caller states them."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class RequestedOutput(NamedTuple):
    """One output that the caller asks for."""

    name: str
    classification: int = 0
    """The number of top classes to answer as "value:index[:label]" strings; 0 answers the tensor itself."""


class SequenceFlags(NamedTuple):
    """Which sequence a request belongs to, for models that keep something from one request to the next."""

    id: int | str
    """0 and "" are no sequence."""
    start: bool = False
    end: bool = False


class SharedPlace(NamedTuple):
    """Where a tensor lies in memory that callers registered. As the caller says, so perhaps nowhere."""

    region: str
    offset: int
    """Bytes from the region's begin."""
    byte_size: int


class SharedPlaces(NamedTuple):
    """The tensors of a request that lie there."""

    inputs: tuple[SharedPlace | None, ...]
    """One for each of its `specs`; None for those whose data came with the request."""
    outputs: tuple[tuple[str, SharedPlace], ...]
    """By name, where their caller wants them."""


@dataclass(slots=True)
class InferenceRequest:
    """One inference for one model."""

    model_name: str
    model_version: str
    """As the caller wrote it; "" for the latest ready version."""
    request_id: str
    specs: tuple[TensorSpec, ...]
    buffers: tuple[Buffer | Array | Stored | None, ...]
    """One for each of `specs`: raw contents as bytes, or an array where the caller sent typed contents; None where
    the caller sent no data. Contents that lie in shared memory are never BYTES."""
    outputs: tuple[RequestedOutput, ...] = ()
    """Empty asks for all outputs."""
    timeout_us: int = 0
    """The most that the request may spend in the queue; 0 leaves it to the model's queue policy."""
    priority: int = 0
    """1 is the most urgent; 0 takes the model's default level."""
    deadline: float = inf
    """The caller's own deadline on the monotonic clock, seconds."""
    sequence: SequenceFlags | None = None
    shared: SharedPlaces | None = None
    """Its tensors in shared memory; None where it has none, or has them already."""
    record: Record | None = None
    """Where what happens to it is noted, if somebody watches."""
    headers: Mapping[str, str] | None = None
    """Those of its caller's that the operator forwards: parameters, in Triton's words."""

    def label(self) -> str:
        """The prefix that Triton gives to errors about one request."""
        return f"[request id: {self.request_id or '<id_unknown>'}] "

    def log_fields(self, version: str = "") -> dict[str, str]:
        """What a line of the log about it carries beside its message. `version` is the one that took it, if known."""
        return {
            "request_id": self.request_id,
            "model": self.model_name,
            "version": version or self.model_version,
            "trace_id": self.record.trace_text if self.record is not None else "",
        }


@dataclass(slots=True)
class OutputTensor:
    """One tensor of an answer; `data` has `shape` and may be a view on a whole batch's output."""

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    data: Array


@dataclass(slots=True)
class InferenceResponse:
    """The answer to one request."""

    model_name: str
    model_version: str
    request_id: str
    outputs: list[OutputTensor] = field(default_factory=list)
    places: tuple[SharedPlace | None, ...] = ()
    """For each output, where it was written to; None for those that go with the answer, () where all do."""
