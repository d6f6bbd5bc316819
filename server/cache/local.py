"""A store in this process: so many bytes at most, and what was not asked for longest goes first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from server.cache.entries import Entry, copy_of, size_of
from server.cache.store import Found, StoreCounts


class LocalStore:
    """See `store.Store`. What an entry counts for includes its key and the objects around it."""

    is_shared = False

    def __init__(self, capacity_bytes: int) -> None:
        self._entries: OrderedDict[bytes, tuple[Entry, int]] = OrderedDict()
        self._counts = StoreCounts(capacity_bytes=capacity_bytes)

    def get(self, key: bytes) -> Entry | None:
        kept = self._entries.get(key)
        if kept is None:
            return None
        self._entries.move_to_end(key)
        return kept[0]

    def fetch(self, key: bytes, found: Found) -> bool:
        return False

    def put(self, key: bytes, entry: Entry) -> None:
        """An entry that is larger than the store is not kept, and drives out nothing."""
        counts, size = self._counts, size_of(entry)
        if size > counts.capacity_bytes:
            counts.not_stored += 1
            return
        _, old_size = self._entries.pop(key, (entry, 0))
        self._entries[key] = copy_of(entry), size
        counts.bytes += size - old_size
        while counts.bytes > counts.capacity_bytes:
            _, (_, oldest_size) = self._entries.popitem(last=False)
            counts.bytes -= oldest_size
            counts.evictions += 1

    def counts(self) -> StoreCounts:
        return replace(self._counts, entries=len(self._entries))

    def close(self) -> None:
        """There is nothing to let go of."""
