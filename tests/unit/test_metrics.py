"""The metrics page, as Prometheus reads it."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import inf

import pytest
from prometheus_client import Metric, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from server.metrics.machine import Machine
from server.metrics.page import Request
from server.metrics.snapshots import GpuSnapshot, ServerSnapshot, Snapshot, VersionSnapshot
from server.metrics.text import encode
from server.metrics_config import MetricsConfig
from server.statistics import BATCH_ROWS_BOUNDS, VersionStatistics
from tests.fakes import PuppetClock
from tests.unit.metric_families import FAMILIES
from tests.unit.metric_pages import GPU, OPENMETRICS, page_of, samples, snapshot, text_of, value, version


def page(*versions: VersionSnapshot) -> str:
    return text_of(snapshot(*versions))


def shape(families: Iterable[Metric]) -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels by name, as the text format has them."""
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: (
            "untyped" if family.type == "unknown" else family.type,
            frozenset(label for sample in family.samples for label in sample.labels),
        )
        for family in families
    }


PINNED = {name: (kind, frozenset(labels)) for name, (kind, labels) in FAMILIES.items()}


def test_no_family_of_the_text_format_appears_goes_or_changes_unseen() -> None:
    body = page_of(cpu=True, gpus=[GPU]).render(snapshot(version()), Request()).body.decode()
    assert shape(parse_text(body)) == PINNED


def test_openmetrics_has_the_same_families() -> None:
    body = page_of(cpu=True, gpus=[GPU]).render(snapshot(version()), Request(OPENMETRICS)).body.decode()
    assert shape(parse_openmetrics(body)) == PINNED


def test_no_two_samples_are_the_same_series() -> None:
    shown = snapshot(version("a"), version("a", 2), version("b", tags={"site": "x"}))
    body = page_of(cpu=True, gpus=[GPU]).render(shown, Request(OPENMETRICS)).body.decode()
    series = Counter(line.rpartition(" ")[0] for line in body.splitlines() if not line.startswith("#"))
    assert [name for name, count in series.items() if count > 1] == []


EXPECTED: dict[str, float] = {
    "nv_inference_request_success": 3,
    "nv_inference_count": 4,
    "nv_inference_exec_count": 2,
    "nv_inference_request_duration_us": 452,
    "nv_inference_queue_duration_us": 180,
    "nv_inference_compute_input_duration_us": 6,
    "nv_inference_compute_infer_duration_us": 21,
    "nv_inference_compute_output_duration_us": 3,
    "nv_cache_num_hits_per_model": 2,
    "nv_cache_num_misses_per_model": 1,
    "nv_cache_hit_duration_per_model": 6,
    "nv_cache_miss_duration_per_model": 40,
    "convoy_cache_joined_total": 1,
    "convoy_failed_runs_total": 7,
    "convoy_model_reloads_total": 2,
    "convoy_run_timeouts_total": 9,
    "convoy_hung_runs": 3,
    "convoy_max_batch_rows": 8,
    "convoy_sequence_slots": 16,
    "convoy_sequences_active": 12,
    "convoy_sequences_backlog": 9,
    "convoy_sequences_reclaimed_total": 5,
    "convoy_turn_wait_duration_us_total": 750_000,
    "convoy_batch_predicted_duration_us_total": 500_000,
    "convoy_batch_duration_us_total": 250_000,
    "nv_inference_pending_request_count": 4,
    "nv_inference_in_flight_request_count": 6,
    "nv_model_load_duration_secs": 1.5,
    "convoy_queue_age_us": 125_000,
    "convoy_objective_met_total": 2,
    "convoy_objective_missed_total": 1,
    "convoy_deadline_met_total": 4,
    "convoy_deadline_missed_total": 1,
}


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items(), ids=EXPECTED)
def test_counters_and_levels_of_a_version(name: str, expected: float) -> None:
    assert value(page(version()), name, model="m", version="1") == expected


def test_every_counter_and_level_of_a_version_is_tried_here() -> None:
    single = {
        name
        for name, (kind, labels) in FAMILIES.items()
        if labels == ("model", "version") and name != "convoy_model_ready"
    }
    assert set(EXPECTED) == single


