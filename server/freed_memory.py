"""When memory that was freed goes back to the system, which `malloc` keeps: once it is much, and nobody has needed it
for a while.

It is kept because a page that comes back costs more than all else that is done with it; it goes back because what a
crowd of large requests had is missing elsewhere when they have gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from server import malloc
from server.memory_budget import MemoryBudget
from server.scheduling.clock import Clock

LOOK_SECONDS = 1.0
CALM_LOOKS = 10
"""Memory goes back that was not needed at any of so many looks: it takes milliseconds, and so is not done often."""
MUCH_BYTES = 64 << 20
"""Less is kept for good."""


class Leftovers:
    """Decides. Pure: it is told what is resident, and how much of that requests and answers hold.

    What was resident beside them when memory had gone back for the last time is in use: by models, the runtime, the
    interpreter. What has come since, beyond what requests needed lately, is free.
    """

    __slots__ = ("_base_bytes", "_used_bytes")

    def __init__(self) -> None:
        self._base_bytes = 0
        self._used_bytes: deque[int] = deque(maxlen=CALM_LOOKS)

    def look(self, resident_bytes: int, used_bytes: int) -> bool:
        """Whether memory is to go back now."""
        self._used_bytes.append(used_bytes)
        if len(self._used_bytes) < CALM_LOOKS:
            return False
        if resident_bytes - self._base_bytes - max(self._used_bytes) < MUCH_BYTES:
            return False
        self._used_bytes.clear()
        return True

    def gave_back(self, resident_bytes: int, used_bytes: int) -> None:
        """It has gone back, a moment ago."""
        self._base_bytes = resident_bytes - used_bytes


class FreedMemory:
    """Looks once a second, between `start` and `stop`."""

    def __init__(
        self,
        clock: Clock,
        memory: MemoryBudget,
        give_back: Callable[[Callable[[], None]], None],
        resident_bytes: Callable[[], int] = malloc.resident_bytes,
    ) -> None:
        """`give_back` calls what it is given when memory has gone back."""
        self._clock = clock
        self._memory = memory
        self._give_back = give_back
        self._resident_bytes = resident_bytes
        self._leftovers = Leftovers()
        self._alarm = clock.alarm(self._look)

    def start(self) -> None:
        """Begin. Nothing comes of it where the system does not say what is resident."""
        self._look_later()

    def stop(self) -> None:
        self._alarm.close()

    def _look(self) -> None:
        if self._leftovers.look(self._resident_bytes(), self._memory.used):
            self._give_back(self._gave_back)
        self._look_later()

    def _gave_back(self) -> None:
        self._leftovers.gave_back(self._resident_bytes(), self._memory.used)

    def _look_later(self) -> None:
        self._alarm.set(self._clock.now() + LOOK_SECONDS)
