"""What happened to one request that somebody watches: for its trace, and for its line in the access log.

Most requests have no record. One that has carries it from the frontend through the model and back; each room notes what
it knows, and the frontend hands the whole to whoever watches once the answer is out. Times are monotonic nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from server.errors import ConvoyError

GRPC, HTTP = "grpc", "http"


class TraceContext(NamedTuple):
    """Where a request belongs in somebody else's trace (W3C Trace Context)."""

    trace_id: int
    span_id: int
    sampled: bool
    state: str = ""
    """The header `tracestate`, as it came."""


class Computation(NamedTuple):
    """One run of the model that a request was part of."""

    start_ns: int
    input_end_ns: int
    infer_end_ns: int
    output_end_ns: int
    rows: int
    """Of all requests of the batch."""
    requests: int
    size: int
    """Rows that the model was given: `rows`, and those that filled up its bucket."""


class Record:
    """One request, from the frontend's first look at it to its answer. It is finished exactly once."""

    __slots__ = (
        "_finished",
        "arrived_ns",
        "cache",
        "computations",
        "context",
        "ended_ns",
        "error",
        "headers",
        "log_frequency",
        "method",
        "model",
        "protocol",
        "received_ns",
        "request_id",
        "rows",
        "started_ns",
        "status",
        "steps",
        "trace_id",
        "traced",
        "version",
    )

    def __init__(
        self,
        method: str,
        model: str,
        received_ns: int,
        finished: Callable[[Record, ConvoyError | None], None],
    ) -> None:
        self.method = method
        """The RPC, "ModelInfer"."""
        self.protocol = GRPC
        """What the request came over: `GRPC` or `HTTP`."""
        self.model = model
        self.version = ""
        """As the caller wrote it, until a model takes the request."""
        self.request_id = ""
        self.headers: Mapping[str, str] | None = None
        """The caller's that the operator forwards."""
        self.context: TraceContext | None = None
        """The caller's."""
        self.traced = False
        self.trace_id = 0
        """Of the trace that the request belongs to, the caller's or its own; 0 for none."""
        self.log_frequency = 0
        """Of the trace settings that the request was sampled by."""
        self.received_ns = received_ns
        self.arrived_ns = 0
        """When the model admitted the request; 0 where it did not."""
        self.started_ns = 0
        """When the request left the queue for a run; 0 where it never ran."""
        self.computations: list[Computation] = []
        """Several where a request was split, or ran again on its own after its batch had failed."""
        self.cache = ""
        """"hit" or "miss", where an answer came of a model with a response cache."""
        self.steps: Sequence[Record] = ()
        """Of an ensemble: what happened to the request of each step that was begun."""
        self.rows = 0
        self.ended_ns = 0
        self.error: ConvoyError | None = None
        self.status = (0, "OK")
        """The number and the name of the answer's status, in the words of the frontend."""
        self._finished = finished

    def admitted(self, version: str, rows: int, arrived_ns: int) -> None:
        """A model has taken the request; noted when it is done with it."""
        self.version = version
        self.rows = rows
        self.arrived_ns = max(arrived_ns, self.received_ns)

    def finish(self, error: ConvoyError | None = None) -> None:
        """The request is answered, or nobody waits for it any more."""
        self._finished(self, error)

    @property
    def trace_text(self) -> str:
        """`trace_id` as everybody writes it; "" for none."""
        return f"{self.trace_id:032x}" if self.trace_id else ""

    @property
    def queue_end_ns(self) -> int:
        """When waiting ended: with the first run, or with the request."""
        first = self.computations[0].start_ns if self.computations else self.started_ns
        return max(first or self.ended_ns, self.arrived_ns)
