"""A snapshot as Prometheus's metric families: Triton's `nv_*` by their own names, histograms beside them, `grpc_*` as
other gRPC servers have them, and `convoy_*` for the rest.

`prometheus_client` appends `_total` to counters, and Triton's names have no such suffix: those families are untyped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import inf

from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from server.errors import TRITON_REASONS, FailureReason, Reason
from server.ledger import FAILURES, AccountSnapshot
from server.metrics.snapshots import (
    CacheSnapshot,
    CallSnapshot,
    HttpSnapshot,
    ModelSnapshot,
    Snapshot,
    VersionSnapshot,
)
from server.metrics.tables import (
    CACHE_COUNTERS,
    CACHE_GAUGES,
    CACHE_TOTALS,
    CODE_WORDS,
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    LATENCY_COUNTERS,
    LATENCY_HISTOGRAMS,
    LOCAL_CACHE_GAUGES,
    OWN_CACHE_COUNTERS,
    OWN_COUNTERS,
    REASONS_OF_VERSIONS,
    REASONS_WITHOUT_VERSION,
    SEQUENCES,
    SERVER_GAUGES,
    SUMMARIES,
)
from server.metrics_config import MetricsConfig
from server.statistics import Histogram
from server.summaries import quantiles

Labels = dict[str, str]


def families(snapshot: Snapshot, config: MetricsConfig) -> Iterator[Metric]:
    """Everything that is counted in this process."""
    yield from version_families(snapshot.versions, snapshot.server.failures, config)
    yield from model_families(snapshot.models)
    yield from server_families(snapshot)
    yield from call_families(snapshot.calls)
    yield from http_families(snapshot.http)
    yield from ledger_families(snapshot.ledger)


def version_families(
    versions: Sequence[VersionSnapshot], unrouted: Mapping[Reason, int], config: MetricsConfig
) -> Iterator[Metric]:
    """Families about loaded versions, and the failures of requests that reached none of them."""
    tags = tuple(dict.fromkeys(tag_label(tag) for version in versions for tag in version.tags))
    labelled = [(version, _labels(version, tags)) for version in versions]
    for name, (text, count) in (COUNTERS | (LATENCY_COUNTERS if config.counter_latencies else {})).items():
        family = Metric(name, text, "unknown")
        for version, labels in labelled:
            family.add_sample(name, labels, count(version.statistics))
        yield family
    yield from _cached(labelled, config)
    yield _triton_failures(labelled)
    yield _failures(labelled, unrouted, tags)
    for name, (text, count) in OWN_COUNTERS.items():
        family = Metric(name, text, "counter")
        for version, labels in labelled:
            family.add_sample(f"{name}_total", labels, count(version.statistics))
        yield family
    for name, (text, level) in GAUGES.items():
        family = Metric(name, text, "gauge")
        for version, labels in labelled:
            family.add_sample(name, labels, level(version))
        yield family
    for name, (kind, text, figure) in SEQUENCES.items():
        family = Metric(name, text, kind)
        for version, labels in labelled:
            if version.sequences is not None:
                family.add_sample(f"{name}_total" if kind == "counter" else name, labels, figure(version.sequences))
        yield family
    yield _busy_seconds(labelled)
    yield _costs(labelled)
    for name, (text, histogram) in HISTOGRAMS.items():
        yield histogram_family(name, text, [(histogram(version.statistics), labels) for version, labels in labelled])
    if config.histogram_latencies:
        for name, (text, latency) in LATENCY_HISTOGRAMS.items():
            histograms = [(latency(version.statistics).histogram, labels) for version, labels in labelled]
            yield histogram_family(name, text, histograms)
    if config.summary_latencies:
        for name in SUMMARIES:
            yield _summary(name, labelled, config.summary_quantiles)


def model_families(models: Sequence[ModelSnapshot]) -> Iterator[Metric]:
    """Families about models that are known, loaded or not. They have no labels of metric tags, which would change when
    a version is unloaded."""
    ready = Metric("convoy_model_ready", 'Whether the version serves; version "": the model has none', "gauge")
    loads = Metric("convoy_model_load_success", "Loads and reloads of a version that succeeded", "counter")
    failed = Metric("convoy_model_load_failure", "Loads and reloads that failed", "counter")
    for model in models:
        for version, is_ready in model.ready.items():
            ready.add_sample(ready.name, {"model": model.name, "version": version}, int(is_ready))
        loads.add_sample(f"{loads.name}_total", {"model": model.name}, model.loads)
        failed.add_sample(f"{failed.name}_total", {"model": model.name}, model.failed_loads)
    yield from (ready, loads, failed)


def server_families(snapshot: Snapshot) -> Iterator[Metric]:
    """Families without labels about the server as a whole."""
    for name, (text, level) in SERVER_GAUGES.items():
        yield _single(name, text, "gauge", level(snapshot.server))
    yield _single("convoy_traces_lost", "Traces that reached nobody", "counter", snapshot.server.lost_traces)
    transport = snapshot.transport
    if transport is not None:
        yield _single("convoy_grpc_connections", "Open connections", "gauge", transport.connections)
        yield _single("convoy_grpc_connections_opened", "Connections that were opened", "counter", transport.opened)
        yield _single("convoy_grpc_received_bytes", "Bytes received, as HTTP/2", "counter", transport.received_bytes)
        yield _single("convoy_grpc_sent_bytes", "Bytes sent, as HTTP/2", "counter", transport.sent_bytes)
    if snapshot.cache is not None:
        yield from cache_families(snapshot.cache)
    memory = snapshot.memory
    yield _single("convoy_memory_budget_bytes", "What requests and answers may hold", "gauge", memory.limit_bytes)
    yield _single("convoy_memory_used_bytes", "What they hold", "gauge", memory.used_bytes)
    yield _single("convoy_memory_refused", "Requests and answers without room in it", "counter", memory.refused)
    loop = snapshot.loop
    yield histogram_family(
        "convoy_event_loop_lag_histogram_us", "Time by which the event loop was late, sampled", [(loop.lag_us, {})]
    )
    yield histogram_family(
        "convoy_gc_pause_histogram_us", "Time that garbage collections took", [(loop.gc_pause_us, {})]
    )
    build = Metric("convoy_build_info", "What runs here; always 1", "gauge")
    labels = {
        "version": snapshot.build.version,
        "onnxruntime": snapshot.build.onnxruntime,
        "grpc_engine": snapshot.build.grpc_engine,
    }
    build.add_sample(build.name, labels, 1)
    yield build


def cache_families(cache: CacheSnapshot) -> Iterator[Metric]:
    """Families without labels about the response cache. Only one in this process knows what it holds."""
    for name, (text, level) in (CACHE_GAUGES | (LOCAL_CACHE_GAUGES if cache.capacity_bytes else {})).items():
        yield _single(name, text, "gauge", level(cache))
    for name, (text, count) in CACHE_TOTALS.items():
        yield _single(name, text, "counter", count(cache))


def call_families(calls: Sequence[CallSnapshot]) -> Iterator[Metric]:
    """gRPC calls, by the names of go-grpc-prometheus."""
    started = Metric("grpc_server_started", "Calls that began", "counter")
    handled = Metric("grpc_server_handled", "Calls that ended, by status", "counter")
    for call in calls:
        labels = {"grpc_type": call.type, "grpc_service": call.service, "grpc_method": call.method}
        started.add_sample("grpc_server_started_total", labels, call.started)
        for code, count in call.handled.items():
            handled.add_sample("grpc_server_handled_total", labels | {"grpc_code": CODE_WORDS[code]}, count)
    yield from (started, handled)


def ledger_families(accounts: Sequence[AccountSnapshot]) -> Iterator[Metric]:
    """Inference requests by protocol: what was received is what has ended and what is in progress, at every moment."""
    received = Metric(
        "convoy_ledger_received", "Inference requests that were read in full, or refused before", "counter"
    )
    ended = Metric("convoy_ledger_ended", "Those that are done with, by outcome and reason", "counter")
    progress = Metric("convoy_ledger_in_progress", "Those that are not", "gauge")
    twice = Metric("convoy_ledger_answered_twice", "Answers too many; always 0 but for a bug", "counter")
    for account in accounts:
        labels = {"protocol": account.protocol}
        received.add_sample(f"{received.name}_total", labels, account.received)
        for outcome, count in (("answered", account.answered), ("abandoned", account.abandoned)):
            ended.add_sample(f"{ended.name}_total", labels | {"outcome": outcome, "reason": ""}, count)
        for reason, count in account.by_reason.items():
            outcome = "failed" if reason in FAILURES else "refused"
            ended.add_sample(f"{ended.name}_total", labels | {"outcome": outcome, "reason": reason}, count)
        progress.add_sample(progress.name, labels, account.in_progress)
        twice.add_sample(f"{twice.name}_total", labels, account.answered_twice)
    yield from (received, ended, progress, twice)


def http_families(http: HttpSnapshot) -> Iterator[Metric]:
    """HTTP requests, by route and status, and the connections that they came on."""
    requests = Metric("convoy_http_requests", "Requests that ended, by status", "counter")
    for counts in http.requests:
        for status, count in counts.handled.items():
            labels = {"method": counts.verb, "route": counts.route, "status": str(status) if status else "gone"}
            requests.add_sample("convoy_http_requests_total", labels, count)
    yield requests
    transport = http.transport
    yield _single("convoy_http_connections", "Open connections", "gauge", transport.connections)
    yield _single("convoy_http_connections_opened", "Connections that were opened", "counter", transport.opened)
    yield _single("convoy_http_received_bytes", "Bytes received, as HTTP", "counter", transport.received_bytes)
    yield _single("convoy_http_sent_bytes", "Bytes sent, as HTTP", "counter", transport.sent_bytes)


def histogram_family(name: str, text: str, histograms: Iterable[tuple[Histogram, Labels]]) -> Metric:
    """Histograms with cumulative buckets, a sum and a count."""
    family = Metric(name, text, "histogram")
    for histogram, labels in histograms:
        running = 0
        for bound, count in zip((*histogram.bounds, inf), histogram.counts, strict=True):
            running += count
            family.add_sample(f"{name}_bucket", {**labels, "le": _bound(bound)}, running)
        family.add_sample(f"{name}_count", labels, running)
        family.add_sample(f"{name}_sum", labels, histogram.total)
    return family


def _summary(name: str, labelled: Iterable[tuple[VersionSnapshot, Labels]], shares: Sequence[float]) -> Metric:
    text, slices, latency_of = SUMMARIES[name]
    family = Metric(name, f"{text}: quantiles of the last minute", "summary")
    for version, labels in labelled:
        values = quantiles(slices(version.latest) if version.latest else (), shares)
        for share, value in zip(shares, values, strict=True):
            family.add_sample(name, {**labels, "quantile": _bound(share)}, value)
        latency = latency_of(version.statistics)
        family.add_sample(f"{name}_count", labels, latency.count)
        family.add_sample(f"{name}_sum", labels, latency.ns / 1000)
    return family


def tag_label(tag: str) -> str:
    """The label of a metric tag, as Triton names it; what no label may hold becomes an underscore."""
    return "_" + re.sub("[^a-zA-Z0-9_]", "_", tag)


@lru_cache(maxsize=256)
def _bound(value: float) -> str:
    """As OpenMetrics wants numbers in labels."""
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text


def _labels(version: VersionSnapshot, tag_names: Iterable[str]) -> dict[str, str]:
    tags = {tag_label(tag): value for tag, value in version.tags.items()}
    return {"model": version.model, "version": str(version.version)} | {name: tags.get(name, "") for name in tag_names}


def _single(name: str, text: str, kind: str, value: float) -> Metric:
    family = Metric(name, text, kind)
    family.add_sample(f"{name}_total" if kind == "counter" else name, {}, value)
    return family


def _cached(labelled: Iterable[tuple[VersionSnapshot, Labels]], config: MetricsConfig) -> Iterator[Metric]:
    """Families of the models whose answers are kept; where there is none, there are no families."""
    of_interest = [each for each in labelled if each[0].has_cache]
    if not of_interest:
        return
    for name, (text, count) in (CACHE_COUNTERS if config.counter_latencies else {}).items():
        family = Metric(name, text, "unknown")
        for version, labels in of_interest:
            family.add_sample(name, labels, count(version.statistics))
        yield family
    for name, (text, count) in OWN_CACHE_COUNTERS.items():
        family = Metric(name, text, "counter")
        for version, labels in of_interest:
            family.add_sample(f"{name}_total", labels, count(version.statistics))
        yield family


def _triton_failures(labelled: Iterable[tuple[VersionSnapshot, Labels]]) -> Metric:
    name = "nv_inference_request_failure"
    family = Metric(name, "Requests that got no result, by reason as Triton has it", "unknown")
    for version, labels in labelled:
        counts = dict.fromkeys(FailureReason, 0)
        for reason, count in version.statistics.failures.items():
            counts[TRITON_REASONS[reason]] += count
        for triton_reason, count in counts.items():
            family.add_sample(name, {**labels, "reason": triton_reason.value}, count)
    return family


def _failures(
    labelled: Iterable[tuple[VersionSnapshot, Labels]], unrouted: Mapping[Reason, int], tags: Iterable[str]
) -> Metric:
    family = Metric("convoy_request_failed", "Requests that got no result, by reason", "counter")
    nowhere = {"model": "", "version": ""} | dict.fromkeys(tags, "")
    for reason in REASONS_WITHOUT_VERSION:
        family.add_sample(f"{family.name}_total", nowhere | {"reason": reason.value}, unrouted[reason])
    for version, labels in labelled:
        for reason in REASONS_OF_VERSIONS:
            count = version.statistics.failures[reason]
            family.add_sample(f"{family.name}_total", {**labels, "reason": reason.value}, count)
    return family


def _busy_seconds(labelled: Iterable[tuple[VersionSnapshot, Labels]]) -> Metric:
    family = Metric("convoy_instance_busy_seconds", "Time that an instance has had a batch", "counter")
    for version, labels in labelled:
        for index, seconds in enumerate(version.busy_seconds):
            family.add_sample(f"{family.name}_total", {**labels, "model_instance": str(index)}, seconds)
    return family


def _costs(labelled: Iterable[tuple[VersionSnapshot, Labels]]) -> Metric:
    text = "Time that a batch of so many rows takes: the median and the 99th percentile"
    family = Metric("convoy_batch_cost_us", text, "gauge")
    for version, labels in labelled:
        for rows, median, worst, _ in version.costs():
            for quantile, seconds in (("0.5", median), ("0.99", worst)):
                family.add_sample(family.name, {**labels, "rows": str(rows), "quantile": quantile}, seconds * 1e6)
    return family
