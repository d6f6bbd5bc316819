"""Everything that happens to a server is on its metrics page, once, and by the right name. Both engines."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import CALL_SECONDS, SERVICE, WAIT_SECONDS, Client, infer_request, metric, raw
from tests.real.conftest import ENGINES, RunningServer, start
from tests.real.waiting import wait_until
from tests.repositories import add_model
from tests.unit.metric_families import FAMILIES

ROWS = np.array([[1], [2]])


@pytest.fixture(scope="module", params=ENGINES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that has seen a bit of everything."""
    root = tmp_path_factory.mktemp("models")
    add_model(root, "affine", onnx_models.affine(), config="max_batch_size: 4")
    add_model(root, "lookup", onnx_models.lookup())
    add_model(root, "broken", b"garbage")
    add_model(root, "wrong", onnx_models.affine(), config="no such field")
    flags = (*ENGINES[request.param], "--strict-readiness=false", "--metrics-config=summary_latencies=true")
    server = start(tmp_path_factory.mktemp("server"), *flags, model_repository=root)
    with grpc.insecure_channel(server.grpc_address) as channel:
        live_through_everything(Client(channel))
    yield server
    assert server.terminate() == 0


def live_through_everything(client: Client) -> None:
    for _ in range(3):
        client.infer("affine", {"x": ROWS})
    spec = pb.ModelInferRequest.InferInputTensor(name="x", datatype="INT64", shape=[2, 1])
    refused = [
        infer_request("affine", {"x": ROWS.astype(np.float32)}),  # invalid
        infer_request("affine", {"y": ROWS}),  # invalid
        infer_request("affine", {"x": ROWS.reshape(1, 1, 2)}),  # shape
        pb.ModelInferRequest(model_name="affine", inputs=[spec], raw_input_contents=[raw(ROWS[:1])]),  # shape
        infer_request("affine", {"x": np.zeros((5, 1), np.int64)}),  # oversize
        infer_request("lookup", {"x": ROWS + 99}),  # backend
        infer_request("stranger", {"x": ROWS}),  # unknown
        infer_request("affine", {"x": ROWS}, model_version="2"),  # unknown
        infer_request("broken", {"x": ROWS}),
        infer_request("broken", {"x": ROWS}, model_version="1"),  # known, and not ready
        b"\xff\xff",
    ]
    for request in refused:
        client.refusal("ModelInfer", request)
    requests = [infer_request("affine", {"x": ROWS}), infer_request("stranger", {"x": ROWS})]
    answers = client.channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(
        iter([each.SerializeToString() for each in requests]), timeout=CALL_SECONDS
    )
    assert len(list(answers)) == 2
    client.refusal("CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest())
    client.refusal("NoSuchMethod", b"")


def failed(server: RunningServer, model: str) -> dict[str, float]:
    reasons = ("invalid", "shape", "oversize", "backend", "cancelled", "queue_full", "too_late", "not_ready")
    name = "convoy_request_failed_total"
    counts = {reason: metric(server.metrics_url, name, model=model, reason=reason) for reason in reasons}
    return {reason: count for reason, count in counts.items() if count}


def test_failures_of_a_model_are_told_apart(server: RunningServer) -> None:
    assert failed(server, "affine") == {"invalid": 2, "shape": 2, "oversize": 1}
    assert failed(server, "lookup") == {"backend": 1}


def test_what_reaches_no_version_is_counted_and_leaves_no_name(server: RunningServer) -> None:
    name = "convoy_request_failed_total"
    counts = {
        reason: metric(server.metrics_url, name, model="", version="", reason=reason)
        for reason in ("unknown_model", "not_ready", "invalid", "shutdown")
    }
    assert counts == {"unknown_model": 4, "not_ready": 1, "invalid": 1, "shutdown": 0}
    with urllib.request.urlopen(server.metrics_url, timeout=CALL_SECONDS) as page:
        assert b"stranger" not in page.read()


def test_calls_are_counted_by_method_and_status(server: RunningServer) -> None:
    def handled(method: str) -> dict[str, float]:
        ended = families(server)["grpc_server_handled"].samples
        return {s.labels["grpc_code"]: s.value for s in ended if s.labels["grpc_method"] == method and s.value}

    wait_until(lambda: handled("ModelStreamInfer") == {"OK": 1}, WAIT_SECONDS)
    assert handled("ModelInfer") == {"OK": 3, "InvalidArgument": 6, "Internal": 1, "NotFound": 3, "Unavailable": 1}
    assert handled("CudaSharedMemoryStatus") == {"Unimplemented": 1}
    assert handled("unknown") == {"Unimplemented": 1}
    assert metric(server.metrics_url, "grpc_server_started_total", grpc_method="ModelInfer") == 14


def test_requests_with_a_deadline_met_it_or_not(server: RunningServer) -> None:
    met = metric(server.metrics_url, "convoy_deadline_met_total", model="affine")
    missed = metric(server.metrics_url, "convoy_deadline_missed_total", model="affine")
    assert (met, missed) == (4, 0)
    assert metric(server.metrics_url, "convoy_deadline_missed_total", model="lookup") == 1


def test_models_that_cannot_serve_are_there(server: RunningServer) -> None:
    ready = {
        (sample.labels["model"], sample.labels["version"]): sample.value
        for sample in families(server)["convoy_model_ready"].samples
    }
    assert ready == {("affine", "1"): 1, ("lookup", "1"): 1, ("broken", "1"): 0, ("wrong", ""): 0}
    for model, loads in (("affine", (1, 0)), ("broken", (0, 1)), ("wrong", (0, 1))):
        names = ("convoy_model_load_success_total", "convoy_model_load_failure_total")
        assert tuple(metric(server.metrics_url, name, model=model) for name in names) == loads


def test_the_latest_latencies_are_summed_up(server: RunningServer) -> None:
    name = "nv_inference_request_summary_us"
    assert metric(server.metrics_url, f"{name}_count", model="affine") == 4
    median, worst = (metric(server.metrics_url, name, model="affine", quantile=q) for q in ("0.5", "0.999"))
    assert 0 < median <= worst < 30e6


def test_the_loop_is_watched_and_instances_have_worked(server: RunningServer) -> None:
    count = "convoy_event_loop_lag_histogram_us_count"
    before = metric(server.metrics_url, count)
    wait_until(lambda: metric(server.metrics_url, count) > before, WAIT_SECONDS)
    assert metric(server.metrics_url, "convoy_instance_busy_seconds_total", model="affine", model_instance="0") > 0


def families(server: RunningServer) -> dict[str, Metric]:
    request = urllib.request.Request(server.metrics_url, headers={"Accept": "application/openmetrics-text"})
    with urllib.request.urlopen(request, timeout=CALL_SECONDS) as response:
        return {family.name: family for family in text_string_to_metric_families(response.read().decode())}


def test_a_running_server_shows_every_family_that_is_pinned(server: RunningServer) -> None:
    shown = {f"{name}_total" if family.type == "counter" else name for name, family in families(server).items()}
    engine = metric(server.metrics_url, "convoy_build_info", grpc_engine="grpcio")
    no_gpu, no_cache = ("nv_gpu", "nv_pinned", "nv_energy"), ("nv_cache", "convoy_cache")
    absent = {name for name in FAMILIES if name.startswith((*no_gpu, *no_cache))}
    if engine:
        absent |= {name for name in FAMILIES if name.startswith("convoy_grpc_")}
    assert shown == set(FAMILIES) - absent
