"""The families of the machine and of the process: read when they are asked for, and not anew within an interval, so
that two scrapers who come at the same time see the same, and neither a utilization of a few milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf

import psutil
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from server.metrics.snapshots import GpuReader, GpuSnapshot

GPU_FAMILIES: dict[str, tuple[str, str, Callable[[GpuSnapshot], float | None]]] = {
    "nv_gpu_utilization": ("GPU use, 0 to 1", "gauge", lambda g: g.utilization),
    "nv_gpu_memory_total_bytes": ("GPU memory", "gauge", lambda g: g.memory_total_bytes),
    "nv_gpu_memory_used_bytes": ("GPU memory in use", "gauge", lambda g: g.memory_used_bytes),
    "nv_gpu_power_usage": ("Power that the GPU draws, in watts", "gauge", lambda g: g.power_usage_watts),
    "nv_gpu_power_limit": ("Power that the GPU may draw, in watts", "gauge", lambda g: g.power_limit_watts),
    "nv_energy_consumption": ("Energy since the server started, in joules", "unknown", lambda g: g.energy_joules),
}

PINNED_FAMILIES = {
    "nv_pinned_memory_pool_total_bytes": "Page-locked memory that inputs for GPUs are staged in",
    "nv_pinned_memory_pool_used_bytes": "How much of it is in use",
}


class Machine:
    """Reads the machine. `clock` gives seconds; `page_locked` the bytes that GPUs read by themselves."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        interval: float,
        cpu: bool,
        gpus: GpuReader | None = None,
        page_locked: Callable[[], int] = int,
    ) -> None:
        self._clock = clock
        self._interval = interval
        self._cpu = cpu
        self._gpus = gpus
        self._page_locked = page_locked
        self._read_at = -inf
        self._families: list[Metric] = []
        self._own = psutil.Process()
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        GCCollector(registry=self._process)
        if cpu:
            psutil.cpu_percent(interval=None)  # from here on the first reading counts

    def families(self) -> Iterator[Metric]:
        """The machine's figures, at most an interval old, and the process's."""
        now = self._clock()
        if now - self._read_at >= self._interval:
            self._read_at = now
            self._families = list(self._read())
        yield from self._families
        yield GaugeMetricFamily("convoy_process_threads", "Threads of the process", value=self._own.num_threads())
        yield from self._process.collect()

    def _read(self) -> Iterator[Metric]:
        if self._cpu:
            yield from cpu_families()
        if self._gpus is not None:
            yield from gpu_families(self._gpus())
            # Nothing is set aside: what is page-locked is in use.
            for name, text in PINNED_FAMILIES.items():
                yield GaugeMetricFamily(name, text, value=self._page_locked())


def cpu_families() -> Iterator[Metric]:
    """The machine's processors and memory."""
    memory = psutil.virtual_memory()
    utilization = psutil.cpu_percent(interval=None) / 100  # since the last reading
    yield GaugeMetricFamily("nv_cpu_utilization", "Processor use since the last reading, 0 to 1", value=utilization)
    yield GaugeMetricFamily("nv_cpu_memory_total_bytes", "Main memory", value=memory.total)
    yield GaugeMetricFamily("nv_cpu_memory_used_bytes", "Main memory in use", value=memory.used)


def gpu_families(gpus: Sequence[GpuSnapshot]) -> Iterator[Metric]:
    """The machine's GPUs. A figure that a GPU does not give is left out."""
    for name, (text, kind, figure) in GPU_FAMILIES.items():
        family = Metric(name, text, kind)
        for gpu in gpus:
            value = figure(gpu)
            if value is not None:
                family.add_sample(name, {"gpu_uuid": gpu.uuid}, value)
        yield family
