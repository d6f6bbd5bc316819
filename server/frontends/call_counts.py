"""How many gRPC calls began, and how they ended, method by method. The engines count; a scrape reads.

Only methods that exist have counts of their own: what a stranger calls must not make us remember its name.
"""

from __future__ import annotations

import time
from math import inf

from server.frontends.calls import MethodTable, StatusCode, UnaryMethod
from server.metrics.snapshots import CallSnapshot

UNKNOWN = "unknown"


class MethodCounts:
    """The calls of one method."""

    __slots__ = ("handled", "method", "service", "started", "type")

    def __init__(self, path: str, *, unary: bool) -> None:
        self.service, self.method = path.removeprefix("/").rsplit("/", 1)
        self.type = "unary" if unary else "bidi_stream"
        self.started = 0
        self.handled = [0] * len(StatusCode)
        """By status code."""

    def snapshot(self) -> CallSnapshot:
        """A copy. OK is there from the start, any other code once it came up."""
        handled = {code.name: count for code, count in zip(StatusCode, self.handled, strict=True) if count or not code}
        return CallSnapshot(self.type, self.service, self.method, self.started, handled)


class CallCounts:
    """The calls of all methods of a table."""

    def __init__(self, methods: MethodTable) -> None:
        self._by_path = {
            path: MethodCounts(path, unary=isinstance(method, UnaryMethod)) for path, method in methods.items()
        }
        self.unknown = MethodCounts(f"{UNKNOWN}/{UNKNOWN}", unary=True)
        """Calls of methods that do not exist, and those that are no calls by gRPC's rules."""

    def of(self, path: str) -> MethodCounts:
        """The counts of a method of the table."""
        return self._by_path[path]

    def refused(self, status: StatusCode, counts: MethodCounts | None = None) -> None:
        """A call was answered by the engine itself: one of a method, or of none that there is."""
        counts = counts or self.unknown
        counts.started += 1
        counts.handled[status] += 1

    def snapshot(self) -> list[CallSnapshot]:
        """Copies, the unknown ones last."""
        return [counts.snapshot() for counts in (*self._by_path.values(), self.unknown)]


def departure(deadline: float) -> StatusCode:
    """The status of a call whose caller has gone, as gRPC's own servers have it: its deadline came, or it gave up."""
    return StatusCode.DEADLINE_EXCEEDED if deadline < inf and deadline <= time.monotonic() else StatusCode.CANCELLED
