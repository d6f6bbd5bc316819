"""The server as the operating system and its metrics page show it, again and again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.error import URLError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as MetricSample

from loadtest.errors import LoadTestError
from loadtest.processes import Running

_SCRAPE_SECONDS = 60.0
_LAG = "convoy_event_loop_lag_histogram_us"
_WATCHED = {
    "in_flight": "nv_inference_in_flight_request_count",
    "pending": "nv_inference_pending_request_count",
    "running_batches": "convoy_running_batch_count",
    "regions": "convoy_shared_memory_region_count",
    "grpc_connections": "convoy_grpc_connections",
    "http_connections": "convoy_http_connections",
}
"""Fields of a sample, and the gauges that they add up."""


@dataclass(frozen=True)
class Page:
    """A metrics page."""

    samples: tuple[MetricSample, ...]

    def total(self, name: str, **labels: str) -> float:
        """Of all samples of that name which have these labels; 0 where there is none."""
        return sum(sample.value for sample in self._of(name, labels))

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """The same for each value of `label`."""
        totals: dict[str, float] = defaultdict(float)
        for sample in self._of(name, labels):
            totals[sample.labels.get(label, "")] += sample.value
        return dict(totals)

    def has(self, name: str) -> bool:
        return any(sample.name == name for sample in self.samples)

    def _of(self, name: str, labels: Mapping[str, str]) -> Iterable[MetricSample]:
        wanted = labels.items()
        return (sample for sample in self.samples if sample.name == name and wanted <= sample.labels.items())


def read_page(port: int, names: Iterable[str] = ()) -> Page:
    """The page, or only the samples of these names. Raises LoadTestError."""
    query = "&".join(f"name[]={name}" for name in names)
    url = f"http://127.0.0.1:{port}/metrics?{query}"
    try:
        with urlopen(url, timeout=_SCRAPE_SECONDS) as answer:
            text = answer.read().decode()
    except (URLError, OSError) as error:
        raise LoadTestError(f"{url}: {error}") from error
    return Page(tuple(sample for family in text_string_to_metric_families(text) for sample in family.samples))


@dataclass(frozen=True)
class Sample:
    """The server at one moment."""

    at_s: float
    """After the start of the load."""
    rss_bytes: int
    descriptors: int
    threads: int
    cpu_seconds: float
    in_flight: float
    pending: float
    running_batches: float
    regions: float
    grpc_connections: float
    http_connections: float
    lag_looks: float
    """How often the event loop's lag was looked at since the server began."""
    lag_us: float
    """The sum of what was seen."""


def take_sample(server: Running, at_s: float) -> Sample:
    """Looks once. Raises LoadTestError where the server has gone."""
    try:
        rss_bytes, descriptors = server.rss_bytes(), server.open_files()
        threads, cpu_seconds = server.threads(), server.cpu_seconds()
    except (OSError, ValueError) as error:
        raise LoadTestError(f"the server has gone, {at_s:.0f} s after the load began; see its log") from error
    page = read_page(server.ports["metrics"], (*_WATCHED.values(), f"{_LAG}_count", f"{_LAG}_sum"))
    return Sample(
        at_s,
        rss_bytes,
        descriptors,
        threads,
        cpu_seconds,
        **{field: page.total(name) for field, name in _WATCHED.items()},
        lag_looks=page.total(f"{_LAG}_count"),
        lag_us=page.total(f"{_LAG}_sum"),
    )


def lag_p99_us(page: Page) -> float:
    """The bucket of the event loop's lag that has the 99th percentile, since the server began."""
    buckets = {float(bound): count for bound, count in page.by("le", f"{_LAG}_bucket").items()}
    wanted = 0.99 * max(buckets.values(), default=0.0)
    return min((bound for bound, count in buckets.items() if count >= wanted), default=0.0)
