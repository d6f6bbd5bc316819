"""What clients do, and when, by a seed. Pure.

Each kind says how it may end. An end that it does not name is a fault of the server, or of this table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random


@dataclass(frozen=True)
class Kind:
    """Something that clients do."""

    name: str
    weight: int
    """How often, beside the others."""
    what: str
    """For the report."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Statuses that it may be refused with, each with a pattern that is in the sentence."""
    must_be_refused: bool = False

    def expects(self, status: str, message: str) -> bool:
        """Whether such a refusal is one that the kind provokes."""
        pattern = self.refusals.get(status)
        return pattern is not None and re.search(pattern, message) is not None


_GONE = {"NOT_FOUND": "has no available versions$", "UNAVAILABLE": "not ready|unload"}
_SPOILT = (
    "data-type is|batch-size must be <=|byte size mismatch|unexpected shape|unexpected inference input|START flag|"
    "the message is not a ModelInferRequest|failed to parse the request JSON"
)
_UNKNOWN = "unknown model: '.*' is not found$"

KINDS: tuple[Kind, ...] = (
    Kind("grpc_unary", 20, "ModelInfer, all models"),
    Kind("grpc_stream", 8, "ModelStreamInfer: up to 8 messages on a stream, all models"),
    Kind("grpc_sequence", 6, "a sequence of up to 8 requests on a stream, or one by one"),
    Kind("http_json", 8, "HTTP, tensors in JSON, all models"),
    Kind("http_binary", 12, "HTTP, binary tensors, all models"),
    Kind("triton_grpc", 8, "tritonclient.grpc.aio, all models"),
    Kind("triton_http", 6, "tritonclient.http.aio, all models"),
    Kind("large_grpc", 2, "one row of a megabyte over gRPC"),
    Kind("large_http", 2, "one row of a megabyte over HTTP"),
    Kind("slow_reader", 1, "the same, its answer read over a second"),
    Kind("shared_memory", 3, "a region is registered, used for input and output, and unregistered"),
    Kind("new_connection", 4, "a connection of its own for one request, gRPC or HTTP"),
    Kind("broken_connection", 3, "a connection that ends in the middle of a request, gRPC or HTTP"),
    Kind("cancelled", 3, "cancelled after 0 to 100 ms, gRPC unary and stream", {"CANCELLED": ""}),
    Kind("departed", 2, "an HTTP client that closes its connection instead of reading its answer", {"CANCELLED": ""}),
    Kind("expired", 3, "a gRPC deadline of 1 to 100 ms", {"DEADLINE_EXCEEDED": ""}),
    Kind("timed_out", 3, "a `timeout` of 1 to 100 ms", {"UNAVAILABLE": "^Request timeout expired$"}),
    Kind(
        "invalid_grpc",
        4,
        "wrong model, datatype, size, shape, rows, input, or a sequence that nobody began",
        {"INVALID_ARGUMENT": _SPOILT, "NOT_FOUND": _UNKNOWN},
        must_be_refused=True,
    ),
    Kind(
        "invalid_http",
        4,
        "the same over HTTP, JSON that is none, and routes that do not exist",
        {"400": _SPOILT, "404": f"{_UNKNOWN}|^no route "},
        must_be_refused=True,
    ),
    Kind("fleeting", 4, "a model that is being unloaded and loaded", _GONE),
    Kind("reload", 1, "RepositoryModelLoad with another configuration, beside its own requests"),
    Kind("turnover", 1, "RepositoryModelUnload, RepositoryModelLoad"),
    Kind("scrape", 2, "the metrics page, plain, compressed or OpenMetrics"),
    Kind("control", 3, "health, metadata, configuration, statistics, index"),
)
CROWD = ("large_grpc", "large_http", "triton_grpc", "triton_http")
"""What all begins at the start."""
KIND_BY_NAME = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True)
class Planned:
    """One thing to do."""

    due_s: float
    """After the start."""
    kind: str
    seed: int
    """Decides everything else about it."""


def schedule(seed: int, part: int, parts: int, *, rate: float, seconds: float, in_flight: int) -> Iterator[Planned]:
    """What the process `part` of `parts` does in `seconds`, in order of time; `rate` per second is of all together.

    At first a crowd of `in_flight`: the memory and the connections that the most at once can take are taken in the
    warm-up, also where nothing stalls there. The same arguments give the same plan; parts differ.
    """
    random = Random(f"{seed}/{part}")
    for number in range(in_flight):
        yield Planned(0.0, CROWD[number % len(CROWD)], random.getrandbits(63))
    names, weights = [kind.name for kind in KINDS], [kind.weight for kind in KINDS]
    for number in range(int(seconds * rate / parts)):
        (name,) = random.choices(names, weights)
        yield Planned((number + part / parts) * parts / rate, name, random.getrandbits(63))
