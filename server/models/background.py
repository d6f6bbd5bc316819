"""A thread for what may take as long as it likes: nobody waits for it when the server stops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from server.errors import LoadFailed

P = ParamSpec("P")
T = TypeVar("T")


class Background:
    """Runs one function after another, for callers on one event loop. The thread starts with the first."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._waiting: set[asyncio.Future[Any]] = set()
        self._given_up = False

    async def call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What the function returns or raises. Raises `LoadFailed` where `give_up` comes first."""
        if self._given_up:
            raise _stopping()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._waiting.add(done)
        done.add_done_callback(self._waiting.discard)

        def job() -> None:
            try:
                settle = partial(_settle, done, function(*arguments, **named), None)
            except Exception as error:  # noqa: BLE001 -- the caller's to handle
                settle = partial(_settle, done, None, error)
            try:
                loop.call_soon_threadsafe(settle)
            except RuntimeError:
                return  # the loop is gone, and whoever called with it

        self._jobs.put(job)
        if not self._thread.ident:
            self._thread.start()
        return await done

    def give_up(self) -> None:
        """Wait for nothing any more."""
        self._given_up = True
        for done in tuple(self._waiting):
            _settle(done, None, _stopping())

    def end(self) -> None:
        """Nothing more will be called: the thread ends after what it does."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _stopping() -> LoadFailed:
    return LoadFailed("given up, because the server stops")


def _settle(done: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
