"""Holds on something that must not end while anybody has one. On the event loop's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Holds:
    """Counts those that are taken and not released."""

    __slots__ = ("_none_held", "held")

    def __init__(self) -> None:
        self.held = 0
        self._none_held: asyncio.Event | None = None
        """There is one while somebody waits for it."""

    def take(self) -> Callable[[], None]:
        """One more. Returns `release`, to be called once for it."""
        self.held += 1
        return self.release

    def release(self) -> None:
        """One less."""
        self.held -= 1
        if self._none_held is not None and not self.held:
            self._none_held.set()
            self._none_held = None

    async def none_held(self) -> None:
        """Wait until none is held."""
        while self.held:
            self._none_held = self._none_held or asyncio.Event()
            await self._none_held.wait()
