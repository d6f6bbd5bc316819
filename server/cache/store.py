"""Where answers are kept: the seam between what asks for them and a place in this process, or at a distance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from server.cache.entries import Entry

Found = Callable[[Entry | None], None]
"""Takes the entry of a key, or None, once, on the event loop's thread."""


@dataclass(slots=True)
class StoreCounts:
    """What a store has done, and what it holds."""

    entries: int = 0
    bytes: int = 0
    capacity_bytes: int = 0
    """0: the store knows no bound of its own."""
    evictions: int = 0
    """Entries that made room for others."""
    not_stored: int = 0
    """Answers that were not kept: too large, or the store could not be reached or was busy."""
    is_connected: bool = True
    """Whether the store can be asked now."""
    failed_lookups: int = 0
    """Lookups that were not answered: the requests were misses."""


class Store(Protocol):
    """Keeps entries by key. All methods are called on the event loop's thread, and none of them blocks."""

    is_shared: bool
    """Whether other servers see the same entries, and find them after a restart."""

    def get(self, key: bytes) -> Entry | None:
        """The entry of a key, where it is at hand."""
        ...

    def fetch(self, key: bytes, found: Found) -> bool:
        """Ask for a key that is not at hand. Returns False where there is nobody to ask; else `found` is called once,
        later."""
        ...

    def put(self, key: bytes, entry: Entry) -> None:
        """Keep what the entry says now, if there is a way: its arrays are somebody else's."""
        ...

    def counts(self) -> StoreCounts:
        """As they are now, to keep."""
        ...

    def close(self) -> None:
        """Let go of threads and connections. Whoever waits for a lookup is told that there is none."""
        ...