SINGLE: dict[str, tuple[float, Mapping[str, str]]] = {
    "convoy_cache_entries": (5, {}),
    "convoy_cache_used_bytes": (4096, {}),
    "convoy_cache_capacity_bytes": (8192, {}),
    "convoy_cache_connected": (1, {}),
    "convoy_cache_evictions_total": (6, {}),
    "convoy_cache_not_stored_total": (7, {}),
    "convoy_cache_failed_lookups_total": (8, {}),
    "convoy_running_batch_count": (1, {}),
    "convoy_running_batch_limit": (2, {}),
    "convoy_repositories_unseen": (3, {}),
    "convoy_shared_memory_region_count": (6, {}),
    "convoy_shared_memory_bytes": (700, {}),
    "convoy_traces_lost_total": (4, {}),
    "convoy_grpc_connections": (3, {}),
    "convoy_grpc_connections_opened_total": (8, {}),
    "convoy_grpc_received_bytes_total": (1000, {}),
    "convoy_grpc_sent_bytes_total": (2000, {}),
    "convoy_http_requests_total": (1, {"method": "POST", "route": "/v2/models/{model}/infer", "status": "gone"}),
    "convoy_http_connections": (2, {}),
    "convoy_http_connections_opened_total": (4, {}),
    "convoy_http_received_bytes_total": (500, {}),
    "convoy_http_sent_bytes_total": (600, {}),
    "convoy_build_info": (1, {"version": "0.1.0", "onnxruntime": "1.31.0", "grpc_engine": "nghttp2"}),
    "convoy_model_ready": (1, {"model": "m", "version": "1"}),
    "convoy_model_load_success_total": (3, {"model": "m"}),
    "convoy_model_load_failure_total": (2, {"model": "broken"}),
    "convoy_instance_busy_seconds_total": (0.25, {"model": "m", "version": "1", "model_instance": "1"}),
}


@pytest.mark.parametrize("name", SINGLE)
def test_figures_of_the_server_of_models_and_of_instances(name: str) -> None:
    expected, labels = SINGLE[name]
    assert value(page(version()), name, **labels) == expected


def test_a_version_that_does_not_serve_is_there_and_so_is_a_model_that_has_none() -> None:
    text = page()
    assert value(text, "convoy_model_ready", model="m", version="2") == 0
    assert value(text, "convoy_model_ready", model="broken", version="") == 0


@pytest.mark.parametrize("name", [name for name, (kind, _) in FAMILIES.items() if kind == "untyped"])
def test_tritons_counters_are_untyped_since_their_names_have_no_suffix(name: str) -> None:
    text = page_of(gpus=[GPU]).render(snapshot(version()), Request()).body.decode()
    assert f"# TYPE {name} untyped\n" in text
    assert f"{name}_total" not in text
    assert f"{name}_created" not in text


def test_a_server_without_a_limit_of_turns_says_so() -> None:
    assert "\nconvoy_running_batch_limit +Inf\n" in text_of(Snapshot(server=ServerSnapshot()))


def test_the_transport_of_grpcio_is_left_out() -> None:
    assert "convoy_grpc_" not in text_of(Snapshot())


def reasons(text: str, name: str, **labels: str) -> dict[str, float]:
    """Samples of one family by `reason`, of those that have exactly these labels beside it."""
    return {
        dict(named)["reason"]: count
        for (sample, named), count in samples(text).items()
        if sample == name and {k: v for k, v in named if k != "reason"} == labels
    }


def test_every_reason_to_fail_is_there_from_the_start() -> None:
    text = page(version())
    own = reasons(text, "convoy_request_failed_total", model="m", version="1")
    assert own == {
        "queue_full": 1, "overloaded": 0, "too_late": 0, "invalid": 0, "shape": 0, "oversize": 0, "cancelled": 1,
        "backend": 0, "out_of_memory": 0, "not_ready": 0, "shutdown": 0,
    }  # fmt: skip
    tritons = reasons(text, "nv_inference_request_failure", model="m", version="1")
    assert tritons == {"REJECTED": 1, "CANCELED": 1, "BACKEND": 0, "OTHER": 0}


def test_requests_that_reach_no_version_are_counted_without_names() -> None:
    own = reasons(page(version()), "convoy_request_failed_total", model="", version="")
    assert own == {
        "unknown_model": 5, "invalid": 2, "oversize": 0, "not_ready": 0, "shutdown": 0,
        "unauthenticated": 0, "forbidden": 0, "rate_limited": 0,
    }  # fmt: skip


