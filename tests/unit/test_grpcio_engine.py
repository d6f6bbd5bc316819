"""What the grpcio engine does where grpcio itself fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from server.frontends.calls import StatusCode
from server.frontends.grpc.grpcio_calls import Context
from server.frontends.grpc.grpcio_engine import abort_call

PATH = "/test/Method"


async def late_abort(handler_of: Callable[[Callable[[Context], Awaitable[None]]], Any]) -> None:
    """Serve one call whose peer leaves first, and whose method aborts it afterwards; return when the call is over."""
    begun = asyncio.Event()
    over = asyncio.Event()

    async def method(context: Context) -> None:
        context.add_done_callback(lambda _context: over.set())
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await abort_call(context, StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    server = grpc.aio.server(
        handlers=[grpc.method_handlers_generic_handler("test", {"Method": handler_of(method)})],
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(PATH)(b"")
        await begun.wait()
        call.cancel()
        await over.wait()
    await server.stop(None)


def unary(method: Callable[[Context], Awaitable[None]]) -> Any:
    async def serve(_message: bytes, context: Context) -> bytes:
        await method(context)
        return b""

    return grpc.unary_unary_rpc_method_handler(serve)


def stream(method: Callable[[Context], Awaitable[None]]) -> Any:
    async def serve(_messages: Any, context: Context) -> None:
        await method(context)

    return grpc.stream_stream_rpc_method_handler(serve)


@pytest.mark.parametrize("handler_of", [unary, stream])
def test_a_peer_that_goes_before_its_status_is_sent_is_no_bug_of_the_method(
    handler_of: Callable[[Callable[[Context], Awaitable[None]]], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """grpcio logs whatever a method raises with its traceback, but for the error of its own abort."""
    asyncio.run(asyncio.wait_for(late_abort(handler_of), timeout=60))
    assert [record.getMessage() for record in caplog.records if record.name.startswith("grpc")] == []
