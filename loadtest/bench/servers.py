"""What a workload measures: servers, started and checked, and the volley that is fired at each of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc

from loadtest.errors import LoadTestError
from loadtest.figures import Figures
from loadtest.h2load import H2load, Volley, frame
from loadtest.payload import Workload
from loadtest.processes import Running, our_server, running
from loadtest.target import Target

# Servers of ours are named for their engines.
NGHTTP2 = "nghttp2"
GRPCIO = "grpcio"
FLOOR = "bare grpc.aio"

_ANSWER_SECONDS = 30.0
_MIB = 1 << 20


@dataclass(frozen=True)
class Load:
    """What one volley is made of."""

    requests: int
    connections: int
    streams: int
    """In flight per connection."""


@dataclass(frozen=True)
class Plan:
    """What `bench` is asked to do. None where each workload has its own number."""

    model: str
    model_repository: Path
    out: Path
    rounds: int
    requests: int | None
    """In each round, per server."""
    connections: int | None
    streams: int | None
    idle_connections: int

    def load(self, *, requests: int, connections: int, streams: int) -> Load:
        """The load of a workload with these numbers of its own."""
        return Load(self.requests or requests, self.connections or connections, self.streams or streams)


@dataclass(frozen=True)
class Ours:
    """A server of ours, and a connection to ask it what it has counted."""

    server: Running
    target: Target
    model: str


@dataclass(frozen=True)
class Shot:
    """The same request for all servers of a workload, and how it is fired."""

    h2load: H2load
    load: Load
    workload: Workload
    body: Path
    """The framed request."""
    answer: Path
    """What the first server answered."""
    log: Path
    headers: Mapping[str, str] = field(default_factory=dict)
    """Beside those of gRPC itself."""

    def warm_up(self, server: Running) -> None:
        """Checks one answer of `server` in full, and fires a tenth of a volley."""
        with Target(server.address) as target:
            checked_answer(target, self.workload)
        self._fire(server, max(self.load.connections, self.load.requests // 10))

    def fire(self, server: Running) -> Figures:
        """One volley."""
        return self._fire(server, self.load.requests)

    def fire_counted(self, ours: Ours) -> Figures:
        """One volley at a server of ours, which must have counted it exactly."""
        before = ours.target.counts(ours.model)
        figures = self.fire(ours.server)
        counted = ours.target.counts(ours.model).since(before)
        if (counted.successes, counted.failures) != (self.load.requests, 0):
            raise LoadTestError(f"{self.load.requests} requests sent, but {ours.server.address} counted {counted}")
        return {**figures, "average_batch": counted.average_batch}

    def _fire(self, server: Running, requests: int) -> Figures:
        volley = partial(
            self.h2load.fire,
            server.address,
            self.body,
            requests=requests,
            connections=self.load.connections,
            streams=self.load.streams,
            log=self.log,
            more_headers=self.headers,
        )
        return weighed(server, requests, volley)


def weighed(server: Running, requests: int, volley: Callable[[], Volley]) -> Figures:
    """A volley of so many requests at `server`, and what it cost."""
    cpu_before = server.cpu_seconds()
    seen = volley()
    cpu_seconds = server.cpu_seconds() - cpu_before
    return {
        "requests_per_second": seen.requests_per_second,
        "cpu_us_per_request": cpu_seconds / requests * 1e6,
        "cores_used": cpu_seconds * seen.requests_per_second / requests,
        "client_cpu_us_per_request": seen.client_cpu_seconds / requests * 1e6,
        "p50_ms": seen.p50_ms,
        "p99_ms": seen.p99_ms,
        "peak_rss_mib": server.peak_rss_bytes() / _MIB,
    }


def start_ours(stack: ExitStack, plan: Plan, engine: str, *flags: str, name: str = "") -> Ours:
    """A fresh server of ours with this engine and these flags; its log is `name`'s or the engine's."""
    command = [*our_server(plan.model_repository, engine), *flags]
    server = stack.enter_context(running(command, plan.out, name or engine))
    return Ours(server, stack.enter_context(Target(server.address)), plan.model)


def start_floor(stack: ExitStack, plan: Plan, shot: Shot) -> Running:
    """The bare grpc.aio server, which answers what ours answered."""
    command = [sys.executable, "-m", "loadtest.floors.grpc_aio", "--answer", str(shot.answer)]
    return stack.enter_context(running(command, plan.out, "grpc_aio"))


def checked_answer(target: Target, workload: Workload) -> bytes:
    """What `target` answers to the first request of `workload`; raises WrongAnswerError unless it is right.

    A request that is refused, as one may be whose model has a time limit of less than a millisecond, is sent again.
    """
    give_up = time.monotonic() + _ANSWER_SECONDS
    while True:
        try:
            answer = target.infer(workload.bodies[0], timeout=_ANSWER_SECONDS)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() >= give_up:
                raise
        else:
            workload.check(answer)
            return answer


def prepare(plan: Plan, ours: Ours, load: Load) -> Shot:
    """The request for the model that `ours` serves, written to files in `plan.out` with the answer to it, checked."""
    workload = ours.target.workload(ours.model, {}, count=1)
    answer = checked_answer(ours.target, workload)
    shot = Shot(
        H2load.find(), load, workload, plan.out / "request.grpc", plan.out / "answer.pb", plan.out / "h2load.log"
    )
    shot.body.write_bytes(frame(workload.bodies[0]))
    shot.answer.write_bytes(answer)
    return shot


def model_file(plan: Plan) -> Path:
    """The ONNX file of the newest version, which is the one that is served."""
    files = (plan.model_repository / plan.model).glob("*/model.onnx")
    versions = {int(file.parent.name): file for file in files if file.parent.name.isdigit()}
    if not versions:
        raise LoadTestError(f"no VERSION/model.onnx in {plan.model_repository / plan.model}")
    return versions[max(versions)]
