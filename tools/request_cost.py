"""What a small request costs on its way from HTTP/2's bytes to HTTP/2's bytes, without sockets, threads or a model.

    PYTHONPATH=. python tools/request_cost.py

Four connections of the nghttp2 engine bring 16 requests each in one read, of LeNet-5's shape; a session that computes
nothing answers all 64 in one batch on the event loop's thread. Printed are, per request:

- calls: of Python functions, and of Python's and of C's together, function by function with --functions;
- bytecodes: how many the interpreter carries out;
- µs of processor time, the least and the median of rounds.

Calls and bytecodes do not depend on the machine or on what else it does: with them two versions of the server can be
told apart where no clock can.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from collections import Counter
from collections.abc import Callable
from statistics import median
from types import FrameType
from typing import Any, cast

import uvloop

from loadtest import http2_frames as http2
from proto import grpc_service_pb2 as pb
from server.frontends.grpc.listener import Nghttp2Engine
from server.frontends.grpc.options import GrpcOptions
from server.frontends.inference_service import MODEL_INFER, SERVICE, accounted
from server.ledger import Ledger
from server.memory_budget import MemoryBudget
from server.scheduling.budget import ByteBudget
from tools.instant_model import MODEL, InstantSession, instant_version, service_of

CONNECTIONS, STREAMS = 4, 16
REQUESTS = CONNECTIONS * STREAMS
WARM_ROUNDS = 40
"""The interpreter has specialized its code by then, and the batch counts as tiny."""
FRAME_BYTES = 16_384


class Sink:
    """A transport whose peer takes everything."""

    def __init__(self) -> None:
        self.sent = b""

    def write(self, data: bytes) -> None:
        self.sent = data

    def close(self) -> None:
        raise RuntimeError("the connection was closed")

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default


class RequestPath:
    """A server whose sockets are fed by hand."""

    def __init__(self) -> None:
        self.memory, self.ledger = MemoryBudget(), Ledger()
        session = InstantSession("input", (1, 32, 32), "probabilities", (10,))  # as LeNet-5 has them
        self.version = instant_version(session, REQUESTS, budget=ByteBudget(1 << 30, self.memory))
        methods = accounted(service_of(self.version, self.memory).methods(), self.ledger.grpc)
        engine = Nghttp2Engine(methods, GrpcOptions(memory=self.memory))
        self._peers = [engine._accept() for _ in range(CONNECTIONS)]  # noqa: SLF001 -- as a socket would be
        self._sinks = [Sink() for _ in self._peers]
        for peer, sink in zip(self._peers, self._sinks, strict=True):
            peer.connection_made(cast("asyncio.Transport", sink))
            _read(peer, http2.HELLO)
        message = pb.ModelInferRequest(model_name=MODEL, raw_input_contents=[bytes(4 * 32 * 32)])
        message.inputs.add(name="input", datatype="FP32", shape=(1, 1, 32, 32))
        data = message.SerializeToString()
        framed = b"\0" + len(data).to_bytes(4, "big") + data
        self._requests = http2.Requests(f"/{SERVICE}/{MODEL_INFER}", [framed], FRAME_BYTES)
        self._stream = 1

    async def warm(self) -> None:
        for _ in range(WARM_ROUNDS):
            await self.round(self.reads())

    def reads(self) -> bytes:
        """What each connection reads next."""
        first, self._stream = self._stream, self._stream + 2 * STREAMS
        return b"".join([bytes(self._requests.one(first + 2 * i, i, first=first + i == 1)) for i in range(STREAMS)])

    async def round(self, data: bytes) -> None:
        """All requests of one round, from these bytes to their answers'."""
        expected = self.ledger.grpc.answered + REQUESTS
        for peer in self._peers:
            _read(peer, data)
        while self.ledger.grpc.answered < expected:  # noqa: ASYNC110 -- an event would be work of its own
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # what was answered is sent

    async def close(self) -> None:
        """Raises `RuntimeError` where the books do not balance."""
        problems = [*self.ledger.grpc.problems()]
        if problems or self.memory.used or not all(sink.sent for sink in self._sinks):
            raise RuntimeError(f"{problems}, {self.memory.used} bytes held")
        for peer in self._peers:
            peer.connection_lost(None)
        await self.version.drain()


def _read(peer: asyncio.BufferedProtocol, data: bytes) -> None:
    memoryview(peer.get_buffer(-1))[: len(data)] = data
    peer.buffer_updated(len(data))


async def counted(path: RequestPath, rounds: int) -> Counter[str]:
    """Calls by function, those of C after a "C"."""
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            calls[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            calls[f"C {getattr(argument, '__qualname__', argument)}"] += 1

    await _observed(path, rounds, sys.setprofile, note)
    return calls


async def bytecodes(path: RequestPath, rounds: int) -> int:
    """Carried out by the interpreter."""
    carried_out = 0

    def note(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal carried_out
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        carried_out += event == "opcode"
        return note

    await _observed(path, rounds, sys.settrace, note)
    return carried_out


async def _observed(path: RequestPath, rounds: int, observe: Callable[[Any], None], note: Callable[..., Any]) -> None:
    reads = [path.reads() for _ in range(rounds)]
    for data in reads:
        observe(note)
        await path.round(data)
        observe(None)


async def measured(path: RequestPath, rounds: int) -> list[float]:
    """µs per request, round by round."""
    taken: list[float] = []
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        data = path.reads()
        began = time.thread_time_ns()
        await path.round(data)
        taken.append((time.thread_time_ns() - began) / 1000 / REQUESTS)
    gc.enable()
    return taken


async def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000, help="to be timed (%(default)s)")
    parser.add_argument("--functions", action="store_true", help="what is called how often")
    arguments = parser.parse_args()
    path = RequestPath()
    await path.warm()
    taken = await measured(path, arguments.rounds)
    calls = await counted(path, 20)
    carried_out = await bytecodes(path, 20)
    await path.close()
    per_request = {name: count / 20 / REQUESTS for name, count in calls.most_common()}
    python = sum(count for name, count in per_request.items() if not name.startswith("C "))
    print(
        f"per request: {python:.1f} calls of Python functions, {sum(per_request.values()):.1f} with C's; "
        f"{carried_out / 20 / REQUESTS:.0f} bytecodes; {min(taken):.2f} µs, median {median(taken):.2f}"
    )
    if arguments.functions:
        for name, count in per_request.items():
            print(f"{count:8.3f}  {name}")


if __name__ == "__main__":
    uvloop.run(main())
