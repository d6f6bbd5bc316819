"""How many bytes of requests may wait, in all queues together. Pure: a counter with a bound."""

from __future__ import annotations

from server.errors import QueueFull


class ByteBudget:
    """Shared by the queues of all models. A request alone is always let in, whatever its size: else it never could."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
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
