"""An ASGI application on uvicorn, inside the event loop that is already running."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from server.frontends.rest.responses import AsgiApp


class _EmbeddedServer(uvicorn.Server):
    """uvicorn without its signal handlers: the composition root owns SIGTERM and SIGINT."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves one application on one address."""

    def __init__(self, app: AsgiApp) -> None:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", http="httptools", ws="none", server_header=False
        )
        self._server = _EmbeddedServer(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self, address: str, port: int) -> int:
        """Listen, and return the port. Raises `OSError` where the address cannot be had."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            listener = socket.create_server((address, port), family=family)
        except OSError as error:
            raise OSError(f"cannot listen on {address}:{port} for HTTP: {error.strerror}") from error
        bound: int = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        return bound

    async def stop(self) -> None:
        """Answer what is being answered, then close."""
        if self._task:
            self._server.should_exit = True
            await self._task
