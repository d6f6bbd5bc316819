"""Any method table on either gRPC engine: real sockets on loopback, on an event loop in a thread of its own.

A test speaks to it as any client would, and reaches into the server's loop with `run` and `do`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

from server.frontends.calls import MethodTable, UnaryMethod
from server.frontends.grpc.grpcio_engine import GrpcioEngine
from server.frontends.grpc.options import GrpcOptions
from server.ledger import Account
from server.memory_budget import MemoryBudget

if TYPE_CHECKING:
    from server.frontends.grpc.listener import Nghttp2Engine

T = TypeVar("T")

PATIENCE_SECONDS = 30
"""How long a test waits for what must happen."""
GRACE_SECONDS = 10.0
TURNS = 20
"""Of the event loop, that grpcio takes to tell of cancellations after it has stopped, or fewer."""

OPTIONS = GrpcOptions(max_message_bytes=4 << 20)
"""As servers of tests are, unless a test says otherwise."""


def why_missing(engine: str) -> str:
    """Why an engine cannot run here; "" where it can."""
    if engine == "nghttp2":
        try:
            import server.frontends.grpc.listener  # noqa: F401
        except ImportError as error:
            return f"the nghttp2 engine is not built: {error}"
    return ""


@dataclass
class Server:
    """One engine that listens."""

    engine: GrpcioEngine | Nghttp2Engine
    port: int
    account: Account
    memory: MemoryBudget

    def check_balance(self) -> None:
        """Every unary request was answered once, or abandoned, and nothing holds memory any more."""
        assert list(self.account.problems()) == []
        assert self.memory.used == 0

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"


class Host:
    """An event loop with servers on it."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"host of {engine}", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """A coroutine's result, from the servers' loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_SECONDS)

    def do(self, action: Callable[..., T], *arguments: Any) -> T:
        """The result of a call made on the servers' loop."""

        async def call() -> T:
            return action(*arguments)

        return self.run(call())

    def start(self, methods: MethodTable, **options: Any) -> Server:
        """Serve these methods on a free port; `options` are fields of `GrpcOptions`."""
        return self.run(self._start(methods, replace(OPTIONS, **{"memory": MemoryBudget()} | options)))

    def listen(self, methods: MethodTable, address: str, port: int = 0, **options: Any) -> Server:
        """Serve these methods at an address."""
        own = replace(OPTIONS, **{"memory": MemoryBudget()} | options)
        return self.run(self._start(methods, own, address, port))

    def stop(self, server: Server, grace_seconds: float = GRACE_SECONDS) -> None:
        self.run(server.engine.stop(grace_seconds))
        self.run(_settled(server))
        server.check_balance()

    def begin_stop(self, server: Server, grace_seconds: float = GRACE_SECONDS) -> Callable[[], None]:
        """Begin to stop, and return what waits for the end."""
        stopping = asyncio.run_coroutine_threadsafe(server.engine.stop(grace_seconds), self._loop)
        return lambda: stopping.result(PATIENCE_SECONDS)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_SECONDS)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _start(
        self, methods: MethodTable, options: GrpcOptions, address: str = "127.0.0.1", port: int = 0
    ) -> Server:
        account, memory = Account("test"), options.memory
        methods = {
            path: replace(method, account=account) if isinstance(method, UnaryMethod) else method
            for path, method in methods.items()
        }
        engine: GrpcioEngine | Nghttp2Engine
        if self.engine == "nghttp2":
            from server.frontends.grpc.listener import Nghttp2Engine

            engine = Nghttp2Engine(methods, options)
        else:
            engine = GrpcioEngine(methods, options)
        return Server(engine, await engine.start(address, port), account, memory)


async def _settled(server: Server) -> None:
    """Wait until grpcio has told of all cancellations."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
