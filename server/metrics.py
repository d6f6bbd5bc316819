"""The metrics page: Triton's `nv_*` families by their own names, histograms beside them, and `convoy_*` for the rest.

Nothing is counted here. A scrape pulls snapshots, on the event loop's thread, from whoever counts.
`prometheus_client` appends `_total` to counters, and Triton's names have no such suffix: those families are untyped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

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
    costs: Sequence[tuple[int, float, float]] = ()
    """Rows, and the median and 99th percentile of the seconds that a batch of them takes."""


@dataclass(frozen=True, slots=True)
class ServerSnapshot:
    """What all models share."""

    running_batches: int = 0
    max_running_batches: float = inf


@dataclass(frozen=True, slots=True)
class GpuSnapshot:
    """One GPU, as a scrape finds it; None: this GPU does not say."""

    uuid: str
    utilization: float | None
    """0 to 1."""
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    power_usage_watts: float | None
    power_limit_watts: float | None
    energy_joules: float | None
    """Since the server started."""


GpuReader = Callable[[], Sequence[GpuSnapshot]]


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
    "convoy_turn_wait_duration_us": ("Time that batches waited for their turn", lambda s: s.turn_wait_us),
    "convoy_failed_runs": ("Runs that failed", lambda s: s.failed_runs),
    "convoy_model_reloads": ("Times that the version was loaded anew because its runs failed", lambda s: s.reloads),
    "convoy_batch_predicted_duration_us": (
        "Time that batches were predicted to take, where it could be",
        lambda s: s.predicted_seconds * 1e6,
    ),
    "convoy_batch_duration_us": ("Time that those batches took", lambda s: s.actual_seconds * 1e6),
}
"""Counters that Triton does not have; these names get the suffix `_total`."""

HISTOGRAMS: dict[str, tuple[str, Callable[[VersionStatistics], Histogram]]] = {
    "nv_inference_request_duration_histogram_us": ("Time from arrival to answer", lambda s: s.request_us),
    "nv_inference_queue_duration_histogram_us": ("Time in the queue", lambda s: s.queue_us),
    "nv_inference_compute_input_duration_histogram_us": ("Time to fill the batch", lambda s: s.compute_input_us),
    "nv_inference_compute_infer_duration_histogram_us": ("Time in the model", lambda s: s.compute_infer_us),
    "nv_inference_compute_output_duration_histogram_us": ("Time to split the batch", lambda s: s.compute_output_us),
    "nv_inference_batch_size_histogram": ("Rows in a batch", lambda s: s.batch_rows),
    "convoy_batch_duration_ratio_histogram": (
        "Time that a batch took, by the time that it was predicted to take",
        lambda s: s.prediction_ratio,
    ),
}

GAUGES: dict[str, tuple[str, Callable[[VersionSnapshot], float]]] = {
    "nv_inference_pending_request_count": ("Requests that wait for a batch", lambda v: v.pending),
    "nv_inference_in_flight_request_count": ("Requests admitted and not answered yet", lambda v: v.in_flight),
    "nv_model_load_duration_secs": ("Time that loading took", lambda v: v.load_seconds),
    "convoy_max_batch_rows": ("Rows that a batch may hold now", lambda v: v.max_batch_rows),
}


SERVER_GAUGES: dict[str, tuple[str, Callable[[ServerSnapshot], float]]] = {
    "convoy_running_batch_count": ("Batches that have a turn on the CPU", lambda s: s.running_batches),
    "convoy_running_batch_limit": ("Turns that there are", lambda s: s.max_running_batches),
}


GPU_FAMILIES: dict[str, tuple[str, str, Callable[[GpuSnapshot], float | None]]] = {
    "nv_gpu_utilization": ("GPU use, 0 to 1", "gauge", lambda g: g.utilization),
    "nv_gpu_memory_total_bytes": ("GPU memory", "gauge", lambda g: g.memory_total_bytes),
    "nv_gpu_memory_used_bytes": ("GPU memory in use", "gauge", lambda g: g.memory_used_bytes),
    "nv_gpu_power_usage": ("Power that the GPU draws, in watts", "gauge", lambda g: g.power_usage_watts),
    "nv_gpu_power_limit": ("Power that the GPU may draw, in watts", "gauge", lambda g: g.power_limit_watts),
    "nv_energy_consumption": ("Energy since the server started, in joules", "unknown", lambda g: g.energy_joules),
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
        yield _costs(versions, labels, names)
        for name, (text, histogram) in HISTOGRAMS.items():
            yield _histogram(name, text, [histogram(v.statistics) for v in versions], labels, names)


class ServerCollector(Collector):
    """Families without labels about the server as a whole."""

    def __init__(self, snapshot: Callable[[], ServerSnapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        server = self._snapshot()
        for name, (text, level) in SERVER_GAUGES.items():
            yield GaugeMetricFamily(name, text, value=level(server))


class CpuCollector(Collector):
    """The machine's processors and memory."""

    def collect(self) -> Iterator[Metric]:
        memory = psutil.virtual_memory()
        utilization = psutil.cpu_percent(interval=None) / 100  # since the last scrape
        yield GaugeMetricFamily("nv_cpu_utilization", "Processor use since the last scrape, 0 to 1", value=utilization)
        yield GaugeMetricFamily("nv_cpu_memory_total_bytes", "Main memory", value=memory.total)
        yield GaugeMetricFamily("nv_cpu_memory_used_bytes", "Main memory in use", value=memory.used)


class GpuCollector(Collector):
    """The machine's GPUs."""

    def __init__(self, read: GpuReader) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        gpus = self._read()
        for name, (text, kind, figure) in GPU_FAMILIES.items():
            family = Metric(name, text, kind)
            for gpu in gpus:
                value = figure(gpu)
                if value is not None:
                    family.add_sample(name, {"gpu_uuid": gpu.uuid}, value)
            yield family


def metrics_registry(
    snapshots: Callable[[], Sequence[VersionSnapshot]],
    server: Callable[[], ServerSnapshot] = ServerSnapshot,
    *,
    cpu: bool,
    gpus: GpuReader | None = None,
) -> CollectorRegistry:
    """Everything that the metrics page shows."""
    registry = CollectorRegistry()
    registry.register(ModelCollector(snapshots))
    registry.register(ServerCollector(server))
    if cpu:
        registry.register(CpuCollector())
    if gpus is not None:
        registry.register(GpuCollector(gpus))
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


def _costs(versions: Sequence[VersionSnapshot], labels: Sequence[dict[str, str]], tag_names: Sequence[str]) -> Metric:
    text = "Time that a batch of so many rows takes: the median and the 99th percentile"
    names = ("model", "version", *tag_names, "rows", "quantile")
    family = GaugeMetricFamily("convoy_batch_cost_us", text, labels=names)
    for version, values in zip(versions, labels, strict=True):
        for rows, median, worst in version.costs:
            for quantile, seconds in (("0.5", median), ("0.99", worst)):
                family.add_metric([*values.values(), str(rows), quantile], seconds * 1e6)
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
