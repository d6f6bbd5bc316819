"""The families about versions and about the server that are one figure each: name, text, and where it comes from.

Names of Triton's counters have no suffix `_total`, and so they are exposed as untyped; ours get it.
"""

from __future__ import annotations

from collections.abc import Callable

from server.errors import Reason
from server.metrics.snapshots import CacheSnapshot, SequenceSnapshot, ServerSnapshot, VersionSnapshot
from server.statistics import Histogram, Latency, VersionStatistics
from server.summaries import Slices, SummarySlices

COUNTERS: dict[str, tuple[str, Callable[[VersionStatistics], float]]] = {
    "nv_inference_request_success": ("Requests answered", lambda s: s.success.count),
    "nv_inference_count": ("Rows inferred", lambda s: s.inference_count),
    "nv_inference_exec_count": ("Batches run", lambda s: s.execution_count),
}

LATENCY_COUNTERS: dict[str, tuple[str, Callable[[VersionStatistics], float]]] = {
    "nv_inference_request_duration_us": ("Time from arrival to answer, all requests", lambda s: s.success.ns // 1000),
    "nv_inference_queue_duration_us": ("Time in the queue, all requests", lambda s: s.queue.ns // 1000),
    "nv_inference_compute_input_duration_us": ("Time to fill batches", lambda s: s.compute_input.ns // 1000),
    "nv_inference_compute_infer_duration_us": ("Time in the model", lambda s: s.compute_infer.ns // 1000),
    "nv_inference_compute_output_duration_us": ("Time to split batches", lambda s: s.compute_output.ns // 1000),
}

CACHE_COUNTERS: dict[str, tuple[str, Callable[[VersionStatistics], float]]] = {
    "nv_cache_num_hits_per_model": ("Answers out of the response cache", lambda s: s.cache_hit.count),
    "nv_cache_num_misses_per_model": ("Answers that had to be computed first", lambda s: s.cache_miss.count),
    "nv_cache_hit_duration_per_model": ("Microseconds to look up hits", lambda s: s.cache_hit.ns // 1000),
    "nv_cache_miss_duration_per_model": (
        "Microseconds to look up misses and to keep their answers",
        lambda s: s.cache_miss.ns // 1000,
    ),
}
"""Of models with a response cache."""

OWN_CACHE_COUNTERS: dict[str, tuple[str, Callable[[VersionStatistics], float]]] = {
    "convoy_cache_joined": ("Hits that waited for an equal request in progress", lambda s: s.cache_joined),
}

OWN_COUNTERS: dict[str, tuple[str, Callable[[VersionStatistics], float]]] = {
    "convoy_objective_met": ("Answers within the latency objective", lambda s: s.objective_met),
    "convoy_objective_missed": ("Answers later than the latency objective", lambda s: s.objective_missed),
    "convoy_deadline_met": (
        "Answers in time, of requests with a deadline of the caller's, a timeout or an objective",
        lambda s: s.deadline_met,
    ),
    "convoy_deadline_missed": (
        "Requests with such a deadline that got no answer in time, unless their caller was at fault",
        lambda s: s.deadline_missed,
    ),
    "convoy_turn_wait_duration_us": ("Time that batches waited for their turn", lambda s: s.turn_wait_us),
    "convoy_failed_runs": ("Runs that failed", lambda s: s.failed_runs),
    "convoy_run_timeouts": ("Runs that took longer than run_timeout_ms", lambda s: s.run_timeouts),
    "convoy_model_reloads": ("Times that the version was loaded anew because its runs failed", lambda s: s.reloads),
    "convoy_batch_predicted_duration_us": (
        "Time that batches were predicted to take, where it could be",
        lambda s: s.predicted_seconds * 1e6,
    ),
    "convoy_batch_duration_us": ("Time that those batches took", lambda s: s.actual_seconds * 1e6),
}
"""Counters that Triton does not have; their names get the suffix `_total`."""

LATENCY_HISTOGRAMS: dict[str, tuple[str, Callable[[VersionStatistics], Latency]]] = {
    "nv_inference_request_duration_histogram_us": ("Time from arrival to answer", lambda s: s.success),
    "nv_inference_queue_duration_histogram_us": ("Time in the queue", lambda s: s.queue),
    "nv_inference_compute_input_duration_histogram_us": ("Time to fill the batch", lambda s: s.compute_input),
    "nv_inference_compute_infer_duration_histogram_us": ("Time in the model", lambda s: s.compute_infer),
    "nv_inference_compute_output_duration_histogram_us": (
        "Time to split the batch",
        lambda s: s.compute_output,
    ),
}

SUMMARIES: dict[str, tuple[str, Callable[[SummarySlices], Slices], Callable[[VersionStatistics], Latency]]] = {
    "nv_inference_request_summary_us": (
        "Time from arrival to answer",
        lambda x: x.request,
        lambda s: s.success,
    ),
    "nv_inference_queue_summary_us": ("Time in the queue", lambda x: x.queue, lambda s: s.queue),
    "nv_inference_compute_input_summary_us": (
        "Time to fill the batch",
        lambda x: x.compute_input,
        lambda s: s.compute_input,
    ),
    "nv_inference_compute_infer_summary_us": (
        "Time in the model",
        lambda x: x.compute_infer,
        lambda s: s.compute_infer,
    ),
    "nv_inference_compute_output_summary_us": (
        "Time to split the batch",
        lambda x: x.compute_output,
        lambda s: s.compute_output,
    ),
}
"""Quantiles of the last minute; their sum and count, since the start, are those of the histogram."""

HISTOGRAMS: dict[str, tuple[str, Callable[[VersionStatistics], Histogram]]] = {
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
    "convoy_queue_age_us": (
        "Time that the request has waited which has waited longest; 0 for none",
        lambda v: v.queue_age_seconds * 1e6,
    ),
    "convoy_hung_runs": (
        "Runs that took longer than run_timeout_ms and did not come back",
        lambda v: v.statistics.hung_runs,
    ),
    "convoy_max_batch_rows": ("Rows that a batch may hold now", lambda v: v.max_batch_rows),
}

SEQUENCES: dict[str, tuple[str, str, Callable[[SequenceSnapshot], float]]] = {
    "convoy_sequence_slots": ("gauge", "Sequences that may be served at a time", lambda s: s.slots),
    "convoy_sequences_active": ("gauge", "Sequences that have a slot", lambda s: s.active),
    "convoy_sequences_backlog": ("gauge", "Sequences that wait for a slot", lambda s: s.backlog),
    "convoy_sequences_reclaimed": ("counter", "Sequences that were silent for too long", lambda s: s.reclaimed),
}
"""Of versions that have sequences; those that have none have no samples."""

SERVER_GAUGES: dict[str, tuple[str, Callable[[ServerSnapshot], float]]] = {
    "convoy_running_batch_count": ("Batches that have a turn on the CPU", lambda s: s.running_batches),
    "convoy_running_batch_limit": ("Turns that there are", lambda s: s.max_running_batches),
    "convoy_repositories_unseen": (
        "Model repositories that could not be looked at the last time",
        lambda s: s.unseen_repositories,
    ),
    "convoy_shared_memory_region_count": ("Regions of memory that clients have registered", lambda s: s.shared_regions),
    "convoy_shared_memory_bytes": ("Bytes of those regions", lambda s: s.shared_bytes),
}

LOCAL_CACHE_GAUGES: dict[str, tuple[str, Callable[[CacheSnapshot], float]]] = {
    "convoy_cache_entries": ("Answers in the response cache", lambda c: c.entries),
    "convoy_cache_used_bytes": ("Bytes that they take, keys and overhead included", lambda c: c.bytes),
    "convoy_cache_capacity_bytes": ("Bytes that they may take", lambda c: c.capacity_bytes),
}
"""Of a response cache in this process."""

CACHE_GAUGES: dict[str, tuple[str, Callable[[CacheSnapshot], float]]] = {
    "convoy_cache_connected": (
        "Whether the response cache can be asked; always 1 in this process",
        lambda c: int(c.is_connected),
    ),
}

CACHE_TOTALS: dict[str, tuple[str, Callable[[CacheSnapshot], float]]] = {
    "convoy_cache_evictions": ("Answers that made room for others, in this process", lambda c: c.evictions),
    "convoy_cache_not_stored": (
        "Answers that were not kept: too large, or the cache could not be reached",
        lambda c: c.not_stored,
    ),
    "convoy_cache_failed_lookups": (
        "Lookups that the cache did not answer in time: misses",
        lambda c: c.failed_lookups,
    ),
}

CODE_WORDS = {
    "OK": "OK",
    "CANCELLED": "Canceled",
    "UNKNOWN": "Unknown",
    "INVALID_ARGUMENT": "InvalidArgument",
    "DEADLINE_EXCEEDED": "DeadlineExceeded",
    "NOT_FOUND": "NotFound",
    "ALREADY_EXISTS": "AlreadyExists",
    "PERMISSION_DENIED": "PermissionDenied",
    "RESOURCE_EXHAUSTED": "ResourceExhausted",
    "FAILED_PRECONDITION": "FailedPrecondition",
    "ABORTED": "Aborted",
    "OUT_OF_RANGE": "OutOfRange",
    "UNIMPLEMENTED": "Unimplemented",
    "INTERNAL": "Internal",
    "UNAVAILABLE": "Unavailable",
    "DATA_LOSS": "DataLoss",
    "UNAUTHENTICATED": "Unauthenticated",
}
"""Statuses as go-grpc-prometheus spells them, whose names dashboards know."""

BEFORE_VERSIONS = (Reason.UNKNOWN_MODEL, Reason.UNAUTHENTICATED, Reason.FORBIDDEN, Reason.RATE_LIMITED)
"""What is said before the version that a request is for is looked for."""
REASONS_OF_VERSIONS = tuple(reason for reason in Reason if reason not in BEFORE_VERSIONS)
REASONS_WITHOUT_VERSION = (
    *BEFORE_VERSIONS,
    Reason.INVALID,
    Reason.OVERSIZE,
    Reason.NOT_READY,
    Reason.SHUTDOWN,
)
"""What may be wrong with a request that reaches no version; its labels `model` and `version` are empty."""
