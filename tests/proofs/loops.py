"""An event loop that does one thing when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

_Task: type[asyncio.Task[Any]] = asyncio.tasks._PyTask  # type: ignore[attr-defined]
"""asyncio's own, in Python: `pickle` can see who waits for it."""


class ManualLoop(asyncio.AbstractEventLoop):
    """What is ready, first come first served. It has no time, no sockets and no threads."""

    def __init__(self) -> None:
        self.ready: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.tasks: list[asyncio.Task[Any]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Whoever asks for the running loop finds this one."""
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def turn(self) -> None:
        """Do the first of what is ready."""
        callback, arguments = self.ready.pop(0)
        callback(*arguments)

    def call_soon(self, callback: Callable[..., object], *arguments: Any, context: object = None) -> None:  # type: ignore[override]
        self.ready.append((callback, arguments))

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coroutine: Coroutine[Any, Any, Any], **_: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        task = _Task(coroutine, loop=self)
        self.tasks.append(task)
        return task

    def close(self) -> None:
        """Let go of what has not ended, without a word."""
        for task in self.tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                task.get_coro().close()  # type: ignore[union-attr]

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise AssertionError(f"nobody handled {context}")
