"""Locust users that send inference requests one after another, each as soon as the one before is answered.

What they send is made from the models' own metadata, or read from a folder. Each user has a connection of its own. An
answer that is not right counts as a failure, like a refusal.
"""

from __future__ import annotations

import queue
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import gevent
import grpc
import grpc.experimental.gevent
from gevent.lock import RLock
from locust import User, task
from locust.contrib.fasthttp import FastHttpUser
from locust.env import Environment
from locust.exception import StopUser

from loadtest.errors import LoadTestError, WrongAnswerError
from loadtest.http_v2 import JSON_LENGTH, RestTarget, decode_response, encode_request, model_path, refusal
from loadtest.payload import Workload
from loadtest.swarm.flags import shapes_of
from loadtest.swarm.mix import Mix, parse_models
from loadtest.swarm.recording import options_of, runner_of
from loadtest.target import Target
from proto import grpc_service_pb2 as pb

# After Locust's import, which patches the standard library, and before the first channel.
grpc.experimental.gevent.init_gevent()

REQUEST_SECONDS = 30.0
CANNOT_RUN = "cannot_run"
"""A message from whoever has users to whoever directs the test: why there can be none."""


class InferenceUser(User):
    """What all have in common. A subclass says how a model is asked."""

    abstract = True
    rpc: ClassVar[str]
    """What Locust's tables call it, before the model's name."""
    _mix: ClassVar[Mix | None] = None
    """Shared by all users of a class in a process; made by the first of a test."""
    _refused: ClassVar[bool] = False
    """Whether that one found out that there is nothing to send, and has said so."""
    _making = RLock()

    @classmethod
    def forget_workloads(cls) -> None:
        """A test begins, perhaps with other flags than the one before."""
        cls._mix, cls._refused = None, False

    def on_start(self) -> None:
        cls = type(self)
        with cls._making:
            if cls._mix is None and not cls._refused:
                try:
                    cls._mix = self._make_mix()
                except (LoadTestError, ValueError) as error:
                    cls._refused = True
                    runner_of(self.environment).send_message(CANNOT_RUN, str(error))
        self._mine = cls._mix

    def next(self) -> tuple[Workload, bytes]:
        """Whom to ask now, and what. Ends a user that has nothing to send: an error of `on_start` is traced."""
        if self._mine is None:
            raise StopUser
        return self._mine.next()

    def target(self) -> Target | RestTarget:
        """Who describes the models."""
        raise NotImplementedError

    def _make_mix(self) -> Mix:
        options = options_of(self.environment)
        shares = parse_models(options.model)
        workloads = workloads_for(self.target(), [share.model for share in shares], options.shape, options.samples)
        return Mix(workloads, [share.weight for share in shares])

    def report(self, workload: Workload, seconds: float, length: int, failure: Exception | None) -> None:
        """One request of ours to Locust's statistics, and to all who listen."""
        self.environment.events.request.fire(
            request_type="grpc",
            name=f"{self.rpc} {workload.model}",
            response_time=seconds * 1e3,
            response_length=length,
            exception=failure,
            context={},
        )


def workloads_for(target: Target | RestTarget, models: list[str], shapes: list[str], samples: str) -> list[Workload]:
    """What is sent to each model, as the flags say. Raises LoadTestError, and ValueError for a shape that is none."""
    if shapes and samples:
        raise LoadTestError("--shape is for random values: --samples have their own shapes")
    folder = Path(samples) if samples else None
    return [
        target.workload(model, shapes_of(shapes), samples=folder / model if folder and len(models) > 1 else folder)
        for model in models
    ]


class _GrpcUser(InferenceUser):
    abstract = True

    def on_start(self) -> None:
        self._target = Target((self.host or "").removeprefix("grpc://").removeprefix("http://"))
        super().on_start()

    def on_stop(self) -> None:
        self._target.close()

    def target(self) -> Target:
        return self._target


