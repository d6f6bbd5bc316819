"""What holds up everybody: how late the event loop is, and how long garbage collections take."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from math import inf

from server.metrics.snapshots import LoopSnapshot
from server.scheduling.clock import Clock
from server.statistics import LATENCY_BOUNDS_US, Histogram

SAMPLE_SECONDS = 0.5
"""Between two looks at the loop: what lasts longer is seen for sure, anything shorter in proportion to how often and
how long it happens. Looking takes 0.02 % of a core, also of an idle one (docs/performance.md)."""


class LoopWatch:
    """Samples the event loop's lag between `start` and `stop`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._alarm = clock.alarm(self._look)
        self._due = inf
        self._lag_us = Histogram(LATENCY_BOUNDS_US)
        self._gc_pause_us = Histogram(LATENCY_BOUNDS_US)
        self._gc_began = 0

    def start(self) -> None:
        gc.callbacks.append(self._on_collection)
        self._look_later(self._clock.now())

    def stop(self) -> None:
        if self._on_collection in gc.callbacks:
            gc.callbacks.remove(self._on_collection)
        self._alarm.close()

    def snapshot(self) -> LoopSnapshot:
        """A copy."""
        return LoopSnapshot(self._lag_us.copy(), self._gc_pause_us.copy())

    def _look(self) -> None:
        now = self._clock.now()
        self._lag_us.observe(max(0.0, now - self._due) * 1e6)
        self._look_later(now)

    def _look_later(self, now: float) -> None:
        self._due = now + SAMPLE_SECONDS
        self._alarm.set(self._due)

    def _on_collection(self, phase: str, _: Mapping[str, int]) -> None:
        # On whichever thread allocates. There is one collection at a time, and it tells of its beginning and its end.
        if phase == "start":
            self._gc_began = time.perf_counter_ns()
        elif self._gc_began:
            self._gc_pause_us.observe((time.perf_counter_ns() - self._gc_began) / 1000)
