"""What a scrape finds, copied on the event loop's thread so that another may read it at leisure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from server.errors import Reason
from server.ledger import AccountSnapshot
from server.statistics import LATENCY_BOUNDS_US, Histogram, VersionStatistics, no_failures
from server.summaries import SummarySlices


@dataclass(frozen=True, slots=True)
class SequenceSnapshot:
    """The sequences of a version whose requests come in such."""

    slots: int
    active: int
    """Sequences that have a slot."""
    backlog: int
    """Sequences that wait for one."""
    reclaimed: int
    """Sequences that were silent for too long, so far."""


@dataclass(frozen=True, slots=True)
class VersionSnapshot:
    """One loaded version."""

    model: str
    version: int
    tags: Mapping[str, str]
    """The configuration's metric_tags; labels named with a leading underscore, as Triton names them."""
    statistics: VersionStatistics
    pending: int
    in_flight: int
    load_seconds: float
    max_batch_rows: int
    queue_age_seconds: float = 0.0
    busy_seconds: Sequence[float] = ()
    """Instance by instance."""
    latest: SummarySlices | None = None
    """Latencies of the last minute, where they are kept."""
    sequences: SequenceSnapshot | None = None
    """None where the model has none."""
    costs: Callable[[], Iterable[tuple[int, float, float, int]]] = tuple
    """Rows, the median and 99th percentile of the seconds that a batch of them takes, and of how many runs. Called by
    whoever renders, since it takes longer than the copy that it works on."""
    has_cache: bool = False
    """Whether its configuration wants answers to be kept."""


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """One model that is known, loaded or not."""

    name: str
    ready: Mapping[str, bool]
    """By version; "" where the model as a whole cannot be served."""
    loads: int = 0
    failed_loads: int = 0


@dataclass(frozen=True, slots=True)
class ServerSnapshot:
    """What all models share."""

    running_batches: int = 0
    max_running_batches: float = inf
    failures: Mapping[Reason, int] = field(default_factory=no_failures)
    """Requests that reached no version."""
    lost_traces: int = 0
    unseen_repositories: int = 0
    shared_regions: int = 0
    shared_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CallSnapshot:
    """One gRPC method."""

    type: str
    service: str
    method: str
    started: int
    handled: Mapping[str, int]
    """By the name of the status."""


@dataclass(frozen=True, slots=True)
class HttpRequestsSnapshot:
    """The requests of one verb on one route."""

    verb: str
    route: str
    handled: Mapping[int, int]
    """By status; 0: the caller went away first."""


@dataclass(frozen=True, slots=True)
class TransportSnapshot:
    """The connections of a listener that tells of them."""

    connections: int
    opened: int
    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class HttpSnapshot:
    """HTTP, metrics pages of another port left out."""

    requests: Sequence[HttpRequestsSnapshot] = ()
    transport: TransportSnapshot = field(default_factory=lambda: TransportSnapshot(0, 0, 0, 0))


@dataclass(frozen=True, slots=True)
class LoopSnapshot:
    """What holds up everybody."""

    lag_us: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS_US))
    gc_pause_us: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS_US))


@dataclass(frozen=True, slots=True)
class BuildSnapshot:
    """What runs here."""

    version: str = ""
    onnxruntime: str = ""
    grpc_engine: str = ""


@dataclass(frozen=True, slots=True)
class CacheSnapshot:
    """The place where answers are kept."""

    entries: int = 0
    bytes: int = 0
    capacity_bytes: int = 0
    """0: it is at a distance, and neither this nor what it holds is known here."""
    evictions: int = 0
    not_stored: int = 0
    failed_lookups: int = 0
    is_connected: bool = True


@dataclass(frozen=True, slots=True)
class GpuSnapshot:
    """One GPU; None: this GPU does not say."""

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


@dataclass(frozen=True, slots=True)
class MemorySnapshot:
    """The memory budget of requests and answers."""

    limit_bytes: int
    used_bytes: int
    refused: int
    """Requests and answers, so far, that there was no room for."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is counted in this process."""

    versions: Sequence[VersionSnapshot] = ()
    models: Sequence[ModelSnapshot] = ()
    server: ServerSnapshot = field(default_factory=ServerSnapshot)
    calls: Sequence[CallSnapshot] = ()
    transport: TransportSnapshot | None = None
    """Of gRPC; None where the engine does not tell."""
    http: HttpSnapshot = field(default_factory=HttpSnapshot)
    loop: LoopSnapshot = field(default_factory=LoopSnapshot)
    build: BuildSnapshot = field(default_factory=BuildSnapshot)
    cache: CacheSnapshot | None = None
    """None where there is no response cache."""
    ledger: Sequence[AccountSnapshot] = ()
    memory: MemorySnapshot = field(default_factory=lambda: MemorySnapshot(0, 0, 0))
