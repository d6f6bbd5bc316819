"""The official asyncio client on both engines: the ways in which it differs from the sync one on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import grpc
import pytest

from server.frontends.calls import Call, StatusCode, UnaryMethod
from server.tensors import Buffer
from tests.engines.conftest import Serve
from tests.engines.hosting import PATIENCE_SECONDS, Host
from tests.engines.methods import ECHO, ECHO_STREAM, HELD, METHOD, Held, echoes

T = TypeVar("T")
Run = Callable[[Callable[[grpc.aio.Channel], Awaitable[T]]], T]


def refuse(call: Call, message: Buffer) -> None:
    call.send_initial_metadata({"opening": "first"})
    call.set_trailing_metadata({"closing-bin": b"\x00"})
    call.fail(StatusCode.DATA_LOSS, "lost ☃")


@pytest.fixture
def run(serve: Serve, host: Host, held: Held) -> Iterator[Run[object]]:
    """A function that gives a coroutine function a channel, and returns its result. The client lives on the host."""
    server = serve({METHOD: UnaryMethod(refuse)} | held.methods)

    def with_channel(work: Callable[[grpc.aio.Channel], Awaitable[object]]) -> object:
        async def connected() -> object:
            async with grpc.aio.insecure_channel(server.target) as channel:
                return await asyncio.wait_for(work(channel), PATIENCE_SECONDS)

        return host.run(connected())

    return with_channel


def test_many_unary_calls_at_once_are_answered(run: Run) -> None:
    async def crowd(channel: grpc.aio.Channel) -> list[bytes]:
        method = channel.unary_unary(ECHO)
        return await asyncio.gather(*[method(b"%d" % index) for index in range(500)])

    assert run(crowd) == [b"%d" % index for index in range(500)]


def test_a_stream_is_written_and_read_in_turn(run: Run) -> None:
    async def converse(channel: grpc.aio.Channel) -> list[bytes]:
        stream = channel.stream_stream(ECHO_STREAM)()
        heard = []
        for index in range(100):
            await stream.write(b"%d" % index)
            heard.append(await stream.read())
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK
        return heard

    assert run(converse) == [b"%d" % index for index in range(100)]


def test_a_status_and_its_metadata_arrive(run: Run) -> None:
    async def fail(channel: grpc.aio.Channel) -> tuple[object, ...]:
        call = channel.unary_unary(METHOD)(b"")
        code, details = await call.code(), await call.details()
        return code, details, dict(await call.initial_metadata()), dict(await call.trailing_metadata())

    code, details, initial, trailing = run(fail)
    assert (code, details) == (grpc.StatusCode.DATA_LOSS, "lost ☃")
    assert (initial["opening"], trailing["closing-bin"]) == ("first", b"\x00")


def test_a_cancelled_task_cancels_its_call(run: Run, held: Held) -> None:
    async def leave(channel: grpc.aio.Channel) -> None:
        opened = asyncio.get_running_loop().run_in_executor(None, held.next_call)
        task = asyncio.ensure_future(channel.unary_unary(HELD)(b"leaving"))
        call = await opened
        task.cancel()
        heard = [await asyncio.get_running_loop().run_in_executor(None, call.next_heard) for _ in range(2)]
        assert heard == [("message", b"leaving"), ("cancelled", b"")]
        assert await channel.unary_unary(ECHO)(b"x") == b"x"

    run(leave)


def test_a_deadline_passes(run: Run) -> None:
    async def wait(channel: grpc.aio.Channel) -> grpc.StatusCode:
        return await channel.unary_unary(HELD)(b"", timeout=0.05).code()

    assert run(wait) == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_compressed_channel_is_understood(serve: Serve, host: Host) -> None:
    server = serve(echoes())

    async def squeeze() -> bytes:
        async with grpc.aio.insecure_channel(server.target, compression=grpc.Compression.Gzip) as channel:
            return await channel.unary_unary(ECHO)(bytes(100_000), timeout=PATIENCE_SECONDS)

    assert host.run(squeeze()) == bytes(100_000)
