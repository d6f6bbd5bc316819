"""Traces of requests: which ones are traced, and where their records go. No span is made while a request runs.

`context` reads the caller's trace context, `sampling` holds the settings, and a `Sink` takes the records of requests
that are done: `otlp` sends them to a receiver of OTLP, `json_file` writes Triton's trace file.
"""

from __future__ import annotations

from typing import Protocol

from server.records import Record


class Sink(Protocol):
    """Takes records of traced requests. Nothing here waits, fails or grows without bound."""

    @property
    def lost(self) -> int:
        """Traces that were taken or should have been, and reached nobody."""
        ...

    def take(self, record: Record) -> None:
        """A traced request is done. On the event loop's thread."""
        ...

    def close(self, seconds: float) -> None:
        """Send what is left, for so long at most. Not for the event loop's thread; nothing is taken afterwards."""
        ...
