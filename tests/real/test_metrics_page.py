"""The metrics page as Prometheus reads it, with Triton's families and labels; and the log as its readers do."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests import onnx_models
from tests.real.clients import CALL_SECONDS, Client, http_status, infer_request, read_url
from tests.real.conftest import RunningServer, StartServer, start
from tests.repositories import add_model

COUNTERS = (
    "nv_inference_request_success",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
)
GAUGES = (
    "nv_inference_pending_request_count",
    "nv_inference_in_flight_request_count",
    "nv_model_load_duration_secs",
)
HISTOGRAMS = (
    "nv_inference_request_duration_histogram_us",
    "nv_inference_queue_duration_histogram_us",
    "nv_inference_compute_input_duration_histogram_us",
    "nv_inference_compute_infer_duration_histogram_us",
    "nv_inference_compute_output_duration_histogram_us",
    "nv_inference_batch_size_histogram",
)
VERSIONS = {("affine", "1"), ("affine", "2"), ("lookup", "1")}

Labels = dict[str, str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("models")
    config = 'version_policy { all { } } metric_tags { key: "team" value: "sea \\"and\\" sky" }'
    add_model(root, "affine", config=config, versions={n: onnx_models.affine(offset=n) for n in (1, 2)})
    add_model(root, "lookup", onnx_models.lookup())
    server = start(tmp_path_factory.mktemp("server"), model_repository=root)
    yield server
    assert server.terminate() == 0


@pytest.fixture(scope="module")
def families(server: RunningServer) -> dict[str, Metric]:
    """The page after five answered requests of two rows, a refused one and one that failed."""
    x = np.array([[1], [2]])
    with grpc.insecure_channel(server.grpc_address) as channel:
        client = Client(channel)
        for version in ("1", "2", "2", "2"):
            client.infer("affine", {"x": x}, model_version=version)
        client.infer("lookup", {"x": x})
        client.refusal("ModelInfer", infer_request("affine", {"x": x.astype(np.float32)}))
        client.refusal("ModelInfer", infer_request("lookup", {"x": x + 99}))
    return {family.name: family for family in text_string_to_metric_families(read_url(server.metrics_url))}


def values(family: Metric) -> dict[tuple[str, str], float]:
    return {(sample.labels["model"], sample.labels["version"]): sample.value for sample in family.samples}


@pytest.mark.parametrize("name", [*COUNTERS, *GAUGES])
def test_every_loaded_version_has_a_sample_of_each_family(name: str, families: dict[str, Metric]) -> None:
    assert set(values(families[name])) == VERSIONS
    assert all({"model", "version", "_team"} == set(sample.labels) for sample in families[name].samples)
    assert families[name].documentation


def test_counters_count_what_was_asked(families: dict[str, Metric]) -> None:
    assert values(families["nv_inference_request_success"]) == {
        ("affine", "1"): 1,
        ("affine", "2"): 3,
        ("lookup", "1"): 1,
    }
    assert values(families["nv_inference_count"]) == {("affine", "1"): 2, ("affine", "2"): 6, ("lookup", "1"): 2}
    assert values(families["nv_inference_exec_count"]) == {("affine", "1"): 1, ("affine", "2"): 3, ("lookup", "1"): 1}


def test_failures_are_counted_by_reason_and_every_reason_is_there_from_the_start(families: dict[str, Metric]) -> None:
    failures = {
        (sample.labels["model"], sample.labels["version"], sample.labels["reason"]): sample.value
        for sample in families["nv_inference_request_failure"].samples
    }
    reasons = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
    expected = {(*version, reason): 0.0 for version in VERSIONS for reason in reasons}

    assert failures == expected | {("affine", "2", "OTHER"): 1, ("lookup", "1", "BACKEND"): 1}


def test_metric_tags_are_labels_with_an_underscore(families: dict[str, Metric]) -> None:
    tags = {sample.labels["model"]: sample.labels["_team"] for sample in families["nv_inference_count"].samples}

    assert tags == {"affine": 'sea "and" sky', "lookup": ""}


def test_durations_are_microseconds_and_the_phases_fit_into_the_whole(families: dict[str, Metric]) -> None:
    whole = values(families["nv_inference_request_duration_us"])
    phases = ("queue", "compute_input", "compute_infer", "compute_output")
    parts = [values(families[f"nv_inference_{phase}_duration_us"]) for phase in phases]

    for version in VERSIONS:
        assert 0 < sum(part[version] for part in parts) <= whole[version] < 30e6


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_a_histograms_buckets_rise_to_its_count(name: str, families: dict[str, Metric]) -> None:
    assert families[name].type == "histogram"
    batches = name == "nv_inference_batch_size_histogram"
    counts = values(families["nv_inference_exec_count" if batches else "nv_inference_request_success"])
    for model, version in VERSIONS:
        mine = [s for s in families[name].samples if (s.labels["model"], s.labels["version"]) == (model, version)]
        buckets = [sample.value for sample in mine if sample.name == f"{name}_bucket"]
        (count,) = (sample.value for sample in mine if sample.name == f"{name}_count")

        assert buckets == sorted(buckets)
        assert buckets[-1] == count == counts[model, version]
        assert [s.labels["le"] for s in mine if s.name == f"{name}_bucket"][-1] == "+Inf"


def test_the_machine_and_the_process_are_measured(families: dict[str, Metric]) -> None:
    assert 0 <= families["nv_cpu_utilization"].samples[0].value <= 1
    used, total = (families[f"nv_cpu_memory_{what}_bytes"].samples[0].value for what in ("used", "total"))
    assert 0 < used < total
    assert families["process_resident_memory_bytes"].samples[0].value > 1e6


def test_openmetrics_is_spoken_to_whoever_asks_for_it(server: RunningServer) -> None:
    request = urllib.request.Request(server.metrics_url, headers={"Accept": "application/openmetrics-text"})
    with urllib.request.urlopen(request, timeout=CALL_SECONDS) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text")
        assert response.read().rstrip().endswith(b"# EOF")


def test_metrics_of_the_machine_can_be_turned_off(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--allow-cpu-metrics=false", model_repository=tmp_path)

    assert "nv_cpu_" not in read_url(server.metrics_url)


def test_a_listener_that_is_off_takes_no_port(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--allow-metrics=false", "--allow-grpc=false", model_repository=tmp_path)

    assert server.ports["metrics"] is None
    assert server.ports["grpc"] is None
    assert http_status(f"{server.http_url}/v2/health/ready") == 200


def log_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_line_of_a_json_log_is_an_object_of_its_own(start_server: StartServer, tmp_path: Path) -> None:
    add_model(tmp_path / "models", "good", onnx_models.affine())
    add_model(tmp_path / "models", "bad", b"garbage\nof two lines")
    log = tmp_path / "server.log"
    server = start_server(
        "--log-format=json", f"--log-file={log}", "--log-verbose=1", model_repository=tmp_path / "models"
    )
    assert server.terminate() == 0

    lines = log_lines(log)
    assert all({"time", "level", "name", "message"} <= set(line) for line in lines)
    assert any(line["level"] == "INFO" and "'good' version 1 is READY" in line["message"] for line in lines)
    assert any(line["level"] == "ERROR" and "'bad' version 1 is UNAVAILABLE" in line["message"] for line in lines)
    assert "READY" in server.log.read_text()  # the table for people stays on standard output
    assert "is UNAVAILABLE:" not in server.log.read_text()


def test_a_log_file_is_added_to(start_server: StartServer, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text('{"message": "from before"}\n')
    for _ in range(2):
        server = start_server("--log-format=json", f"--log-file={log}", model_repository=tmp_path)
        assert server.terminate() == 0

    messages = [line["message"] for line in log_lines(log)]
    assert messages[0] == "from before"
    assert sum(message.startswith("stopping") for message in messages) == 2
