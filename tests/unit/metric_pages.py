"""Metrics pages of made-up snapshots, in which nothing is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families

from server.errors import Cancelled, QueueFull, Reason
from server.metrics.machine import Machine
from server.metrics.page import MetricsPage, Request
from server.metrics.snapshots import (
    BuildSnapshot,
    CacheSnapshot,
    CallSnapshot,
    GpuSnapshot,
    HttpRequestsSnapshot,
    HttpSnapshot,
    ModelSnapshot,
    SequenceSnapshot,
    ServerSnapshot,
    Snapshot,
    TransportSnapshot,
    VersionSnapshot,
)
from server.metrics_config import MetricsConfig
from server.statistics import BatchTimes, VersionStatistics, no_failures
from server.summaries import LatencySummaries

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
EVERYTHING = MetricsConfig(summary_latencies=True)


def version(model: str = "m", number: int = 1, tags: Mapping[str, str] | None = None) -> VersionSnapshot:
    """Three requests that were answered in two batches, one that was cancelled, and one that found no room."""
    statistics = VersionStatistics()
    latest = LatencySummaries()
    for rows, requests in ((3, 2), (1, 1)):
        times = BatchTimes(0, 2_000, 9_000, 10_000)
        statistics.record_batch(times, rows, requests)
        latest.record_batch(100.0, times, requests)
    for _ in range(3):
        statistics.record_success(queue_ns=60_000, request_ns=150_999)
        latest.record_request(100.0, queue_ns=60_000, request_ns=150_999)
    statistics.record_failure(Cancelled("gone"), request_ns=1)
    statistics.record_failure(QueueFull("full"), request_ns=1)
    for met in (True, True, False):
        statistics.record_objective(met)
    for met in (True, True, True, True, False):
        statistics.record_deadline(met)
    statistics.failed_runs, statistics.reloads = 7, 2
    statistics.run_timeouts, statistics.hung_runs = 9, 3
    statistics.cache_hit.add(3_000, times=2)
    statistics.cache_miss.add(40_000)
    statistics.cache_joined = 1
    statistics.record_turn_wait(0.25)
    statistics.record_turn_wait(0.5)
    statistics.record_prediction(predicted=0.5, actual=0.25)
    return VersionSnapshot(
        model,
        number,
        tags or {},
        statistics,
        pending=4,
        in_flight=6,
        load_seconds=1.5,
        max_batch_rows=8,
        queue_age_seconds=0.125,
        busy_seconds=(3.5, 0.25),
        latest=latest.copy(100.0),
        has_cache=True,
        sequences=SequenceSnapshot(slots=16, active=12, backlog=9, reclaimed=5),
        costs=lambda: [(1, 0.001, 0.002, 9), (8, 0.004, 0.005, 9)],
    )


def snapshot(*versions: VersionSnapshot) -> Snapshot:
    """These versions in a server that has seen everything."""
    return Snapshot(
        versions=versions,
        models=[
            ModelSnapshot("m", {"1": True, "2": False}, loads=3, failed_loads=1),
            ModelSnapshot("broken", {"": False}, loads=0, failed_loads=2),
        ],
        server=ServerSnapshot(1, 2, no_failures() | {Reason.UNKNOWN_MODEL: 5, Reason.INVALID: 2}, 4, 3, 6, 700),
        calls=[CallSnapshot("unary", "some.Service", "Do", 12, {"OK": 9, "RESOURCE_EXHAUSTED": 2})],
        transport=TransportSnapshot(connections=3, opened=8, received_bytes=1000, sent_bytes=2000),
        http=HttpSnapshot(
            [HttpRequestsSnapshot("POST", "/v2/models/{model}/infer", {200: 6, 0: 1})],
            TransportSnapshot(2, 4, 500, 600),
        ),
        build=BuildSnapshot("0.1.0", "1.31.0", "nghttp2"),
        cache=CacheSnapshot(5, 4096, 8192, 6, 7, 8),
    )


GPU = GpuSnapshot("GPU-a", 0.4, 1000, 300, 71.5, 300.0, 3.0)


def page_of(
    config: MetricsConfig = EVERYTHING, *, cpu: bool = False, gpus: Sequence[GpuSnapshot] | None = None
) -> MetricsPage:
    reader = None if gpus is None else lambda: gpus
    return MetricsPage(config, Machine(float, interval=2, cpu=cpu, gpus=reader, page_locked=lambda: 4096))


def text_of(shown: Snapshot, config: MetricsConfig = EVERYTHING, **machine: bool) -> str:
    """The page as text."""
    return page_of(config, **machine).render(shown, Request()).body.decode()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Values by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]
