"""The metrics page, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from server.errors import Cancelled, QueueFull
from server.metrics import COUNTERS, GAUGES, HISTOGRAMS, OWN_COUNTERS, VersionSnapshot, metrics_registry
from server.statistics import BATCH_ROWS_BOUNDS, BatchTimes, VersionStatistics


def snapshot(model: str = "m", version: int = 1, tags: Mapping[str, str] | None = None) -> VersionSnapshot:
    statistics = VersionStatistics()
    statistics.record_batch(BatchTimes(0, 2_000, 9_000, 10_000), rows=3, requests=2)
    statistics.record_batch(BatchTimes(0, 2_000, 9_000, 10_000), rows=1, requests=1)
    for _ in range(3):
        statistics.record_success(queue_ns=60_000, request_ns=150_999)
    statistics.record_failure(Cancelled("gone"), request_ns=1)
    statistics.record_failure(QueueFull("full"), request_ns=1)
    for met in (True, True, False):
        statistics.record_objective(met)
    statistics.failed_runs, statistics.reloads = 7, 2
    return VersionSnapshot(
        model, version, tags or {}, statistics, pending=4, in_flight=6, load_seconds=1.5, max_batch_rows=8
    )


def page(*snapshots: VersionSnapshot, cpu: bool = False) -> str:
    return generate_latest(metrics_registry(lambda: snapshots, cpu=cpu)).decode()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Values by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


EXPECTED = {
    "nv_inference_request_success": 3,
    "nv_inference_count": 4,
    "nv_inference_exec_count": 2,
    "nv_inference_request_duration_us": 452,
    "nv_inference_queue_duration_us": 180,
    "nv_inference_compute_input_duration_us": 6,
    "nv_inference_compute_infer_duration_us": 21,
    "nv_inference_compute_output_duration_us": 3,
    "convoy_failed_runs_total": 7,
    "convoy_model_reloads_total": 2,
    "convoy_max_batch_rows": 8,
    "nv_inference_pending_request_count": 4,
    "nv_inference_in_flight_request_count": 6,
    "nv_model_load_duration_secs": 1.5,
    "convoy_objective_met_total": 2,
    "convoy_objective_missed_total": 1,
}


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items(), ids=EXPECTED)
def test_counters_and_levels_have_tritons_names_and_labels(name: str, expected: float) -> None:
    assert value(page(snapshot()), name, model="m", version="1") == expected


def test_every_counter_and_level_is_tried_here() -> None:
    assert set(EXPECTED) == set(COUNTERS) | set(GAUGES) | {f"{name}_total" for name in OWN_COUNTERS}


@pytest.mark.parametrize("name", [*COUNTERS, "nv_inference_request_failure"])
def test_counters_are_untyped_since_tritons_names_have_no_suffix(name: str) -> None:
    text = page(snapshot())
    assert f"# TYPE {name} untyped\n" in text
    assert f"{name}_total" not in text
    assert f"{name}_created" not in text


@pytest.mark.parametrize("name", GAUGES)
def test_levels_are_gauges(name: str) -> None:
    assert f"# TYPE {name} gauge\n" in page(snapshot())


def test_requests_turned_away_are_counted_by_reason() -> None:
    assert value(page(snapshot()), "convoy_request_refused_total", model="m", version="1", reason="queue_full") == 1


def test_every_reason_to_fail_is_there_from_the_start() -> None:
    text = page(snapshot())
    counts = {
        reason: value(text, "nv_inference_request_failure", model="m", version="1", reason=reason)
        for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER")
    }
    assert counts == {"REJECTED": 1, "CANCELED": 1, "BACKEND": 0, "OTHER": 0}


def test_the_buckets_of_a_histogram_are_cumulative() -> None:
    text = page(snapshot())
    name = "nv_inference_batch_size_histogram"
    assert f"# TYPE {name} histogram\n" in text
    counts = [value(text, f"{name}_bucket", model="m", version="1", le=str(b)) for b in (*BATCH_ROWS_BOUNDS, "+Inf")]
    assert counts == [1, 1, *[2] * (len(BATCH_ROWS_BOUNDS) - 1)]


def test_a_histogram_has_its_sum_and_count() -> None:
    text = page(snapshot())
    name = "nv_inference_request_duration_histogram_us"
    assert value(text, f"{name}_sum", model="m", version="1") == pytest.approx(3 * 150.999)
    assert value(text, f"{name}_count", model="m", version="1") == 3


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_every_histogram_counts_something(name: str) -> None:
    assert value(page(snapshot()), f"{name}_count", model="m", version="1") > 0


def test_versions_are_told_apart_by_labels() -> None:
    text = page(snapshot("a", 1), snapshot("a", 2), snapshot("b", 1))
    for model, version in (("a", "1"), ("a", "2"), ("b", "1")):
        assert value(text, "nv_inference_count", model=model, version=version) == 4


def test_tags_of_the_configuration_are_labels_with_an_underscore() -> None:
    text = page(snapshot(tags={"team": "vision"}))
    assert value(text, "nv_inference_count", model="m", version="1", _team="vision") == 4
    assert value(text, "nv_inference_pending_request_count", model="m", version="1", _team="vision") == 4
    assert value(text, "nv_inference_request_failure", model="m", version="1", _team="vision", reason="OTHER") == 0
    assert value(text, "nv_inference_batch_size_histogram_count", model="m", version="1", _team="vision") == 2


def test_a_tag_of_one_model_is_empty_for_the_others() -> None:
    text = page(snapshot("a", tags={"team": "vision"}), snapshot("b", tags={"site": "x"}))
    assert value(text, "nv_inference_count", model="a", version="1", _team="vision", _site="") == 4
    assert value(text, "nv_inference_count", model="b", version="1", _team="", _site="x") == 4


def test_labels_may_hold_anything() -> None:
    tag = 'a "quoted"\nline\\'
    assert value(page(snapshot(tags={"t": tag})), "nv_inference_count", model="m", version="1", _t=tag) == 4


def test_a_server_without_models_has_a_page() -> None:
    text = page()
    assert "# TYPE nv_inference_count untyped\n" in text
    assert not [name for name, _ in samples(text) if name.startswith("nv_inference")]


def test_the_page_is_made_anew_for_every_scrape() -> None:
    versions = [snapshot("a")]
    registry = metrics_registry(lambda: versions, cpu=False)
    before = generate_latest(registry).decode()
    versions.append(snapshot("b"))
    versions[0].statistics.record_success(1, 1)
    after = generate_latest(registry).decode()
    assert value(before, "nv_inference_request_success", model="a", version="1") == 3
    assert value(after, "nv_inference_request_success", model="a", version="1") == 4
    assert value(after, "nv_inference_request_success", model="b", version="1") == 3


def test_the_machines_processors_and_memory_are_shown_where_asked_for() -> None:
    text = page(cpu=True)
    assert 0 <= value(text, "nv_cpu_utilization") <= 1
    assert 0 < value(text, "nv_cpu_memory_used_bytes") < value(text, "nv_cpu_memory_total_bytes")
    assert "nv_cpu" not in page(cpu=False)
