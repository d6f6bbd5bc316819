"""Sleep on a clock that is given, and that ends at once when there is nothing to wake for any more."""

from __future__ import annotations

import asyncio

from server.scheduling.clock import Clock


class Nap:
    """One sleeper, which may sleep again and again until it is ended."""

    def __init__(self, clock: Clock) -> None:
        self.ended = False
        self._clock = clock
        self._awake: asyncio.Future[None] | None = None

    async def sleep(self, seconds: float) -> bool:
        """Wait. Returns False, and sooner, where the nap is ended."""
        if self.ended:
            return False
        self._awake = asyncio.get_running_loop().create_future()
        alarm = self._clock.alarm(self._wake)
        alarm.set(self._clock.now() + seconds)
        try:
            await self._awake
        finally:
            alarm.close()
        return not self.ended

    def end(self) -> None:
        """Sleep no more."""
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        if self._awake is not None and not self._awake.done():
            self._awake.set_result(None)
