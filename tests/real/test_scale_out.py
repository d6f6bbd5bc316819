"""Several servers, one drained and one killed under load, behind nginx and with gRPC's own balancing."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as triton

from tests import onnx_models
from tests.real.balancing import Callers, nginx
from tests.real.clients import SERVICE, arrays, infer_request, metric, pb
from tests.real.conftest import ROOT, RunningServer, start
from tests.real.test_drain import in_flight, rows
from tests.real.waiting import wait_until
from tests.real.zoo import held
from tests.repositories import add_model

CALLERS = 8
ANSWERS = 150
HELD = ("held", "held_too")
WAITING = 6
"""Calls of each of these models: fewer than run by themselves, so that they wait wherever they are."""

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def documented_service_config() -> str:
    """The JSON of docs/scaling.md that names a retry policy."""
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs/scaling.md").read_text(), re.DOTALL)
    (config,) = (config for config in map(json.loads, blocks) if "methodConfig" in config)
    return json.dumps(config)


ROUND_ROBIN = {"loadBalancingConfig": [{"round_robin": {}}]}


def options(service_config: str) -> list[tuple[str, object]]:
    return [("grpc.service_config", service_config), ("grpc.use_local_subchannel_pool", 1)]


def start_side_by_side(tmp_path: Path, count: int, *flags: str) -> list[RunningServer]:
    repository = tmp_path / "models"
    add_model(repository, "affine", onnx_models.affine(), "max_batch_size: 32 dynamic_batching { }")
    for name in HELD:
        add_model(repository, name, onnx_models.affine(), held())
    folders = [tmp_path / f"server{number}" for number in range(count)]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor() as side_by_side:
        return list(side_by_side.map(lambda folder: start(folder, *flags, model_repository=repository), folders))


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[RunningServer]]:
    running = start_side_by_side(tmp_path, 3)
    yield running
    for server in running:
        server.terminate()


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[list[RunningServer]]:
    """Two servers that go on serving for long after SIGTERM."""
    running = start_side_by_side(tmp_path, 2, "--shutdown-delay-secs=600")
    yield running
    for server in running:
        server.process.kill()
        server.process.wait()


async def wait(channel: grpc.aio.Channel, model: str, value: int) -> int | grpc.StatusCode:
    """One call of a `held` model: its answer, or the status that it failed with."""
    infer = channel.unary_unary(f"{SERVICE}/ModelInfer")
    try:
        answer = await infer(infer_request(model, rows(value)).SerializeToString(), timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return arrays(pb.ModelInferResponse.FromString(answer))["y"].item()


async def held_by(model: str, *servers: RunningServer) -> None:
    """Return once these servers have all calls of a `held` model."""
    await asyncio.to_thread(wait_until, lambda: sum(in_flight(server, model) for server in servers) == WAITING, 30)


async def ride(servers: list[RunningServer], target: str, plain: str, retrying: str) -> None:
    """Drain one server and kill another under load; `plain` and `retrying` are service configs."""
    drained, *others = servers
    async with (
        grpc.aio.insecure_channel(target, options=options(plain)) as bare,
        grpc.aio.insecure_channel(target, options=options(retrying)) as steady,
    ):
        once, again, later = Callers(), Callers(), Callers()
        tasks = [*once.start(bare, CALLERS), *again.start(steady, CALLERS)]
        await once.more(ANSWERS)
        drained.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(drained.process.wait, 30) == 0
        await once.more(ANSWERS)
        assert (once.failed, again.failed) == ([], [])

        waiting, waiting_too = (
            [asyncio.create_task(wait(channel, model, value)) for value in range(WAITING)]
            for model, channel in zip(HELD, (bare, steady), strict=True)
        )
        for model in HELD:
            await held_by(model, *others)
        left, killed = sorted(others, key=lambda server: sum(in_flight(server, model) for model in HELD))
        lost = [in_flight(killed, model) for model in HELD]
        assert sum(lost) >= WAITING
        killed.process.kill()
        await asyncio.to_thread(killed.process.wait, 30)
        await again.more(ANSWERS)
        tasks += later.start(bare, CALLERS)
        await later.more(ANSWERS)
        for callers in (once, again, later):
            callers.stopping = True
        await asyncio.gather(*tasks)
        await held_by("held_too", left)
        left.process.send_signal(signal.SIGTERM)
        told = await asyncio.gather(*waiting)
        assert await asyncio.gather(*waiting_too) == [3 * value + 1 for value in range(WAITING)]

    assert told.count(UNAVAILABLE) == lost[0]
    assert all(answer in (UNAVAILABLE, 3 * value + 1) for value, answer in enumerate(told))
    assert (again.failed, later.failed) == ([], [])
    assert set(once.failed) <= {UNAVAILABLE}
    for callers in (once, again, later):
        assert len(callers.answered) == len(set(callers.answered))


def test_behind_nginx_a_drain_loses_nothing_and_a_kill_what_it_had_in_flight(
    servers: list[RunningServer], tmp_path: Path
) -> None:
    folder = tmp_path / "nginx"
    folder.mkdir()
    with nginx([server.grpc_address for server in servers], folder) as address:
        asyncio.run(ride(servers, address, "{}", documented_service_config()))


def test_with_round_robin_of_grpc_a_drain_loses_nothing_and_a_kill_what_it_had_in_flight(
    servers: list[RunningServer],
) -> None:
    target = "ipv4:" + ",".join(server.grpc_address for server in servers)
    retrying = json.loads(documented_service_config()) | ROUND_ROBIN
    asyncio.run(ride(servers, target, json.dumps(ROUND_ROBIN), json.dumps(retrying)))


def test_a_client_that_watches_health_leaves_a_server_in_its_shutdown_delay(patient: list[RunningServer]) -> None:
    leaving, left = patient
    config = json.loads(documented_service_config()) | ROUND_ROBIN | {"healthCheckConfig": {"serviceName": ""}}
    target = f"ipv4:{leaving.grpc_address},{left.grpc_address}"
    with triton.InferenceServerClient(target, channel_args=options(json.dumps(config))) as client:

        def served_by_one() -> bool:
            before = answered(left)
            for value in range(10):
                assert client.infer("affine", [tensor(value)]).as_numpy("y").item() == 3 * value + 1
            return answered(left) == before + 10

        wait_until(lambda: not served_by_one(), 30)
        leaving.process.send_signal(signal.SIGTERM)
        wait_until(served_by_one, 30)
        assert leaving.process.poll() is None


def answered(server: RunningServer) -> float:
    return metric(server.metrics_url, "nv_inference_request_success", model="affine")


def tensor(value: int) -> triton.InferInput:
    made = triton.InferInput("x", [1, 1], "INT64")
    made.set_data_from_numpy(rows(value)["x"])
    return made
