"""SIGTERM: every request that was accepted is answered, nothing new is, and the exit status is 0."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import (
    SERVICE,
    Client,
    answer_of,
    arrays,
    http_status,
    infer_request,
    metric,
    wait_for_pending,
    wait_for_running,
)
from tests.real.conftest import ENGINES, ROOT, RunningServer, StartServer, connect
from tests.real.waiting import wait_until
from tests.real.zoo import held
from tests.repositories import add_model

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

CONNECTIONS = 8
IN_FLIGHT_EACH = 8
ANSWERS_BEFORE_SIGTERM = 300

SLOW_ROUNDS = 60_000
"""About 0.8 s of `slow`: long beside what a test does meanwhile."""

ENDLESS_ROUNDS = 2**40
"""Months."""

CLOSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
"""What a call may fail with that met a server about to close."""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    add_model(tmp_path, "affine", onnx_models.affine(), "max_batch_size: 32 dynamic_batching { }")
    add_model(tmp_path, "held", onnx_models.affine(), held())
    add_model(tmp_path, "slow", onnx_models.slow(), "max_batch_size: 8 dynamic_batching { }")
    return tmp_path


def rows(*values: int) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.array(values, np.int64).reshape(-1, 1)}


def slow(value: float, rounds: int = SLOW_ROUNDS) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.array([[value]], np.float32), "iterations": np.array([[rounds]])}


def in_flight(server: RunningServer, model: str) -> float:
    return metric(server.metrics_url, "nv_inference_in_flight_request_count", model=model)


async def call_until_refused(address: str, first: int, done: list[int], refusals: list[tuple[float, Any]]) -> None:
    """One connection with several callers, each asking for a number of its own until it is refused."""

    async def caller(channel: grpc.aio.Channel, value: int) -> None:
        infer = channel.unary_unary(f"{SERVICE}/ModelInfer")
        while True:
            request = infer_request("affine", rows(value)).SerializeToString()
            try:
                answer = await infer(request, timeout=30)
            except grpc.aio.AioRpcError as error:
                refusals.append((time.monotonic(), error.code()))
                return
            assert arrays(pb.ModelInferResponse.FromString(answer))["y"].item() == 3 * value + 1
            done.append(value)
            value += CONNECTIONS * IN_FLIGHT_EACH

    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        await asyncio.gather(*(caller(channel, first + i) for i in range(IN_FLIGHT_EACH)))


def test_under_load_nothing_that_was_accepted_is_lost(start_engine: StartServer, repository: Path) -> None:
    server = start_engine(model_repository=repository)
    done: list[int] = []
    refusals: list[tuple[float, Any]] = []
    signalled = 0.0

    async def load() -> None:
        nonlocal signalled
        callers = [
            asyncio.create_task(call_until_refused(server.grpc_address, i * IN_FLIGHT_EACH, done, refusals))
            for i in range(CONNECTIONS)
        ]
        while len(done) < ANSWERS_BEFORE_SIGTERM:
            assert not refusals
            await asyncio.sleep(0)
        signalled = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*callers)

    asyncio.run(load())
    assert server.terminate() == 0
    assert len(refusals) == CONNECTIONS * IN_FLIGHT_EACH
    assert min(when for when, _ in refusals) >= signalled
    assert {code for _, code in refusals} <= CLOSING
    assert len(done) == len(set(done))
    assert "Traceback" not in server.log.read_text()


def test_a_batch_in_progress_and_those_behind_it_are_answered(start_engine: StartServer, repository: Path) -> None:
    server = start_engine(model_repository=repository)
    channels = [connect(server) for _ in range(3)]
    calls = [Client(channel).start_infer("slow", slow(value)) for value, channel in enumerate(channels)]
    wait_until(lambda: in_flight(server, "slow") == 3, 10)
    server.process.send_signal(signal.SIGTERM)

    assert [answer_of(call)["y"].item() for call in calls] == [0, 1, 2]
    assert server.terminate() == 0
    for channel in channels:
        channel.close()


def test_whoever_waits_for_company_is_answered_at_once(start_engine: StartServer, repository: Path) -> None:
    server = start_engine(model_repository=repository)
    with connect(server) as channel:
        calls = [Client(channel).start_infer("held", rows(value)) for value in range(5)]
        wait_until(lambda: in_flight(server, "held") == 5, 10)
        server.process.send_signal(signal.SIGTERM)

        assert [answer_of(call)["y"].item() for call in calls] == [1, 4, 7, 10, 13]
    assert server.terminate() == 0


def test_readiness_is_off_while_the_last_are_answered(start_engine: StartServer, repository: Path) -> None:
    server = start_engine(model_repository=repository)
    with connect(server) as channel:
        busy = Client(channel).start_infer("slow", slow(1, 2 * SLOW_ROUNDS))
        health = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=30) for name in ("", "slow")]
        assert [next(watch).status for watch in watches] == [SERVING, SERVING]
        server.process.send_signal(signal.SIGTERM)

        assert [update.status for update in watches[0]] == [NOT_SERVING]
        assert all(update.status == NOT_SERVING for update in watches[1])
        assert not busy.done()
        assert http_status(f"{server.http_url}/v2/health/ready") == 503
        assert http_status(f"{server.http_url}/v2/health/live") == 200
        with connect(server) as newcomer:
            refusal = Client(newcomer).refusal("ModelInfer", infer_request("affine", rows(1)), timeout=10)
            assert refusal.status in CLOSING
        assert answer_of(busy)["y"].item() == 1
    assert server.terminate() == 0


def test_requests_that_outlast_the_exit_timeout_are_given_up(start_engine: StartServer, repository: Path) -> None:
    server = start_engine("--exit-timeout-secs=0.2", model_repository=repository)
    with connect(server) as channel:
        endless = Client(channel).start_infer("slow", slow(1, ENDLESS_ROUNDS))
        wait_for_running(server.metrics_url, "slow", 1)
        behind = Client(channel).start_infer("slow", slow(2))
        wait_for_pending(server.metrics_url, "slow", 1)
        server.process.send_signal(signal.SIGTERM)

        assert {call.exception().code() for call in (endless, behind)} <= CLOSING
    assert server.terminate() == 0, server.log.read_text()


def test_a_server_asked_again_and_again_until_it_is_gone_ends_well(repository: Path, start_server: StartServer) -> None:
    """On nghttp2 alone: so many signals within milliseconds bring grpcio's own locks to a standstill."""
    server = start_server(model_repository=repository)
    while server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
    assert server.process.returncode == 0, server.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_stops_at_once(number: signal.Signals, start_engine: StartServer, repository: Path) -> None:
    server = start_engine(model_repository=repository)
    with connect(server) as channel:
        Client(channel).infer("affine", rows(1))  # and the connection stays open
        server.process.send_signal(number)

        assert server.process.wait(15) == 0  # a drain that waited for the connection would take 30 s
    assert "Traceback" not in server.log.read_text()


