"""Ensembles as their callers see them: real models, real sockets, both engines."""

from __future__ import annotations

import queue
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from loadtest import perf_analyzer
from proto import grpc_service_pb2 as pb
from server.tensors import DATATYPES
from tests import onnx_models
from tests.ensembles import add_ensemble, ensemble, step
from tests.real.clients import Client, answer_of, infer_request, metric, refusal_of, wait_for_pending
from tests.real.conftest import ENGINES, RunningServer, connect, start
from tests.real.test_repositories import POLL, SECONDS, Load, index
from tests.real.waiting import wait_until
from tests.real.zoo import held
from tests.repositories import add_model


def write_pipelines(root: Path) -> Path:
    """Models of INT64 rows named for what they do, and ensembles of them. Those that begin with `held` wait for eight
    rows, and belong to one test each."""
    for name, factor in (("doubled", 2), ("trebled", 3)):
        add_model(root, name, onnx_models.affine(factor=factor, offset=0), "max_batch_size: 8")
    for name in ("held_first", "held_left", "held_right", "held_failing", "held_narrow", "held_deadline"):
        add_model(root, name, onnx_models.affine(factor=10, offset=0), held())
    add_model(root, "lookup", onnx_models.lookup(), "max_batch_size: 8")
    add_model(root, "add_sub", onnx_models.add_sub(("N", 1), "INT64"), "max_batch_size: 8")
    scores = (
        'input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] %s }'
    )
    add_model(
        root,
        "scores",
        onnx_models.identity("FP32", ("N", 3)),
        "max_batch_size: 8 " + scores % 'label_filename: "labels.txt"',
        files={"labels.txt": "cat\ndog\nowl\n"},
    )
    add_ensemble(
        root,
        "diamond",
        ensemble(
            step("add_sub", {"a": "two", "b": "three"}, {"sum": "sum", "difference": "difference"}),
            step("doubled", {"x": "x"}, {"y": "two"}),
            step("trebled", {"x": "x"}, {"y": "three"}),
            outputs={name: ("INT64", [1]) for name in ("sum", "difference", "two")},
        ),
    )
    outer = {"sum": "x5"}
    add_ensemble(
        root,
        "nested",
        ensemble(step("diamond", {"x": "x"}, outer), step("doubled", {"x": "x5"}, {"y": "y"})),
    )
    add_ensemble(
        root,
        "ranked",
        ensemble(step("scores", {"x": "x"}, {"y": "y"}), inputs={"x": ("FP32", [3])}, outputs={"y": ("FP32", [3])}),
    )
    add_ensemble(
        root,
        "risky",
        ensemble(
            step("lookup", {"x": "x"}, {"y": "looked"}),
            step("held_failing", {"x": "x"}, {"y": "held"}),
            step("add_sub", {"a": "looked", "b": "held"}, {"sum": "y"}),
        ),
    )
    for name in ("first", "deadline"):
        add_ensemble(
            root,
            f"waits_{name}",
            ensemble(step("doubled", {"x": "x"}, {"y": "two"}), step(f"held_{name}", {"x": "two"}, {"y": "y"})),
        )
    add_ensemble(
        root,
        "both",
        ensemble(
            step("held_left", {"x": "x"}, {"y": "l"}),
            step("held_right", {"x": "x"}, {"y": "r"}),
            step("add_sub", {"a": "l", "b": "r"}, {"sum": "y"}),
        ),
    )
    add_ensemble(
        root,
        "narrow",
        ensemble(
            step("doubled", {"x": "x"}, {"y": "two"}),
            step("held_narrow", {"x": "two"}, {"y": "y"}),
            scheduling="max_inflight_requests: 2",
        ),
    )
    for datatype in onnx_models.ELEMENT_TYPES:
        name, tensor = f"identity_{datatype.lower()}", ("STRING" if datatype == "BYTES" else datatype, [2])
        add_model(root, name, onnx_models.identity(datatype, ("N", 2)), "max_batch_size: 8")
        chain = step(name, {"x": "x"}, {"y": "t"}), step(name, {"x": "t"}, {"y": "y"})
        add_ensemble(root, f"chain_{datatype}", ensemble(*chain, inputs={"x": tensor}, outputs={"y": tensor}))
    add_ensemble(root, "orphan", ensemble(step("nobody", {"x": "x"}, {"y": "y"})))
    return root