class GrpcUser(_GrpcUser):
    """ModelInfer over gRPC."""

    rpc = "ModelInfer"

    @task
    def infer(self) -> None:
        workload, body = self.next()
        answer = b""
        failure: Exception | None = None
        started = time.perf_counter()
        try:
            answer = self._target.infer(body, timeout=REQUEST_SECONDS)
        except grpc.RpcError as error:
            failure = _named(error)
        elapsed = time.perf_counter() - started
        if failure is None:
            try:
                workload.check(answer)
            except WrongAnswerError as wrong:
                failure = wrong
        self.report(workload, elapsed, len(answer), failure)


class GrpcStreamUser(_GrpcUser):
    """ModelStreamInfer over gRPC: one stream, and one request in flight on it. A broken stream is opened anew."""

    rpc = "ModelStreamInfer"

    def on_start(self) -> None:
        super().on_start()
        self._stream: _Stream | None = None

    def on_stop(self) -> None:
        self._end_stream()
        super().on_stop()

    @task
    def infer(self) -> None:
        workload, body = self.next()
        stream = self._stream = self._stream or _Stream(self._target)
        answer = b""
        failure: Exception | None = None
        started = time.perf_counter()
        try:
            answer = stream.ask(body)
        except (grpc.RpcError, StopIteration) as error:
            failure = _named(error) if isinstance(error, grpc.RpcError) else RuntimeError("the server ended the stream")
            self._end_stream()
        elapsed = time.perf_counter() - started
        if failure is None:
            failure = _wrong_with(workload, pb.ModelStreamInferResponse.FromString(answer))
        self.report(workload, elapsed, len(answer), failure)

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class _Stream:
    """A ModelStreamInfer call."""

    def __init__(self, target: Target) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._call = target.stream_infer(iter(self._requests.get, None))

    def ask(self, body: bytes) -> bytes:
        """The next answer. Raises RpcError, CANCELLED after REQUEST_SECONDS, and StopIteration at the stream's end."""
        give_up = gevent.spawn_later(REQUEST_SECONDS, self._call.cancel)
        try:
            self._requests.put(body)
            answer: bytes = next(self._call)
            return answer
        finally:
            give_up.kill(block=False)

    def close(self) -> None:
        self._requests.put(None)
        self._call.cancel()


class RestUser(InferenceUser, FastHttpUser):
    """POST /v2/models/MODEL/infer over HTTP/1.1, with binary tensors."""

    rpc = "infer"
    concurrency = 1
    network_timeout = REQUEST_SECONDS

    def __init__(self, environment: Environment) -> None:
        address = options_of(environment).http_host or self.host or ""
        self._url = self.host = address if "://" in address else f"http://{address}"
        super().__init__(environment)

    def target(self) -> RestTarget:
        return RestTarget(self._url)

    @task
    def infer(self) -> None:
        workload, body = self.next()
        headers, content = _as_http(body)
        with self.client.post(
            f"{model_path(workload.model)}/infer",
            name=f"{self.rpc} {workload.model}",
            data=content,  # type: ignore[arg-type]  # it takes bytes too
            headers=headers,
            catch_response=True,
        ) as response:
            failure = _rest_failure(workload, response)
            if failure is not None:
                response.failure(failure)


@lru_cache(maxsize=1024)
def _as_http(body: bytes) -> tuple[dict[str, str], bytes]:
    return encode_request(pb.ModelInferRequest.FromString(body))


def _rest_failure(workload: Workload, response: Any) -> Exception | None:
    if response.status_code == 0:
        return RuntimeError(f"no answer: {response.error}")
    if response.status_code != 200:
        return RuntimeError(refusal(response.status_code, response.content))
    try:
        workload.check_response(decode_response(response.headers.get(JSON_LENGTH), response.content))
    except WrongAnswerError as wrong:
        return wrong
    return None


def _wrong_with(workload: Workload, response: pb.ModelStreamInferResponse) -> Exception | None:
    if response.error_message:
        return RuntimeError(response.error_message)
    try:
        workload.check_response(response.infer_response)
    except WrongAnswerError as wrong:
        return wrong
    return None


def _named(error: grpc.RpcError) -> RuntimeError:
    return RuntimeError(f"{error.code().name}: {error.details()}")