def test_calls_are_counted_as_other_grpc_servers_count_them() -> None:
    call = {"grpc_type": "unary", "grpc_service": "some.Service", "grpc_method": "Do"}
    text = page()
    assert value(text, "grpc_server_started_total", **call) == 12
    assert value(text, "grpc_server_handled_total", **call, grpc_code="OK") == 9
    assert value(text, "grpc_server_handled_total", **call, grpc_code="ResourceExhausted") == 2


def test_the_buckets_of_a_histogram_are_cumulative() -> None:
    text = page(version())
    name = "nv_inference_batch_size_histogram"
    bounds = [*(f"{bound:.1f}" for bound in BATCH_ROWS_BOUNDS), "+Inf"]
    counts = [value(text, f"{name}_bucket", model="m", version="1", le=bound) for bound in bounds]
    assert counts == [1, 1, *[2] * (len(BATCH_ROWS_BOUNDS) - 1)]


def test_a_histogram_has_its_sum_and_count() -> None:
    text = page(version())
    name = "nv_inference_request_duration_histogram_us"
    assert value(text, f"{name}_sum", model="m", version="1") == pytest.approx(3 * 150.999)
    assert value(text, f"{name}_count", model="m", version="1") == 3


OF_VERSIONS = [
    name for name, (kind, labels) in FAMILIES.items() if kind in ("histogram", "summary") and "model" in labels
]


@pytest.mark.parametrize("name", OF_VERSIONS)
def test_every_histogram_and_summary_counts_something(name: str) -> None:
    assert value(page(version()), f"{name}_count", model="m", version="1") > 0


def test_a_summary_has_quantiles_of_the_last_minute_and_a_sum() -> None:
    text = page(version())
    name = "nv_inference_request_summary_us"
    for quantile in ("0.5", "0.9", "0.95", "0.99", "0.999"):
        assert value(text, name, model="m", version="1", quantile=quantile) == pytest.approx(151, rel=0.01)
    assert value(text, f"{name}_sum", model="m", version="1") == pytest.approx(3 * 150.999)


@pytest.mark.parametrize(
    ("config", "absent", "present"),
    [
        (MetricsConfig(), "_summary_us", "_duration_us"),
        (MetricsConfig(counter_latencies=False), "nv_inference_queue_duration_us", "nv_inference_count"),
        (MetricsConfig(histogram_latencies=False), "_duration_histogram_us", "nv_inference_batch_size_histogram"),
    ],
    ids=["by default no summaries", "no counters", "no histograms"],
)
def test_families_of_latencies_can_be_chosen(config: MetricsConfig, absent: str, present: str) -> None:
    text = text_of(snapshot(version()), config)
    assert absent not in text
    assert present in text


@pytest.mark.parametrize(("rows", "quantile", "us"), [("1", "0.5", 1000), ("1", "0.99", 2000), ("8", "0.99", 5000)])
def test_the_cost_of_each_batch_size_is_a_gauge(rows: str, quantile: str, us: float) -> None:
    text = page(version(tags={"team": "vision"}))
    labels = {"model": "m", "version": "1", "_team": "vision", "rows": rows, "quantile": quantile}
    assert value(text, "convoy_batch_cost_us", **labels) == us


def test_versions_are_told_apart_by_labels() -> None:
    text = page(version("a", 1), version("a", 2), version("b", 1))
    for model, number in (("a", "1"), ("a", "2"), ("b", "1")):
        assert value(text, "nv_inference_count", model=model, version=number) == 4


PER_VERSION = [name for name, (_, labels) in FAMILIES.items() if "version" in labels and "onnxruntime" not in labels]


@pytest.mark.parametrize("name", [name for name in PER_VERSION if name != "convoy_model_ready"])
def test_tags_of_the_configuration_are_labels_with_an_underscore(name: str) -> None:
    families = page_of().families(snapshot(version(tags={"team": "vision"})))
    [family] = [family for family in families if family.name == name.removesuffix("_total")]
    assert {sample.labels["_team"] for sample in family.samples if sample.labels["model"]} == {"vision"}


def test_a_tag_of_one_model_is_empty_for_the_others() -> None:
    text = page(version("a", tags={"team": "vision"}), version("b", tags={"site": "x"}))
    assert value(text, "nv_inference_count", model="a", version="1", _team="vision", _site="") == 4
    assert value(text, "nv_inference_count", model="b", version="1", _team="", _site="x") == 4