def starting(engine: str, repository: Path | str, log: Path, *flags: str) -> subprocess.Popen[bytes]:
    """A server that is still loading."""
    addresses = ("--grpc-address=127.0.0.1", "--http-address=127.0.0.1", "--http-port=0", "--metrics-port=0")
    command = [sys.executable, "-m", "server", f"--model-repository={repository}", *addresses, *ENGINES[engine], *flags]
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)


def write_many(root: Path, count: int = 100) -> Path:
    for i in range(count):
        add_model(root, f"model_{i:03}", onnx_models.mlp(256))
    return root


def test_sigterm_while_models_load_stops_the_loading(engine: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    # It was never ready, so no load balancer has to notice anything.
    process = starting(engine, write_many(tmp_path / "models"), log, "--grpc-port=0", "--shutdown-delay-secs=600")
    wait_until(lambda: "is READY" in log.read_text(), 30)
    process.terminate()

    assert process.wait(30) == 0, log.read_text()
    assert "model_099" not in log.read_text()
    assert "Traceback" not in log.read_text()


def test_the_server_does_not_say_ready_before_every_model_is(engine: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = (f"--grpc-port={port}", "--strict-readiness=false")
    asked = health_pb2.HealthCheckRequest()
    process = starting(engine, write_many(tmp_path / "models"), tmp_path / "log", *flags)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_reconnect_backoff_ms", 20)]) as channel:
            client, health = Client(channel), health_pb2_grpc.HealthStub(channel)
            ready = healthy = False
            while not (ready or healthy):
                healthy = health.Check(asked, timeout=30, wait_for_ready=True).status == SERVING
                ready = client.call("ServerReady", pb.ServerReadyRequest()).ready
            assert client.call("ModelReady", pb.ModelReadyRequest(name="model_099")).ready
    finally:
        process.terminate()
        assert process.wait(30) == 0
