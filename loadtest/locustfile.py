"""A Locust user that sends inference requests over gRPC, one after another, as fast as they are answered.

    locust -f loadtest/locustfile.py --headless --users 64 --spawn-rate 64 --run-time 60s --host H:P --model lenet5

What it sends is made from the model's own metadata. Each user has a connection of its own. An answer that is not right
counts as a failure, like a refusal. Locust rounds latencies to 1 ms below 100 ms, and more above.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import Any

import grpc
import grpc.experimental.gevent
from locust import User, events, stats, task
from locust.argument_parser import LocustArgumentParser

from loadtest.errors import LoadTestError, WrongAnswerError
from loadtest.payload import Workload, parse_shape
from loadtest.target import Target

# After Locust's import, which patches the standard library, and before the first channel.
grpc.experimental.gevent.init_gevent()

_REQUEST_SECONDS = 30.0


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_flags(parser: LocustArgumentParser, **_: Any) -> None:
    parser.add_argument("--model", default="lenet5", help="the model that is asked")
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME:DIM,DIM,...",
        help="whole shape of one input, batch axis included; else each variable dimension is 1; may be repeated",
    )


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def let_the_csv_catch_up(**_: Any) -> None:
    """Locust writes its CSV files once a second and not at the end: without a pause they lack the last second."""
    time.sleep(stats.CSV_STATS_INTERVAL_SEC + 0.1)


class InferenceUser(User):
    """One client with one connection and one request in flight."""

    workload: Workload | None = None
    """Shared by all users of the process; made by the first."""

    def on_start(self) -> None:
        self._target = Target((self.host or "").removeprefix("grpc://").removeprefix("http://"))
        if InferenceUser.workload is None:
            InferenceUser.workload = self._make_workload()
        self._workload = InferenceUser.workload
        self._bodies = itertools.cycle(self._workload.bodies)
        self._name = f"ModelInfer {self._workload.model}"

    def on_stop(self) -> None:
        self._target.close()

    @task
    def infer(self) -> None:
        body = next(self._bodies)
        answer = b""
        failure: Exception | None = None
        started = time.perf_counter()
        try:
            answer = self._target.infer(body, timeout=_REQUEST_SECONDS)
        except grpc.RpcError as error:
            failure = RuntimeError(f"{error.code().name}: {error.details()}")
        elapsed = time.perf_counter() - started
        if failure is None:
            try:
                self._workload.check(answer)
            except WrongAnswerError as wrong:
                failure = wrong
        self.environment.events.request.fire(
            request_type="grpc",
            name=self._name,
            response_time=elapsed * 1e3,
            response_length=len(answer),
            exception=failure,
            context={},
        )

    def _make_workload(self) -> Workload:
        options = self.environment.parsed_options
        assert options is not None, "Locust parses its options before it makes users"
        try:
            return self._target.workload(options.model, dict(parse_shape(text) for text in options.shape))
        except LoadTestError as error:
            logging.error("%s", error)
            self.environment.process_exit_code = 2
            assert self.environment.runner is not None, "users run in a runner"
            self.environment.runner.quit()
            raise
