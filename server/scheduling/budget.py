"""How many bytes of requests may wait, in all queues together. Pure: a counter with a bound."""

from __future__ import annotations

from server.errors import QueueFull
from server.memory_budget import MemoryBudget


class ByteBudget:
    """Shared by the queues of all models. A request alone is always let in, whatever its size: else it never could."""

    __slots__ = ("limit", "memory", "used")

    def __init__(self, limit: int, memory: MemoryBudget | None = None) -> None:
        """`memory`: what requests may hold altogether, waiting or not."""
        self.limit = limit
        self.memory = memory or MemoryBudget()
        self.used = 0

    def take(self, size: int) -> None:
        """Count a request that begins to wait. Raises `QueueFull`, and counts nothing then."""
        used = self.used + size
        if used > self.limit and self.used:
            raise QueueFull(
                f"Exceeds maximum queued bytes of the server: {self.used} of {self.limit} bytes wait, {size} more came"
            )
        self.used = used

    def give_back(self, size: int) -> None:
        """The request waits no more."""
        self.used -= size
