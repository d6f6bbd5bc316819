"""What each kind of the schedule does. An action returns where all was right; Refused and WrongAnswerError say more."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.shared_memory import SharedMemory
from random import Random

import numpy as np

from loadtest.errors import WrongAnswerError
from loadtest.http2_frames import HELLO
from loadtest.http_v2 import encode_request, model_path
from loadtest.soak import models
from loadtest.soak.callers import Callers, refuse_http
from loadtest.soak.cases import LARGEST_ROW, Case, Zoo, answer_of
from loadtest.soak.http_connection import HttpConnection
from loadtest.soak.tally import GRPC, HTTP, Refused
from proto import grpc_service_pb2 as pb

_SLOW_PAUSE_S = 0.06
"""After each 64 KiB: a megabyte takes a second."""
_NOBODY = "nonesuch"


@dataclass(frozen=True)
class World:
    """What actions have."""

    callers: Callers
    zoo: Zoo
    regions: itertools.count[int]
    """Numbers that name shared memory."""


Action = Callable[[World, Random], Awaitable[None]]


async def grpc_unary(world: World, random: Random) -> None:
    case = world.zoo.any(random)
    case.check(answer_of(await world.callers.unary(case.request(), case.model)))


async def grpc_stream(world: World, random: Random) -> None:
    cases = [world.zoo.any(random) for _ in range(random.randrange(1, 9))]
    await _on_a_stream(world, cases, [case.request() for case in cases])


async def grpc_sequence(world: World, random: Random) -> None:
    cases = world.zoo.sequence(random)
    # Text, so that the parts of a soak with several processes do not meet.
    name = f"{os.getpid()}-{random.getrandbits(60)}"
    last = len(cases) - 1
    requests = [
        case.request(sequence_id=name, sequence_start=number == 0, sequence_end=number == last)
        for number, case in enumerate(cases)
    ]
    if random.random() < 0.5:
        await _on_a_stream(world, cases, requests)
        return
    for case, request in zip(cases, requests, strict=True):
        case.check(answer_of(await world.callers.unary(request, case.model)))


async def _on_a_stream(world: World, cases: list[Case], requests: list[pb.ModelInferRequest]) -> None:
    answers = await world.callers.stream(requests)
    for case, answer in zip(cases, answers, strict=True):
        case.check(answer_of(answer))


async def http_json(world: World, random: Random) -> None:
    case = world.zoo.any(random)
    while not _is_text(case):
        case = world.zoo.any(random)
    case.check(await world.callers.http_json(case))


def _is_text(case: Case) -> bool:
    """Whether JSON can hold it: encoded pictures are no text."""
    return case.model == models.TEXT or all(array.dtype != np.object_ for array in case.inputs.values())


async def http_binary(world: World, random: Random) -> None:
    case = world.zoo.any(random)
    case.check(await world.callers.http_binary(case))


async def triton_grpc(world: World, random: Random) -> None:
    case = world.zoo.any(random)
    case.check(await world.callers.triton(case, GRPC))


async def triton_http(world: World, random: Random) -> None:
    case = world.zoo.any(random)
    case.check(await world.callers.triton(case, HTTP))


async def large_grpc(world: World, random: Random) -> None:
    case = world.zoo.affine(random, columns=LARGEST_ROW)
    case.check(answer_of(await world.callers.unary(case.request(), case.model)))


async def large_http(world: World, random: Random) -> None:
    case = world.zoo.affine(random, columns=LARGEST_ROW)
    case.check(await world.callers.http_binary(case))


async def slow_reader(world: World, random: Random) -> None:
    case = world.zoo.affine(random, columns=LARGEST_ROW)
    connection = await HttpConnection.open(world.callers.ports["http"], slow=True)
    try:
        case.check(await world.callers.http_binary(case, connection=connection, pause_s=_SLOW_PAUSE_S))
    finally:
        await connection.close()


async def shared_memory(world: World, random: Random) -> None:
    case = world.zoo.affine(random)
    (x,), (y,) = case.inputs.values(), case.expected.values()
    region = f"soak-{os.getpid()}-{next(world.regions)}"
    memory = SharedMemory(create=True, size=2 * x.nbytes)
    try:
        view = np.ndarray(2 * x.size, x.dtype, memory.buf)
        view[: x.size] = x.ravel()
        await world.callers.control(
            "SystemSharedMemoryRegister",
            pb.SystemSharedMemoryRegisterRequest(name=region, key=memory.name, byte_size=2 * x.nbytes),
            pb.SystemSharedMemoryRegisterResponse,
        )
        await world.callers.unary(_in_memory(case, region, x.nbytes), case.model)
        answered = view[x.size :].reshape(y.shape).copy()
        del view
        await world.callers.control(
            "SystemSharedMemoryUnregister",
            pb.SystemSharedMemoryUnregisterRequest(name=region),
            pb.SystemSharedMemoryUnregisterResponse,
        )
        case.check({"y": answered})
    finally:
        memory.close()
        memory.unlink()


def _in_memory(case: Case, region: str, byte_size: int) -> pb.ModelInferRequest:
    """The input is the first half of the region, the output the second."""
    request = case.request()
    del request.raw_input_contents[:]
    for offset, tensor in ((0, request.inputs[0]), (byte_size, request.outputs.add(name="y"))):
        tensor.parameters["shared_memory_region"].string_param = region
        tensor.parameters["shared_memory_byte_size"].int64_param = byte_size
        tensor.parameters["shared_memory_offset"].int64_param = offset
    return request


async def new_connection(world: World, random: Random) -> None:
    case = world.zoo.any(random)
    if random.random() < 0.5:
        async with world.callers.channel() as channel:
            case.check(answer_of(await world.callers.unary(case.request(), case.model, channel=channel)))
        return
    connection = await HttpConnection.open(world.callers.ports["http"])
    try:
        case.check(await world.callers.http_binary(case, connection=connection))
    finally:
        await connection.close()


async def broken_connection(world: World, random: Random) -> None:
    """What was sent is never a whole request, so nothing of it is on anybody's tally."""
    protocol = random.choice(("grpc", "http"))
    connection = await HttpConnection.open(world.callers.ports[protocol])
    try:
        if protocol == "grpc":
            await connection.send_raw(HELLO[: random.randrange(1, len(HELLO) + 1)])
        else:
            path = f"{model_path(models.AFFINE)}/infer"
            await connection.send("POST", path, random.randbytes(random.randrange(1, 10_000)), {}, missing_bytes=100)
        await asyncio.sleep(random.random() * 0.1)
    finally:
        connection.abort()


