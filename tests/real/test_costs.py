"""What batches cost, from a real server's load to its page and its metrics; warm-up samples; batches filled up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import Client, answer_of, http_status, metric, read_url
from tests.real.conftest import RunningServer, start
from tests.repositories import add_model

ROW = np.array([3], np.int64)
SAMPLE = (
    'model_warmup {{ name: "{name}" batch_size: 2 count: 2 '
    'inputs {{ key: "x" value {{ data_type: TYPE_{datatype} dims: [ {dims} ] {data} }} }} }}'
)
PAD = 'parameters { key: "pad_to_bucket" value { string_value: "true" } }'


def sample(data: str, datatype: str = "INT64", dims: str = "1", name: str = "s") -> str:
    return "max_batch_size: 8 dynamic_batching { } " + SAMPLE.format(name=name, datatype=datatype, dims=dims, data=data)


def add_warmup_file(folder: Path, name: str, content: bytes) -> None:
    (folder / "warmup").mkdir(exist_ok=True)
    (folder / "warmup" / name).write_bytes(content)


def write_models(root: Path) -> None:
    add_model(root, "plain", onnx_models.affine(), "max_batch_size: 6 dynamic_batching { }")
    add_model(root, "free", onnx_models.affine("FP32", ("N", "D")), "max_batch_size: 4 dynamic_batching { }")
    add_model(root, "lookup", onnx_models.lookup())
    add_model(root, "doubled_rows", onnx_models.doubled_rows())
    add_model(root, "whole", onnx_models.transpose())
    window = "max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 20000 } "
    add_model(root, "filled", onnx_models.affine(), window + PAD)
    add_model(root, "mlp", onnx_models.mlp(), "max_batch_size: 8")
    add_model(root, "filled_mlp", onnx_models.mlp(), "max_batch_size: 8 " + PAD)
    add_model(root, "zeros", onnx_models.affine("FP32", ("N", "D")), sample("zero_data: true", "FP32", "7"))
    add_model(root, "random", onnx_models.identity("BF16"), sample("random_data: true", "BF16", "7"))
    in_file = add_model(root, "file", onnx_models.lookup(), sample('input_data_file: "row.bin"'))
    add_warmup_file(in_file, "row.bin", ROW.tobytes())
    text = add_model(
        root, "text", onnx_models.identity("BYTES", ("N", 2)), sample('input_data_file: "words.bin"', "STRING", "2")
    )
    add_warmup_file(text, "words.bin", b"\2\0\0\0hi\0\0\0\0")
    (root / "secret").write_bytes(ROW.tobytes())
    for name, data in {
        "no_file": 'input_data_file: "none.bin"',
        "short_file": 'input_data_file: "row.bin"',
        "way_out": 'input_data_file: "../../secret"',
    }.items():
        folder = add_model(root, name, onnx_models.affine(), sample(data))
        add_warmup_file(folder, "row.bin", bytes(7))
    add_model(root, "wrong_input", onnx_models.affine(), sample("zero_data: true", "FP32"))
    fails = add_model(root, "fails", onnx_models.lookup(), sample('input_data_file: "row.bin"', name="too large"))
    add_warmup_file(fails, "row.bin", (ROW + 96).tobytes())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("models")
    write_models(root)
    server = start(tmp_path_factory.mktemp("server"), model_repository=root)
    yield server
    assert server.terminate() == 0
    assert "Traceback" not in server.log.read_text()


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield Client(channel)


def costs(server: RunningServer, model: str) -> dict[str, Any]:
    page = json.loads(read_url(f"{server.http_url}/v2/models/{model}/cost"))
    assert isinstance(page, dict)
    return page


@pytest.mark.parametrize(
    ("model", "max_batch_size", "rows"),
    [
        ("plain", 6, [1, 2, 4, 6]),
        ("lookup", 4, [1, 2, 4]),
        ("whole", 0, [1]),
        ("zeros", 8, [1, 2, 4, 8]),
        ("random", 8, [1, 2, 4, 8]),
        ("file", 8, [1, 2, 4, 8]),
        ("text", 8, [1, 2, 4, 8]),
        ("free", 4, []),
        ("doubled_rows", 4, []),
    ],
)
def test_every_batch_size_has_a_cost_before_the_first_request(
    model: str, max_batch_size: int, rows: list[int], server: RunningServer
) -> None:
    page = costs(server, model)
    buckets = page.pop("buckets")
    assert page == {
        "model_name": model,
        "model_version": "1",
        "max_batch_size": max_batch_size,
        "objective_ms": None,
        "instances": 1,
    }
    assert [bucket["rows"] for bucket in buckets] == rows
    assert all(0 < bucket["p50_us"] <= bucket["p99_us"] and bucket["runs"] >= 1 for bucket in buckets)


def test_a_model_that_cannot_be_measured_serves_and_the_log_says_why(server: RunningServer) -> None:
    assert "model 'doubled_rows' version 1 could not be measured before it serves" in server.log.read_text()
    assert http_status(f"{server.http_url}/v2/models/doubled_rows/cost") == 200


def test_warm_up_is_no_inference(server: RunningServer, client: Client) -> None:
    for model in ("zeros", "random", "text"):
        statistics = client.statistics(model)
        assert (statistics.inference_count, statistics.execution_count) == (0, 0)
        assert metric(server.metrics_url, "nv_inference_exec_count", model=model) == 0


def test_costs_and_predictions_are_in_the_metrics(server: RunningServer, client: Client) -> None:
    url = server.metrics_url
    for _ in range(3):
        client.infer("plain", {"x": np.array([[1]])})
    for quantile in ("0.5", "0.99"):
        assert metric(url, "convoy_batch_cost_us", model="plain", rows="6", quantile=quantile) > 0
    assert metric(url, "convoy_batch_duration_ratio_histogram_count", model="plain") == 3
    assert metric(url, "convoy_batch_predicted_duration_us_total", model="plain") > 0
    assert metric(url, "convoy_batch_duration_us_total", model="plain") > 0


def test_a_model_of_free_dimensions_is_measured_as_it_runs(server: RunningServer, client: Client) -> None:
    client.infer("free", {"x": np.ones((2, 3), np.float32)})
    assert [bucket["rows"] for bucket in costs(server, "free")["buckets"]] == [2]


def test_an_unknown_model_has_no_costs(server: RunningServer) -> None:
    for path, status in (("nobody", 404), ("plain/versions/9", 404), ("plain/versions/x", 400), ("plain", 200)):
        assert http_status(f"{server.http_url}/v2/models/{path}/cost") == status


def test_filled_up_batches_answer_as_others_do(server: RunningServer, client: Client) -> None:
    rows = {n: np.arange(n, dtype=np.int64)[:, None] + 10 * n for n in (1, 2, 4)}
    calls = {n: client.start_infer("filled", {"x": x}) for n, x in rows.items()}
    for n, call in calls.items():
        np.testing.assert_array_equal(answer_of(call)["y"], rows[n] * 3 + 1)
    assert client.statistics("filled").inference_count == 7
    assert sum(size * count for size, count in client.batches("filled").items()) == 7


def test_a_filled_up_batch_computes_what_an_exact_one_does(server: RunningServer, client: Client) -> None:
    x = np.random.default_rng(0).standard_normal((3, 32), np.float32)
    exact, filled = (client.infer(model, {"x": x})["y"] for model in ("mlp", "filled_mlp"))
    np.testing.assert_allclose(filled, exact, rtol=1e-5, atol=1e-6)
    assert client.batches("filled_mlp") == {3: 1}


FAILURES = {
    "fails": "failed to run warmup sample 'too large': model 'fails' version 1 failed to run: ",
    "no_file": "no_file/warmup/none.bin: no such file; add it, or use zero_data or random_data",
    "short_file": "short_file/config.pbtxt: field 'model_warmup[0].inputs['x']': file 'row.bin' has 7 bytes",
    "way_out": "way_out/warmup/../../secret: lies outside of the model's folder",
    "wrong_input": "field 'model_warmup[0]' is no request that the model takes: ",
}


@pytest.mark.parametrize("model", FAILURES)
def test_a_sample_that_fails_makes_the_version_unavailable_and_says_why(
    model: str, server: RunningServer, client: Client
) -> None:
    models = client.call("RepositoryIndex", pb.RepositoryIndexRequest()).models
    ((state, reason),) = [(entry.state, entry.reason) for entry in models if entry.name == model]
    assert state == "UNAVAILABLE"
    assert FAILURES[model] in reason
    assert f"model '{model}' version 1 is UNAVAILABLE" in server.log.read_text()
