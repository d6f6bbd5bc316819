"""How many bytes all requests and answers in this process may hold together. Pure: a counter with a bound.

What counts: bodies from their first bytes on, by the length that they declare; what becomes of them when they are
decompressed; requests until they are answered, with the answers that are expected of them; answers until the socket
has taken them. Models, and what runs need inside the runtime, do not.
"""

from __future__ import annotations

from server.errors import MemoryFull

CALL_BYTES = 4 << 10
"""What a request costs beside its bytes: its objects, from the call to the place in a queue."""
SMALL_BYTES = 64 << 10
"""Answers up to this size are always let out, and requests of it for what is not inference always in: a server without
room must still be able to say so, and to say how it is."""


class MemoryBudget:
    """Shared by everything that holds requests and answers, all on the event loop's thread."""

    __slots__ = ("limit", "refused", "used")

    def __init__(self, limit: int = 1 << 62) -> None:
        self.limit = limit
        self.used = 0
        self.refused = 0
        """Requests and answers that there was no room for."""

    @property
    def room(self) -> int:
        """Bytes that may be taken; 0 where none may."""
        return max(0, self.limit - self.used)

    @property
    def connection_share(self) -> int:
        """What a single connection may hold, so that a peer who reads no answers leaves room for others."""
        return self.limit // 2

    def take(self, size: int) -> None:
        """Count so many bytes as held. Raises `MemoryFull`, and counts nothing then."""
        used = self.used + size
        if used > self.limit and size > 0:
            raise self.refusal(size)
        self.used = used

    def refusal(self, size: int | None = None) -> MemoryFull:
        """The error for what needs so many bytes more, where that is known. Counts it."""
        self.refused += 1
        needed = "" if size is None else f", {size} more are needed"
        return MemoryFull(
            f"Exceeds the memory budget of the server: {self.used} of {self.limit} bytes are in use{needed}"
        )