async def cancelled(world: World, random: Random) -> None:
    case = world.zoo.affine(random, models.PATIENT)
    after_s = random.random() * 0.1
    if random.random() < 0.5:
        await world.callers.abandoned_stream([case.request()] * 3, after_s)
    answer = await world.callers.unary(case.request(), case.model, cancel_after_s=after_s)
    case.check(answer_of(answer))


async def departed(world: World, random: Random) -> None:
    case = world.zoo.affine(random, models.PATIENT)
    headers, body = encode_request(case.request())
    connection = await HttpConnection.open(world.callers.ports["http"])
    try:
        with world.callers.counted(HTTP, case.model):
            await connection.send("POST", f"{model_path(case.model)}/infer", body, headers)
            await asyncio.sleep(random.random() * 0.1)
            raise Refused("CANCELLED", "by the client")
    finally:
        connection.abort()


async def expired(world: World, random: Random) -> None:
    case = world.zoo.affine(random, models.PATIENT)
    seconds = random.uniform(0.001, 0.1)
    case.check(answer_of(await world.callers.unary(case.request(), case.model, seconds=seconds)))


async def timed_out(world: World, random: Random) -> None:
    case = world.zoo.affine(random, models.PATIENT)
    request = case.request(timeout=random.randrange(1_000, 100_000))
    case.check(answer_of(await world.callers.unary(request, case.model)))


def _spoilt(world: World, random: Random) -> tuple[str, pb.ModelInferRequest]:
    """A request that no server may answer, and its model."""
    case = world.zoo.affine(random)
    request = case.request()
    (tensor,) = request.inputs
    match random.randrange(6):
        case 0:
            request.model_name = _NOBODY
        case 1:
            tensor.datatype = "INT32"
        case 2:
            request.raw_input_contents[0] = request.raw_input_contents[0][:-4]
        case 3:
            tensor.name = _NOBODY
        case 4:
            tensor.shape[:] = [*tensor.shape, 1]
        case 5:
            x = np.zeros((models.MAX_ROWS + 1, 1), np.float32)
            request = replace(case, inputs={"x": x}).request()
    return request.model_name, request


