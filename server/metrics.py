"""The metrics page: Triton's `nv_*` families by their own names, histograms beside them, and `convoy_*` for the rest.

Nothing is counted here. A scrape pulls snapshots, on the event loop's thread, from whoever counts.
`prometheus_client` appends `_total` to counters, and Triton's names have no such suffix: those families are untyped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server.statistics import Histogram, VersionStatistics


@dataclass(frozen=True, slots=True)
class VersionSnapshot:
    """One loaded version, as a scrape finds it."""

    model: str
    version: int
    tags: Mapping[str, str]
    """The configuration's metric_tags; labels named with a leading underscore, as Triton names them."""
    statistics: VersionStatistics
    pending: int
    in_flight: int
    load_seconds: float
    max_batch_rows: int


COUNTERS: dict[str, tuple[str, Callable[[VersionStatistics], float]]] = {
    "nv_inference_request_success": ("Requests answered", lambda s: s.success.count),
    "nv_inference_count": ("Rows inferred", lambda s: s.inference_count),
    "nv_inference_exec_count": ("Batches run", lambda s: s.execution_count),
    "nv_inference_request_duration_us": ("Time from arrival to answer, all requests", lambda s: s.success.ns // 1000),
    "nv_inference_queue_duration_us": ("Time in the queue, all requests", lambda s: s.queue.ns // 1000),
    "nv_inference_compute_input_duration_us": ("Time to fill batches", lambda s: s.compute_input.ns // 1000),
    "nv_inference_compute_infer_duration_us": ("Time in the model", lambda s: s.compute_infer.ns // 1000),
    "nv_inference_compute_output_duration_us": ("Time to split batches", lambda s: s.compute_output.ns // 1000),
}

OWN_COUNTERS: dict[str, tuple[str, Callable[[VersionStatistics], float]]] = {
    "convoy_objective_met": ("Answers within the latency objective", lambda s: s.objective_met),
    "convoy_objective_missed": ("Answers later than the latency objective", lambda s: s.objective_missed),
    "convoy_failed_runs": ("Runs that failed", lambda s: s.failed_runs),
    "convoy_model_reloads": ("Times that the version was loaded anew because its runs failed", lambda s: s.reloads),
}
"""Counters that Triton does not have; these names get the suffix `_total`."""

HISTOGRAMS: dict[str, tuple[str, Callable[[VersionStatistics], Histogram]]] = {
    "nv_inference_request_duration_histogram_us": ("Time from arrival to answer", lambda s: s.request_us),
    "nv_inference_queue_duration_histogram_us": ("Time in the queue", lambda s: s.queue_us),
    "nv_inference_compute_input_duration_histogram_us": ("Time to fill the batch", lambda s: s.compute_input_us),
    "nv_inference_compute_infer_duration_histogram_us": ("Time in the model", lambda s: s.compute_infer_us),
    "nv_inference_compute_output_duration_histogram_us": ("Time to split the batch", lambda s: s.compute_output_us),
    "nv_inference_batch_size_histogram": ("Rows in a batch", lambda s: s.batch_rows),
}

GAUGES: dict[str, tuple[str, Callable[[VersionSnapshot], float]]] = {
    "nv_inference_pending_request_count": ("Requests that wait for a batch", lambda v: v.pending),
    "nv_inference_in_flight_request_count": ("Requests admitted and not answered yet", lambda v: v.in_flight),
    "nv_model_load_duration_secs": ("Time that loading took", lambda v: v.load_seconds),
    "convoy_max_batch_rows": ("Rows that a batch may hold now", lambda v: v.max_batch_rows),
}


class ModelCollector(Collector):
    """Families about loaded versions."""

    def __init__(self, snapshots: Callable[[], Sequence[VersionSnapshot]]) -> None:
        self._snapshots = snapshots

    def collect(self) -> Iterator[Metric]:
        versions = self._snapshots()
        names = tuple(dict.fromkeys(f"_{tag}" for version in versions for tag in version.tags))
        labels = [_labels(version, names) for version in versions]
        for name, (text, count) in COUNTERS.items():
            family = Metric(name, text, "unknown")
            for version, values in zip(versions, labels, strict=True):
                family.add_sample(name, values, count(version.statistics))
            yield family
        yield _failures(versions, labels)
        yield _refusals(versions, labels, names)
        for name, (text, count) in OWN_COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=("model", "version", *names))
            for version, values in zip(versions, labels, strict=True):
                counter.add_metric(list(values.values()), count(version.statistics))
            yield counter
        for name, (text, level) in GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=("model", "version", *names))
            for version, values in zip(versions, labels, strict=True):
                gauge.add_metric(list(values.values()), level(version))
            yield gauge
        for name, (text, histogram) in HISTOGRAMS.items():
            yield _histogram(name, text, [histogram(v.statistics) for v in versions], labels, names)


class CpuCollector(Collector):
    """The machine's processors and memory."""

    def collect(self) -> Iterator[Metric]:
        memory = psutil.virtual_memory()
        utilization = psutil.cpu_percent(interval=None) / 100  # since the last scrape
        yield GaugeMetricFamily("nv_cpu_utilization", "Processor use since the last scrape, 0 to 1", value=utilization)
        yield GaugeMetricFamily("nv_cpu_memory_total_bytes", "Main memory", value=memory.total)
        yield GaugeMetricFamily("nv_cpu_memory_used_bytes", "Main memory in use", value=memory.used)


def metrics_registry(snapshots: Callable[[], Sequence[VersionSnapshot]], *, cpu: bool) -> CollectorRegistry:
    """Everything that the metrics page shows."""
    registry = CollectorRegistry()
    registry.register(ModelCollector(snapshots))
    if cpu:
        registry.register(CpuCollector())
    ProcessCollector(registry=registry)
    return registry


def _labels(version: VersionSnapshot, tag_names: Iterable[str]) -> dict[str, str]:
    tags = {f"_{tag}": value for tag, value in version.tags.items()}
    return {"model": version.model, "version": str(version.version)} | {name: tags.get(name, "") for name in tag_names}


def _failures(versions: Sequence[VersionSnapshot], labels: Sequence[dict[str, str]]) -> Metric:
    name = "nv_inference_request_failure"
    family = Metric(name, "Requests that got no result, by reason", "unknown")
    for version, values in zip(versions, labels, strict=True):
        for reason, count in version.statistics.failures.items():
            family.add_sample(name, values | {"reason": reason.value}, count)
    return family


def _refusals(
    versions: Sequence[VersionSnapshot], labels: Sequence[dict[str, str]], tag_names: Sequence[str]
) -> Metric:
    family = CounterMetricFamily(
        "convoy_request_refused",
        "Requests turned away although nothing was wrong with them, by reason",
        labels=("model", "version", *tag_names, "reason"),
    )
    for version, values in zip(versions, labels, strict=True):
        for reason, count in version.statistics.refusals.items():
            family.add_metric([*values.values(), reason], count)
    return family


def _histogram(
    name: str, text: str, histograms: Sequence[Histogram], labels: Sequence[dict[str, str]], tag_names: Sequence[str]
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=("model", "version", *tag_names))
    for histogram, values in zip(histograms, labels, strict=True):
        running = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
            running += count
            buckets.append((str(bound), running))
        family.add_metric(list(values.values()), buckets, sum_value=histogram.total)
    return family
