"""Holds on something that must not end while anybody has one. On the event loop's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Holds:
    """Counts those that are taken and not released."""

    __slots__ = ("_held", "_none_held")

    def __init__(self) -> None:
        self._held = 0
        self._none_held: asyncio.Future[None] | None = None

    def take(self) -> Callable[[], None]:
        """One more. Returns what releases it, to be called once."""
        self._held += 1
        return self._release

    async def none_held(self) -> None:
        """Wait until none is held."""
        if self._held:
            self._none_held = self._none_held or asyncio.get_running_loop().create_future()
            await self._none_held

    def _release(self) -> None:
        self._held -= 1
        if self._none_held is not None and not self._held:
            self._none_held.set_result(None)
