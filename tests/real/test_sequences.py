"""Models of sequences on real ONNX Runtime, asked by tritonclient: every answer is what numpy says.

The server has one model for each thing that sequences can do; each test has sequence ids of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import Array, Client, answer_of, metric, refusal_of
from tests.real.conftest import ENGINES, RunningServer, StartServer, connect, start
from tests.real.waiting import wait_until
from tests.repositories import add_model

WAIT_SECONDS = 20

TOTAL = 'state { input_name: "total_in" output_name: "total_out" data_type: TYPE_FP32 dims: [ 1 ] %s }'
LONG_IDLE = "max_sequence_idle_microseconds: 600000000"
ACCUMULATORS = {
    "direct": (4, "direct {}", 1),
    "direct_delayed": (4, "direct { max_queue_delay_microseconds: 3000 minimum_slot_utilization: 1.0 }", 1),
    "oldest": (4, "oldest { max_candidate_sequences: 12 max_queue_delay_microseconds: 2000 }", 1),
    "ordered": (4, "oldest { max_candidate_sequences: 12 preserve_ordering: true }", 1),
    "instances": (3, "direct {}", 2),
    "singles": (1, "oldest { max_candidate_sequences: 3 }", 1),
}
"""Models that sum up sequences: max_batch_size, strategy, instances."""

AROUND = """
platform: "ensemble"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
ensemble_scheduling { step {
  model_name: "oldest"
  input_map { key: "x" value: "x" }
  output_map { key: "y" value: "y" }
} }
"""

KINDS = {"start": "START", "ready": "READY", "end": "END"}


def controls(field: str, false: str, true: str, id_type: str) -> str:
    lines = [
        f'control_input {{ name: "{name}" control {{ kind: CONTROL_SEQUENCE_{kind} {field}: [ {false}, {true} ] }} }}'
        for name, kind in KINDS.items()
    ]
    corrid = f"control {{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_{id_type} }}"
    return " ".join([*lines, f'control_input {{ name: "id" {corrid} }}'])


def write_repository(root: Path) -> Path:
    for name, (rows, strategy, instances) in ACCUMULATORS.items():
        config = (
            f"max_batch_size: {rows} instance_group {{ count: {instances} kind: KIND_CPU }} "
            f"sequence_batching {{ {LONG_IDLE} {strategy} {TOTAL % ''} }}"
        )
        add_model(root, name, onnx_models.accumulator(), config)
    add_model(root, "around", config=AROUND)
    one_slot = "max_batch_size: 1 sequence_batching { %s %s }"
    state = TOTAL % ""
    add_model(root, "one_slot", onnx_models.accumulator(), one_slot % (LONG_IDLE, state))
    add_model(root, "soon_idle", onnx_models.accumulator(), one_slot % ("max_sequence_idle_microseconds: 20000", state))
    begun = TOTAL % 'initial_state { name: "begin" data_type: TYPE_FP32 dims: [ 1 ] data_file: "begin.bin" }'
    folder = add_model(root, "begun", onnx_models.accumulator(), one_slot % (LONG_IDLE, begun))
    (folder / "initial_state").mkdir()
    (folder / "initial_state" / "begin.bin").write_bytes(np.float32(100).tobytes())
    seen = (
        'state { input_name: "seen_in" output_name: "seen_out" data_type: TYPE_INT64 dims: [ -1 ] '
        "initial_state { data_type: TYPE_INT64 dims: [ 0 ] zero_data: true } }"
    )
    add_model(root, "history", onnx_models.history(), f"sequence_batching {{ {LONG_IDLE} {seen} }}")
    for datatype, id_datatype, signals in (
        ("INT32", "UINT64", controls("int32_false_true", "-1", "7", "UINT64")),
        ("FP32", "INT32", controls("fp32_false_true", "0", "0.5", "INT32")),
        ("BOOL", "BYTES", controls("bool_false_true", "false", "true", "STRING")),
    ):
        config = f"max_batch_size: 4 sequence_batching {{ {LONG_IDLE} direct {{}} {signals} }}"
        add_model(root, f"signals_{datatype.lower()}", onnx_models.signals(datatype, id_datatype), config)
    return root


@pytest.fixture(scope="module")
def server(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = write_repository(tmp_path_factory.mktemp("sequences"))
    running = start(tmp_path_factory.mktemp("server"), *ENGINES[engine], model_repository=root)
    yield running
    assert running.terminate() == 0, running.log.read_text()
    assert "Traceback" not in running.log.read_text(), running.log.read_text()


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with connect(server) as channel:
        yield Client(channel)


def step(x: float, sequence_id: int | str, **flags: bool) -> dict[str, Any]:
    """Arguments of `Client.infer` for a request of a sequence."""
    parameters = {f"sequence_{name}": pb.InferParameter(bool_param=flag) for name, flag in flags.items()}
    if isinstance(sequence_id, str):
        parameters["sequence_id"] = pb.InferParameter(string_param=sequence_id)
    else:
        parameters["sequence_id"] = pb.InferParameter(int64_param=sequence_id)
    return {"inputs": {"x": np.array([[x]], np.float32)}, "parameters": parameters}


def number(x: float, datatype: str = "FP32") -> triton.InferInput:
    tensor = triton.InferInput("x", [1, 1], datatype)
    tensor.set_data_from_numpy(np.array([[x]], np.float32 if datatype == "FP32" else np.int64))
    return tensor


def totals(server: RunningServer, model: str, sequence_id: int | str, numbers: Sequence[float]) -> list[float]:
    """Send a sequence, one request after another, on a connection of its own."""
    with triton.InferenceServerClient(server.grpc_address) as client:
        last = len(numbers) - 1
        return [
            client.infer(model, [number(x)], sequence_id=sequence_id, sequence_start=i == 0, sequence_end=i == last)
            .as_numpy("y")
            .item()
            for i, x in enumerate(numbers)
        ]


@pytest.mark.parametrize("sequence_id", [881, "over HTTP"])
def test_a_sequence_over_http(sequence_id: int | str, server: RunningServer) -> None:
    x = tritonclient.http.InferInput("x", [1, 1], "FP32")
    answers = []
    with tritonclient.http.InferenceServerClient(server.http_url.removeprefix("http://")) as client:
        for i in range(3):
            x.set_data_from_numpy(np.array([[i + 1]], np.float32))
            answer = client.infer(
                "direct", [x], sequence_id=sequence_id, sequence_start=i == 0, sequence_end=i == 2
            ).as_numpy("y")
            answers.append(answer.item())
    assert answers == [1, 3, 6]


@pytest.mark.parametrize("model", ACCUMULATORS)
def test_sequences_of_many_clients_do_not_touch_each_other(model: str, server: RunningServer) -> None:
    random = np.random.default_rng(0)
    ids: list[int | str] = [*range(1, 6), *(f"text {i}" for i in range(5))]
    sequences = {i: random.integers(-99, 99, random.integers(1, 12)).astype(np.float32) for i in ids}
    with ThreadPoolExecutor(len(ids)) as pool, connect(server) as channel:
        client = Client(channel)
        before = client.statistics(model)
        answers = dict(zip(ids, pool.map(lambda i: totals(server, model, i, sequences[i].tolist()), ids), strict=True))
        after = client.statistics(model)
    assert answers == {i: np.cumsum(numbers).tolist() for i, numbers in sequences.items()}
    requests = sum(map(len, sequences.values()))
    assert after.inference_stats.success.count - before.inference_stats.success.count == requests
    assert after.inference_count - before.inference_count == requests
    assert rows_of_batches(after) - rows_of_batches(before) == requests


def rows_of_batches(statistics: pb.ModelStatistics) -> int:
    return sum(batch.batch_size * batch.compute_infer.count for batch in statistics.batch_stats)


@pytest.mark.parametrize("model", ["direct", "oldest", "instances"])
def test_a_stream_of_interleaved_sequences_with_many_requests_in_flight(model: str, server: RunningServer) -> None:
    sequences = {f"stream {model} {i}": [float(i * 10 + n) for n in range(20)] for i in range(6)}
    answers: SimpleQueue[Any] = SimpleQueue()
    with triton.InferenceServerClient(server.grpc_address) as client:
        client.start_stream(lambda result, error: answers.put(error or result))
        for n in range(20):
            for key, numbers in sequences.items():
                client.async_stream_infer(
                    model,
                    [number(numbers[n])],
                    request_id=f"{key}/{n}",
                    sequence_id=key,
                    sequence_start=n == 0,
                    sequence_end=n == 19,
                )
        got = [answers.get(timeout=WAIT_SECONDS) for _ in range(120)]
        client.stop_stream()
    expected = [f"{key}/{n}" for n in range(20) for key in sequences]
    assert [answer.get_response().id for answer in got] == expected
    assert [answer.as_numpy("y").item() for answer in got] == [
        np.cumsum(sequences[key])[n] for n in range(20) for key in sequences
    ]


SIGNALS: dict[str, tuple[int | str, Mapping[bool, Any], Any]] = {
    "signals_int32": (2**63 - 1, {False: -1, True: 7}, 2**63 - 1),
    "signals_fp32": (-5, {False: 0.0, True: 0.5}, -5),
    "signals_bool": ("a tale", {False: False, True: True}, b"a tale"),
}


@pytest.mark.parametrize("model", SIGNALS)
def test_the_model_is_told_what_each_request_is(model: str, client: Client) -> None:
    sequence_id, value, told = SIGNALS[model]
    for flags in ({"start": True}, {}, {"end": True}):
        asked = step(3, sequence_id, **flags)
        answer = client.infer(model, {"x": np.array([[3]], np.int64)}, parameters=asked["parameters"])
        assert answer["y"].item() == 3
        assert answer["start_out"].item() == value["start" in flags]
        assert answer["end_out"].item() == value["end" in flags]
        assert answer["ready_out"].item() == value[True]
        assert answer["id_out"].item() == told


def test_each_sequence_has_a_row_of_its_own_whoever_else_is_there(client: Client) -> None:
    def rows_of(sequence_id: str, **flags: bool) -> int:
        asked = step(0, sequence_id, **flags)
        answer = client.infer("signals_bool", {"x": np.array([[0]], np.int64)}, parameters=asked["parameters"])
        return int(answer["rows"].item())

    assert [rows_of(key, start=True) for key in ("a", "b", "c")] == [1, 2, 3]
    assert [rows_of(key) for key in ("c", "a", "b")] == [3, 1, 2]
    assert rows_of("a", end=True) == 1
    assert rows_of("d", start=True) == 1, "the lowest slot that is free"
    assert [rows_of(key, end=True) for key in ("b", "c", "d")] == [2, 3, 1]


REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no id": (
        "direct",
        {"parameters": {"sequence_start": pb.InferParameter(bool_param=True)}},
        "[request id: r] inference request to model 'direct' must specify a non-zero or non-empty correlation ID",
    ),
    "id zero": (
        "direct",
        step(1, 0, start=True),
        "[request id: r] inference request to model 'direct' must specify a non-zero or non-empty correlation ID",
    ),
    "not started": (
        "direct",
        step(1, 901),
        (
            "[request id: r] inference request for sequence 901 to model 'direct' must specify the START flag on the "
            "first request of the sequence"
        ),
    ),
    "two rows": (
        "direct",
        step(1, 902, start=True) | {"inputs": {"x": np.zeros((2, 1), np.float32)}},
        (
            "[request id: r] inference request to model 'direct' must specify batch-size 1 due to requirements of "
            "sequence batcher"
        ),
    ),
    "an id of a wrong kind": (
        "direct",
        {"parameters": {"sequence_id": pb.InferParameter(bool_param=True)}},
        "invalid value type for 'sequence_id' parameter, expected int64_param or uint64_param or string_param.",
    ),
    "a flag of a wrong kind": (
        "direct",
        {"parameters": {"sequence_start": pb.InferParameter(int64_param=1)}},
        "invalid value type for 'sequence_start' parameter, expected bool_param.",
    ),
    "too long an id": (
        "direct",
        step(1, "x" * 129, start=True),
        "invalid value for 'sequence_id' parameter, expected at most 128 bytes, got 129.",
    ),
    "text for a number": (
        "signals_int32",
        step(1, "text", start=True) | {"inputs": {"x": np.zeros((1, 1), np.int64)}},
        (
            "[request id: r] inference request to model 'signals_int32' has a correlation ID that is text, and the "
            "model takes UINT64"
        ),
    ),
    "too large a number": (
        "signals_fp32",
        step(1, 2**31, start=True) | {"inputs": {"x": np.zeros((1, 1), np.int64)}},
        "[request id: r] inference request to model 'signals_fp32' has correlation ID 2147483648, which is no INT32",
    ),
}


@pytest.mark.parametrize(("model", "asked", "message"), REFUSALS.values(), ids=REFUSALS)
def test_what_is_no_request_of_a_sequence_is_refused(
    model: str, asked: dict[str, Any], message: str, client: Client
) -> None:
    inputs: Mapping[str, Array] = asked.get("inputs", {"x": np.zeros((1, 1), np.float32)})
    refusal = refusal_of(client.start_infer(model, inputs, parameters=asked["parameters"], id="r"))
    assert (refusal.status, refusal.message) == (grpc.StatusCode.INVALID_ARGUMENT, message)


def test_an_ensemble_hands_a_requests_sequence_to_its_models(server: RunningServer) -> None:
    assert totals(server, "around", "in an ensemble", [1, 2, 3]) == [1, 3, 6]


def test_a_start_begins_anew_a_sequence_that_goes_on(client: Client) -> None:
    assert client.infer("direct", **step(5, 31, start=True))["y"].item() == 5
    assert client.infer("direct", **step(5, 31))["y"].item() == 10
    assert client.infer("direct", **step(7, 31, start=True))["y"].item() == 7
    assert client.infer("direct", **step(1, 31, end=True))["y"].item() == 8


def test_a_state_begins_as_the_file_says_for_every_sequence(client: Client) -> None:
    for _ in range(2):
        assert client.infer("begun", **step(1, 41, start=True))["y"].item() == 101
        assert client.infer("begun", **step(1, 41, end=True))["y"].item() == 102


def test_a_state_may_grow(client: Client) -> None:
    for n in range(1, 5):
        parameters = step(0, 51, start=n == 1, end=n == 4)["parameters"]
        answer = client.infer("history", {"x": np.array([n], np.int64)}, parameters=parameters)
        assert answer["y"].tolist() == list(range(1, n + 1))


def sequences(server: RunningServer, which: str, model: str) -> float:
    return metric(server.metrics_url, f"convoy_sequences_{which}", model=model)


def test_a_silent_sequence_is_over_and_makes_room(server: RunningServer, client: Client) -> None:
    client.infer("soon_idle", **step(1, 61, start=True))
    wait_until(lambda: sequences(server, "reclaimed_total", "soon_idle") == 1, WAIT_SECONDS)
    assert sequences(server, "active", "soon_idle") == 0
    refusal = refusal_of(client.start_infer("soon_idle", **step(1, 61)))
    assert "must specify the START flag" in refusal.message


def test_the_backlog_has_the_slot_when_the_sequence_before_has_ended(server: RunningServer, client: Client) -> None:
    assert client.infer("one_slot", **step(1, 71, start=True))["y"].item() == 1
    late = client.start_infer("one_slot", **step(1, 72, start=True) | {"timeout": 20})
    waiting = client.start_infer("one_slot", **step(10, 73, start=True))
    wait_until(lambda: sequences(server, "backlog", "one_slot") == 2, WAIT_SECONDS)
    refused = step(1, 74, start=True)
    refused["parameters"]["timeout"] = pb.InferParameter(int64_param=1000)
    refusal = refusal_of(client.start_infer("one_slot", **refused))
    assert (refusal.status, refusal.message) == (grpc.StatusCode.UNAVAILABLE, "Request timeout expired")

    late.cancel()
    wait_until(lambda: sequences(server, "backlog", "one_slot") == 1, WAIT_SECONDS)
    assert client.infer("one_slot", **step(2, 71, end=True))["y"].item() == 3
    assert answer_of(waiting)["y"].item() == 10
    assert client.infer("one_slot", **step(1, 73, end=True))["y"].item() == 11
    assert sequences(server, "active", "one_slot") == 0


def test_sequence_tensors_are_no_inputs_of_the_callers(client: Client) -> None:
    metadata = client.call("ModelMetadata", pb.ModelMetadataRequest(name="signals_bool"))
    assert [tensor.name for tensor in metadata.inputs] == ["x"]
    metadata = client.call("ModelMetadata", pb.ModelMetadataRequest(name="direct"))
    assert [tensor.name for tensor in metadata.outputs] == ["y"]


def test_what_was_accepted_is_answered_when_the_server_stops(start_engine: StartServer, tmp_path: Path) -> None:
    config = f"max_batch_size: 1 sequence_batching {{ {LONG_IDLE} {TOTAL % ''} }}"
    add_model(tmp_path, "one_slot", onnx_models.accumulator(), config)
    server = start_engine(model_repository=tmp_path)
    with connect(server) as channel:
        client = Client(channel)
        client.infer("one_slot", **step(1, 81, start=True))
        waiting = [client.start_infer("one_slot", **step(n, 81 + n, start=True)) for n in (1, 2, 3)]
        wait_until(lambda: sequences(server, "backlog", "one_slot") == 3, WAIT_SECONDS)
        assert server.terminate() == 0
        assert [answer_of(call)["y"].item() for call in waiting] == [1, 2, 3]


def test_a_sequence_goes_on_when_its_model_is_loaded_anew(start_server: StartServer, tmp_path: Path) -> None:
    config = f"max_batch_size: 4 sequence_batching {{ {LONG_IDLE} {TOTAL % ''} }}"
    folder = add_model(tmp_path, "sum", onnx_models.accumulator(), config)
    server = start_server("--model-control-mode=explicit", "--load-model=*", model_repository=tmp_path)
    with connect(server) as channel, triton.InferenceServerClient(server.grpc_address) as control:
        client = Client(channel)
        for sequence_id in ("goes on", "begins anew"):
            assert client.infer("sum", **step(1, sequence_id, start=True))["y"].item() == 1
        (folder / "config.pbtxt").write_text(f"{config} version_policy {{ all {{}} }}")
        control.load_model("sum")
        assert sequences(server, "active", "sum") == 2
        assert client.infer("sum", **step(10, "goes on"))["y"].item() == 11
        assert client.infer("sum", **step(5, "begins anew", start=True))["y"].item() == 5
        assert client.infer("sum", **step(100, "goes on", end=True))["y"].item() == 111
        assert client.infer("sum", **step(5, "begins anew"))["y"].item() == 10
        wait_until(lambda: "version 1, which was replaced, is gone" in server.log.read_text(), WAIT_SECONDS)
        assert sequences(server, "active", "sum") == 1
    assert server.terminate() == 0
