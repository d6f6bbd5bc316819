"""What a scrape finds: copies of everything that is counted, taken on the event loop's thread, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from server.cache.store import StoreCounts
from server.errors import Reason
from server.loop_watch import LoopWatch
from server.metrics.snapshots import (
    BuildSnapshot,
    CacheSnapshot,
    CallSnapshot,
    HttpSnapshot,
    ModelSnapshot,
    SequenceSnapshot,
    ServerSnapshot,
    Snapshot,
    TransportSnapshot,
    VersionSnapshot,
)
from server.models.lifecycle import State
from server.models.registry import ModelEntry, Registry
from server.models.served import Served
from server.scheduling.turns import Turns

VERSIONS_AT_ONCE = 4
"""Copied between two turns of the loop."""


@dataclass(frozen=True, slots=True)
class Observer:
    """Knows whom to ask."""

    registry: Registry
    turns: Turns
    unseen_repositories: Callable[[], int]
    failures: Mapping[Reason, int]
    """Of requests that reached no version."""
    calls: Callable[[], Sequence[CallSnapshot]]
    transport: Callable[[], TransportSnapshot | None]
    watch: LoopWatch
    build: BuildSnapshot
    lost_traces: Callable[[], int] = int
    """None where nothing is traced."""
    shared_memory: Callable[[], tuple[int, int]] = lambda: (0, 0)
    """Regions that clients have registered, and their bytes."""
    http: Callable[[], HttpSnapshot] = HttpSnapshot
    answers: Callable[[], StoreCounts | None] = lambda: None
    """Of the response cache; None where there is none."""

    async def take(self) -> Snapshot:
        """Copy everything. Each version's figures are of one moment, and the loop goes on between them."""
        versions: list[VersionSnapshot] = []
        for count, loaded in enumerate(self.registry.active(), 1):
            versions.append(version_snapshot(loaded))
            if count % VERSIONS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return Snapshot(
            versions,
            [model_snapshot(entry) for entry in self.registry],
            ServerSnapshot(
                self.turns.running,
                self.turns.limit,
                dict(self.failures),
                self.lost_traces(),
                self.unseen_repositories(),
                *self.shared_memory(),
            ),
            self.calls(),
            self.transport(),
            self.http(),
            self.watch.snapshot(),
            self.build,
            cache_snapshot(self.answers()),
        )


def cache_snapshot(counts: StoreCounts | None) -> CacheSnapshot | None:
    if counts is None:
        return None
    return CacheSnapshot(
        counts.entries,
        counts.bytes,
        counts.capacity_bytes,
        counts.evictions,
        counts.not_stored,
        counts.failed_lookups,
        counts.is_connected,
    )


def version_snapshot(loaded: Served) -> VersionSnapshot:
    sequences = loaded.sequences()
    return VersionSnapshot(
        model=loaded.config.name,
        version=loaded.version,
        tags=loaded.config.metric_tags,
        statistics=loaded.statistics.copy(),
        pending=loaded.pending,
        in_flight=loaded.in_flight,
        load_seconds=loaded.load_seconds,
        max_batch_rows=loaded.max_batch_rows,
        queue_age_seconds=loaded.queue_age(),
        busy_seconds=loaded.busy_seconds(),
        latest=loaded.latest(),
        sequences=None
        if sequences is None
        else SequenceSnapshot(**sequences._asdict(), reclaimed=loaded.statistics.reclaimed_sequences),
        costs=loaded.costs.copy().lines,
        has_cache=loaded.config.response_cache,
    )


def model_snapshot(entry: ModelEntry) -> ModelSnapshot:
    ready = {
        str(number): status.state is State.READY
        for number, status in sorted(entry.statuses.items())
        if number not in entry.retired
    }
    if not ready and entry.problem:
        ready[""] = False
    return ModelSnapshot(entry.name, ready, entry.loads, entry.failed_loads)