@pytest.fixture(scope="module")
def server(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = write_pipelines(tmp_path_factory.mktemp("pipelines"))
    server = start(
        tmp_path_factory.mktemp("server"), *ENGINES[engine], "--strict-readiness=false", model_repository=root
    )
    yield server
    assert server.terminate() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with connect(server) as channel:
        yield Client(channel)


def rows(*values: int) -> dict[str, np.ndarray]:
    return {"x": np.array(values, np.int64).reshape(-1, 1)}


def test_a_diamond_answers_as_its_models_would(client: Client) -> None:
    answer = client.infer("diamond", rows(1, 7))
    assert {name: array.ravel().tolist() for name, array in answer.items()} == {
        "sum": [5, 35],
        "difference": [-1, -7],
        "two": [2, 14],
    }


def test_tritonclient_sees_one_model(server: RunningServer) -> None:
    with triton.InferenceServerClient(server.grpc_address) as client:
        assert client.is_model_ready("diamond")
        metadata = client.get_model_metadata("diamond", as_json=True)
        assert (metadata["platform"], metadata["versions"]) == ("ensemble", ["1"])
        assert metadata["inputs"] == [{"name": "x", "datatype": "INT64", "shape": ["-1", "1"]}]
        steps = client.get_model_config("diamond", as_json=True)["config"]["ensemble_scheduling"]["step"]
        assert [(each["model_name"], each["model_version"]) for each in steps] == [
            ("add_sub", "-1"), ("doubled", "-1"), ("trebled", "-1")
        ]  # fmt: skip
        value = triton.InferInput("x", [1, 1], "INT64")
        value.set_data_from_numpy(np.array([[4]], np.int64))
        answer = client.infer("diamond", [value], request_id="mine")
        assert (answer.get_response().id, answer.get_response().model_version) == ("mine", "1")
        assert answer.as_numpy("sum").tolist() == [[20]]
        with pytest.raises(InferenceServerException, match="has no available versions"):
            client.infer("orphan", [value])


def test_a_stream_carries_requests_of_ensembles(server: RunningServer) -> None:
    answers: queue.SimpleQueue[tuple[triton.InferResult | None, InferenceServerException | None]] = queue.SimpleQueue()
    with triton.InferenceServerClient(server.grpc_address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for n in (3, 9, 4):
            value = triton.InferInput("x", [1, 1], "INT64")
            value.set_data_from_numpy(np.array([[n]], np.int64))
            client.async_stream_infer("nested" if n != 9 else "risky", [value], request_id=str(n))
        first, failed, last = (answers.get(timeout=SECONDS) for _ in range(3))
        client.stop_stream()
    assert first[0] is not None and first[0].as_numpy("y").tolist() == [[30]]
    assert failed[1] is not None and "in ensemble 'risky', " in str(failed[1])
    assert last[0] is not None and last[0].as_numpy("y").tolist() == [[40]]


def test_what_nobody_asked_for_is_not_run(client: Client) -> None:
    before = client.statistics("trebled").execution_count
    request = pb.ModelInferRequest.InferRequestedOutputTensor(name="two")
    assert {name: array.tolist() for name, array in client.infer("diamond", rows(4), outputs=[request]).items()} == {
        "two": [[8]]
    }
    assert client.statistics("trebled").execution_count == before


def test_an_ensemble_inside_another_answers(client: Client) -> None:
    assert client.infer("nested", rows(3))["y"].tolist() == [[30]]


@pytest.mark.parametrize("datatype", onnx_models.ELEMENT_TYPES)
def test_every_datatype_goes_from_step_to_step(client: Client, datatype: str) -> None:
    request = pb.ModelInferRequest(model_name=f"chain_{datatype}")
    request.inputs.add(name="x", datatype=datatype, shape=[3, 2])
    texts = [b"na\xc3\xafve", b"", b"\xf0\x9f\x90\xab", b"a", b"b", b"c"]
    content = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    if datatype != "BYTES":
        content = bytes(i % 2 for i in range(6 * DATATYPES[datatype].itemsize))
    request.raw_input_contents.append(content)
    answer = client.call("ModelInfer", request)
    assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == (datatype, [3, 2])
    assert answer.raw_output_contents[0] == content


def test_classes_have_the_labels_of_the_model_that_they_come_from(client: Client) -> None:
    output = pb.ModelInferRequest.InferRequestedOutputTensor(name="y")
    output.parameters["classification"].int64_param = 2
    answer = client.infer("ranked", {"x": np.array([[0.5, 2, 1]], np.float32)}, outputs=[output])
    assert answer["y"].tolist() == [[b"2.000000:1:dog", b"1.000000:2:owl"]]


def test_a_failing_step_ends_the_request_and_cancels_the_others(server: RunningServer, client: Client) -> None:
    before = [client.statistics(name).inference_stats.fail.count for name in ("risky", "held_failing")]
    refusal = client.refusal("ModelInfer", _request("risky", 9))
    assert refusal.status is grpc.StatusCode.INTERNAL
    assert refusal.message.startswith("in ensemble 'risky', model 'lookup' version 1 failed to run: ")
    wait_for_pending(server.metrics_url, "held_failing", 0)
    for name, count in (("risky", before[0]), ("held_failing", before[1])):
        assert client.statistics(name).inference_stats.fail.count == count + 1


def test_a_bad_request_is_refused_for_the_ensemble_itself(client: Client) -> None:
    refusal = client.refusal("ModelInfer", _request("diamond", *range(9)))
    assert refusal.status is grpc.StatusCode.INVALID_ARGUMENT
    assert "inference request batch-size must be <= 8 for 'diamond'" in refusal.message
    short = _request("diamond", 1)
    short.raw_input_contents[0] = b"1234"
    assert "byte size mismatch for input 'x' for model 'diamond'" in client.refusal("ModelInfer", short).message


def test_the_branches_of_a_diamond_run_at_the_same_time(server: RunningServer, client: Client) -> None:
    call = client.start_infer("both", rows(*range(7)))
    for branch in ("held_left", "held_right"):
        wait_for_pending(server.metrics_url, branch, 1)
    for branch in ("held_left", "held_right"):  # direct requests and those of the ensemble share a batch
        assert client.infer(branch, rows(100))["y"].tolist() == [[1000]]
    assert answer_of(call)["y"].ravel().tolist() == [20 * n for n in range(7)]
    assert client.batches("held_left") == {8: 1}


def test_a_caller_that_leaves_takes_its_steps_along(server: RunningServer, client: Client) -> None:
    call = client.start_infer("waits_first", rows(1))
    wait_for_pending(server.metrics_url, "held_first", 1)
    call.cancel()
    wait_for_pending(server.metrics_url, "held_first", 0)
    wait_until(lambda: client.statistics("waits_first").inference_stats.fail.count == 1, SECONDS)
    assert metric(server.metrics_url, "nv_inference_request_failure", model="waits_first", reason="CANCELED") == 1
    assert metric(server.metrics_url, "nv_inference_in_flight_request_count", model="waits_first") == 0


def test_the_callers_deadline_holds_in_every_step(server: RunningServer, client: Client) -> None:
    refusal = refusal_of(client.start_infer("waits_deadline", rows(1), timeout=0.2))
    assert refusal.status is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for_pending(server.metrics_url, "held_deadline", 0)
    assert client.statistics("held_deadline").execution_count == 0


def test_a_narrow_step_holds_back_those_before_it(server: RunningServer, client: Client) -> None:
    calls = [client.start_infer("narrow", rows(n)) for n in range(6)]
    wait_for_pending(server.metrics_url, "held_narrow", 2)
    wait_for_pending(server.metrics_url, "narrow", 2)  # two more are done with the first step, and keep their place
    assert client.infer("held_narrow", rows(*[0] * 6))["y"].size == 6
    wait_for_pending(server.metrics_url, "narrow", 0)
    for _ in range(2):
        wait_for_pending(server.metrics_url, "held_narrow", 2)
        client.infer("held_narrow", rows(*[0] * 6))
    assert [answer_of(call)["y"].item() for call in calls] == [20 * n for n in range(6)]


def test_an_ensemble_without_its_model_says_so(client: Client) -> None:
    state, reason = index(client, "orphan")["1"]
    assert state == "UNAVAILABLE"
    assert reason == "ensemble orphan contains models that are not available or ambiguous: nobody"


def test_statistics_are_of_the_whole(client: Client) -> None:
    before = client.statistics("nested")
    client.infer("nested", rows(1, 2))
    after = client.statistics("nested")
    assert after.inference_count - before.inference_count == 2
    assert after.execution_count - before.execution_count == 1
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert after.inference_stats.success.ns > after.inference_stats.compute_infer.ns


def test_perf_analyzer_reports_the_models_of_an_ensemble(server: RunningServer, tmp_path: Path) -> None:
    try:
        analyzer = perf_analyzer.install()
    except perf_analyzer.UnavailableError as reason:
        pytest.skip(str(reason))
    report = analyzer.run(
        *("-m", "nested", "-i", "grpc", "-u", server.grpc_address, "--async", "--concurrency-range", "8"),
        csv_file=tmp_path / "report.csv",
        seconds=120,
    )
    assert not re.search("error|fail|warning", report.output, re.IGNORECASE), report.output
    for name in ("diamond", "add_sub", "doubled", "trebled"):
        assert re.search(rf"{name}, version: 1\s+Inference count: [1-9]", report.output), report.output


def test_members_come_and_go_under_load_without_a_failed_request(engine: str, tmp_path: Path, start_server) -> None:
    root = tmp_path / "models"
    add_model(root, "member", onnx_models.affine(factor=1), "max_batch_size: 8")
    add_ensemble(root, "m", ensemble(step("member", {"x": "x"}, {"y": "y"})))
    server = start_server(*ENGINES[engine], *POLL, model_repository=root)
    with connect(server) as channel:
        client = Client(channel)
        with Load(channel) as load:
            wait_until(lambda: load.answered(11), SECONDS)
            for factor in (2, 3):
                (tmp_path / "other.onnx").write_bytes(onnx_models.affine(factor=factor).SerializeToString())
                (tmp_path / "other.onnx").replace(root / "member" / "1" / "model.onnx")
                wait_until(lambda: load.answered(10 * factor + 1), SECONDS)  # noqa: B023 -- called at once
        load.check()

        (root / "member").rename(tmp_path / "member")
        wait_until(lambda: index(client)["1"][0] == "UNAVAILABLE", SECONDS)
        assert "'member'" in index(client)["1"][1] or "member" in index(client)["1"][1]
        assert "no available versions" in client.refusal("ModelInfer", _request("m", 1)).message

        shutil.move(tmp_path / "member", root / "member")
        wait_until(lambda: index(client)["1"] == ("READY", ""), SECONDS)
        assert client.infer("m", rows(10))["y"].tolist() == [[31]]


def _request(model: str, *values: int) -> pb.ModelInferRequest:
    return infer_request(model, rows(*values))