async def invalid_grpc(world: World, random: Random) -> None:
    what = random.randrange(8)
    if what == 0:
        await world.callers.unary(b"\xff" * 9, models.AFFINE)
    elif what == 1:
        request = world.zoo.sequence(random)[0].request(sequence_id=random.getrandbits(60) + 1)
        await world.callers.unary(request, models.TOTAL)
    else:
        model, request = _spoilt(world, random)
        await world.callers.unary(request, model)


async def invalid_http(world: World, random: Random) -> None:
    what = random.randrange(8)
    if what == 0:
        await world.callers.infer_over_http(models.AFFINE, b'{"inputs": [', {})
    elif what == 1:
        refuse_http(await world.callers.http.ask("GET", f"/v2/{_NOBODY}"))
    else:
        model, request = _spoilt(world, random)
        headers, body = encode_request(request)
        await world.callers.infer_over_http(model, body, headers)


async def fleeting(world: World, random: Random) -> None:
    case = world.zoo.affine(random, models.FLEETING)
    case.check(answer_of(await world.callers.unary(case.request(), case.model)))


async def reload(world: World, random: Random) -> None:
    config = {
        "max_batch_size": models.MAX_ROWS,
        "dynamic_batching": {"max_queue_delay_microseconds": random.randrange(100, 2_000)},
        "parameters": {"intra_op_thread_count": {"string_value": "1"}},
    }
    request = pb.RepositoryModelLoadRequest(model_name=models.RELOADED)
    request.parameters["config"].string_param = json.dumps(config)
    await world.callers.control("RepositoryModelLoad", request, pb.RepositoryModelLoadResponse)


async def turnover(world: World, random: Random) -> None:
    unload = pb.RepositoryModelUnloadRequest(model_name=models.FLEETING)
    await world.callers.control("RepositoryModelUnload", unload, pb.RepositoryModelUnloadResponse)
    await asyncio.sleep(random.random() * 0.2)
    load = pb.RepositoryModelLoadRequest(model_name=models.FLEETING)
    await world.callers.control("RepositoryModelLoad", load, pb.RepositoryModelLoadResponse)


async def scrape(world: World, random: Random) -> None:
    headers = random.choice(({}, {"Accept-Encoding": "gzip"}, {"Accept": "application/openmetrics-text"}))
    connection = await HttpConnection.open(world.callers.ports["metrics"])
    try:
        answer = await connection.ask("GET", "/metrics", headers=headers)
    finally:
        await connection.close()
    refuse_http(answer)
    if "Accept-Encoding" not in headers and b"nv_inference_request_success" not in answer.body:
        raise WrongAnswerError("a metrics page without nv_inference_request_success")


async def control(world: World, random: Random) -> None:
    name = random.choice((models.AFFINE, models.LENET5, models.PAIR))
    paths = ("/v2/health/ready", "/v2/health/live", "/v2", model_path(name), f"{model_path(name)}/config")
    refuse_http(await world.callers.http.ask("GET", random.choice(paths)))
    ready = await world.callers.control("ModelReady", pb.ModelReadyRequest(name=name), pb.ModelReadyResponse)
    if not ready.ready:
        raise WrongAnswerError(f"{name} is not ready")
    await world.callers.control("ModelStatistics", pb.ModelStatisticsRequest(), pb.ModelStatisticsResponse)
    await world.callers.control("RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse)


ACTIONS: Mapping[str, Action] = {
    action.__name__: action
    for action in (
        *(grpc_unary, grpc_stream, grpc_sequence, http_json, http_binary, triton_grpc, triton_http),
        *(large_grpc, large_http, slow_reader, shared_memory, new_connection, broken_connection),
        *(cancelled, departed, expired, timed_out, invalid_grpc, invalid_http),
        *(fleeting, reload, turnover, scrape, control),
    )
}