@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
def test_labels_may_hold_anything(accept: str, parse: Callable[[str], Iterable[Metric]]) -> None:
    tag = 'a "quoted"\nline\\ of ünïcode {,}'
    body = page_of().render(snapshot(version(tags={"t": tag})), Request(accept)).body.decode()
    [count] = [family for family in parse(body) if family.name == "nv_inference_count"]
    assert [sample.labels["_t"] for sample in count.samples] == [tag]


@pytest.mark.parametrize(
    ("openmetrics", "theirs", "parse"),
    [(False, generate_latest, parse_text), (True, generate_openmetrics, parse_openmetrics)],
    ids=["text", "OpenMetrics"],
)
def test_the_text_says_what_prometheus_clients_own_would(
    openmetrics: bool, theirs: Callable[[Collector], bytes], parse: Callable[[str], Iterable[Metric]]
) -> None:
    odd = VersionStatistics()
    odd.turn_wait_us, odd.predicted_seconds, odd.actual_seconds = inf, 1e300, 1.5e-9
    shown = snapshot(
        version("plain"),
        version('a "quoted"\nline\\ of ünïcode {,}', tags={"and-a": 'strange "tag"\\', "and a": "\n"}),
        replace(version("odd"), statistics=odd, latest=None),
    )
    families = list(page_of(cpu=True, gpus=[GPU]).families(shown))
    ours = parse(encode(families, openmetrics=openmetrics).decode())
    assert as_told(ours) == as_told(parse(theirs(Listed(families)).decode()))


class Listed(Collector):
    """Families, as prometheus_client wants them."""

    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def collect(self) -> list[Metric]:
        return self.families


def as_told(families: Iterable[Metric]) -> list[tuple[object, ...]]:
    """All of them, with numbers that are equal where they are NaN."""
    return [
        (
            family.name,
            family.type,
            family.documentation,
            [(s.name, s.labels, repr(float(s.value))) for s in family.samples],
        )
        for family in families
    ]


def test_a_server_without_models_has_a_page() -> None:
    text = text_of(Snapshot())
    assert "# TYPE nv_inference_count untyped\n" in text
    assert not [name for name, _ in samples(text) if name.startswith("nv_inference")]


def test_the_machines_processors_and_memory_are_shown_where_asked_for() -> None:
    text = text_of(Snapshot(), cpu=True)
    assert 0 <= value(text, "nv_cpu_utilization") <= 1
    assert 0 < value(text, "nv_cpu_memory_used_bytes") < value(text, "nv_cpu_memory_total_bytes")
    assert "nv_cpu" not in text_of(Snapshot(), cpu=False)


def test_the_machine_is_read_once_in_an_interval_however_many_scrape() -> None:
    clock = PuppetClock()
    read: list[float] = []

    def gpus() -> list[GpuSnapshot]:
        read.append(clock.now())
        return [GPU]

    machine = Machine(clock.now, interval=2, cpu=False, gpus=gpus)
    for clock.time in (10.0, 11.0, 11.9, 12.0, 13.0):
        assert any(family.name == "nv_gpu_utilization" for family in machine.families())
    assert read == [10.0, 12.0]


def test_what_is_page_locked_is_shown_beside_the_gpus() -> None:
    text = page_of(gpus=[GPU]).render(Snapshot(), Request()).body.decode()
    assert value(text, "nv_pinned_memory_pool_used_bytes") == 4096
    assert "nv_pinned" not in text_of(Snapshot())


@pytest.mark.parametrize(
    ("accept_encoding", "packed"),
    [("gzip", True), ("deflate, GZIP;q=0.5", True), ("", False), ("identity", False), ("gzip;q=0, br", False)],
)
def test_a_page_is_compressed_for_whoever_takes_it(accept_encoding: str, packed: bool) -> None:
    rendered = page_of().render(Snapshot(), Request(accept_encoding=accept_encoding))
    assert rendered.content_encoding == ("gzip" if packed else "")
    body = gzip.decompress(rendered.body) if packed else rendered.body
    assert body.startswith(b"# HELP")


def test_a_scraper_may_ask_for_some_names_only() -> None:
    wanted = Request(names={"nv_inference_count", "convoy_queue_age_us"})
    text = page_of().render(snapshot(version()), wanted).body.decode()
    assert {name for name, _ in samples(text)} == {"nv_inference_count", "convoy_queue_age_us"}
