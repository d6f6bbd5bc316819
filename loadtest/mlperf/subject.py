"""The model that is asked: requests made from what the server says of it, one answer checked, and what it counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtest.http_v2 import RestTarget, encode_request, model_path
from loadtest.open_loop import GrpcTraffic, HttpTraffic, Traffic, framed
from loadtest.payload import Shape, Workload
from loadtest.processes import our_server, running
from loadtest.target import INFER, Target
from proto import grpc_service_pb2 as pb

PROTOCOLS = ("grpc", "http")
_IN_FLIGHT_BYTES = 256 << 20
_FEWEST_IN_FLIGHT = 64
_DEFAULT_CONNECTIONS = {"grpc": 4, "http": 64}


@dataclass(frozen=True)
class Wanted:
    """What is to be asked, and where."""

    model: str
    protocol: str
    shapes: dict[str, Shape]
    url: str | None
    """"host:port" of a running server; None starts one that serves `model_repository`."""
    model_repository: Path
    out: Path
    connections: int | None
    """Of each process; None for the protocol's own number."""


@dataclass(frozen=True)
class Subject:
    """A model on a server that runs."""

    traffic: Traffic
    most_in_flight: int
    """That do not take too much memory."""
    counts: Target | None
    """Asks the server what it has counted; None over HTTP."""
    model: str

    def successes(self) -> int | None:
        """What the server has counted so far; None where it is not asked."""
        return self.counts.counts(self.model).successes if self.counts else None


@contextmanager
def subject(wanted: Wanted) -> Iterator[Subject]:
    """Starts a server where none is given. An answer that is wrong is a WrongAnswerError."""
    with ExitStack() as stack:
        address = wanted.url
        if address is None:
            print("mlperf: starting a fresh server", flush=True)
            server = stack.enter_context(running(our_server(wanted.model_repository), wanted.out, "server"))
            address = f"127.0.0.1:{server.ports[wanted.protocol]}"
        yield stack.enter_context(_at(wanted, address))


@contextmanager
def _at(wanted: Wanted, address: str) -> Iterator[Subject]:
    connections = wanted.connections or _DEFAULT_CONNECTIONS[wanted.protocol]
    if wanted.protocol == "http":
        rest = RestTarget(f"http://{address}")
        asked = rest.workload(wanted.model, wanted.shapes)
        asked.check_response(rest.answer(asked.bodies[0]))
        yield Subject(http_traffic(address, asked, connections), _in_flight(asked), None, wanted.model)
        return
    with Target(address) as target:
        asked = target.workload(wanted.model, wanted.shapes)
        asked.check(target.answer(asked.bodies[0]))
        traffic = GrpcTraffic(address, INFER, framed(asked.bodies), connections)
        yield Subject(traffic, _in_flight(asked), target, wanted.model)


def http_traffic(address: str, asked: Workload, connections: int) -> HttpTraffic:
    """The requests of `asked` with binary tensors."""
    requests = [encode_request(pb.ModelInferRequest.FromString(body)) for body in asked.bodies]
    headers, _ = requests[0]  # the others' are the same: the requests differ in their values alone
    path = f"{model_path(asked.model)}/infer"
    return HttpTraffic(address, path, tuple(body for _, body in requests), tuple(headers.items()), connections)


def _in_flight(asked: Workload) -> int:
    return max(_FEWEST_IN_FLIGHT, _IN_FLIGHT_BYTES // len(asked.bodies[0]))
