"""A picture's 602,112 bytes in the request, or in shared memory: what carrying them costs, on both engines.

The figure `copies` is the CPU of a request in units of one copy of so many bytes, made here and now: what is paid for
carrying the bytes, and for all else, on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from loadtest.bench.comparison import take_turns
from loadtest.bench.large import INPUT, MODEL, write_repository
from loadtest.bench.servers import GRPCIO, NGHTTP2, Ours, Plan, Shot, prepare, start_ours
from loadtest.figures import Figures
from loadtest.h2load import frame
from proto import grpc_service_pb2 as pb

REGION = "picture"
_COPIES = 200


def shared(plan: Plan) -> dict[str, object]:
    """Each engine is sent the same picture both ways, in turn."""
    load = plan.load(requests=2_000, connections=4, streams=2)
    plan = replace(plan, model=MODEL, model_repository=plan.out / "shared_repository")
    write_repository(plan.model_repository)
    with ExitStack() as stack:
        servers = {name: start_ours(stack, plan, name, "--allow-client-shm=true") for name in (NGHTTP2, GRPCIO)}
        sent = prepare(plan, servers[NGHTTP2], load)
        (message,) = sent.workload.bodies
        (contents,) = pb.ModelInferRequest.FromString(message).raw_input_contents
        memory = stack.enter_context(_object(contents))
        stored = _stored(plan, sent, len(contents))
        turns = {}
        for name, ours in servers.items():
            ours.target.register(REGION, memory.name, len(contents))
            for shot, what in ((sent, "sent"), (stored, "shared")):
                shot.warm_up(ours.server)
                turns[f"{name}, {what}"] = partial(_fire, shot, ours, contents)
        pairs = tuple((f"{name}, shared", f"{name}, sent") for name in servers)
        comparison = take_turns(turns, plan.rounds, pairs)
    print(comparison.table())
    return {"load": asdict(load), "tensor_bytes": len(contents), **comparison.as_json()}


def _fire(shot: Shot, ours: Ours, contents: bytes) -> Figures:
    figures = shot.fire_counted(ours)
    return {"copies": figures["cpu_us_per_request"] / _copy_us(contents), **figures}


def _copy_us(contents: bytes) -> float:
    """One copy of so many bytes by this thread, µs of CPU."""
    source, target = np.frombuffer(contents, np.uint8), np.empty(len(contents), np.uint8)
    start = time.thread_time()
    for _ in range(_COPIES):
        target[:] = source
    return (time.thread_time() - start) / _COPIES * 1e6


@contextmanager
def _object(contents: bytes) -> Iterator[SharedMemory]:
    memory = SharedMemory(create=True, size=len(contents))
    try:
        assert memory.buf is not None, "it has just been made"
        memory.buf[: len(contents)] = contents
        yield memory
    finally:
        memory.close()
        memory.unlink()


def _stored(plan: Plan, sent: Shot, byte_size: int) -> Shot:
    """The same request, its tensor in shared memory."""
    request = pb.ModelInferRequest.FromString(sent.workload.bodies[0])
    del request.raw_input_contents[:]
    (tensor,) = request.inputs
    assert tensor.name == INPUT
    tensor.parameters["shared_memory_region"].string_param = REGION
    tensor.parameters["shared_memory_byte_size"].int64_param = byte_size
    message = request.SerializeToString()
    body = plan.out / "request_shared.grpc"
    body.write_bytes(frame(message))
    return replace(sent, workload=replace(sent.workload, bodies=(message,)), body=body)
