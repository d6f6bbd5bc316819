"""Traces over real sockets: a receiver of OTLP on loopback, and what a server of either engine sends to it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import SERVICE, Client, infer_request, refusal_of, wait_for_pending
from tests.real.conftest import ENGINES, ROOT, RunningServer, StartServer, connect, start
from tests.real.waiting import wait_until
from tests.real.zoo import held
from tests.repositories import add_model

pytest.importorskip("opentelemetry.sdk", reason="the extra 'tracing' is not installed")

from tests.real.otlp_receiver import Receiver, Trace, receiving

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ASKED = (("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "vendor=x"), ("baggage", "user=alice"))
"""What a client sends whose own trace goes on in the server."""

SECRET = b"SECRET-TENSOR-BYTES"
NUMBER = 7_031_987_003
"""What must never be seen outside of a tensor."""

TRACING = ("--trace-config=mode=opentelemetry", "--trace-config=opentelemetry,bsp_schedule_delay=50")
ALL = ("--trace-config=level=TIMESTAMPS", "--trace-config=rate=1")


def models(root: Path) -> Path:
    for name in ("affine", "rare", "other"):
        add_model(root, name, onnx_models.affine())
    add_model(root, "lookup", onnx_models.lookup())
    add_model(root, "held", onnx_models.affine(), held())
    add_model(root, "full", onnx_models.affine(), held("max_queue_size: 1"))
    add_model(root, "text", onnx_models.identity("BYTES"))
    split = 'parameters { key: "split_oversize" value { string_value: "true" } }'
    add_model(root, "split", onnx_models.affine(), f"max_batch_size: 4 dynamic_batching {{ }} {split}")
    return root


def one_model(root: Path) -> Path:
    add_model(root, "affine", onnx_models.affine())
    return root


@dataclass
class Traced:
    """A server that sends traces of all requests, and where it sends them."""

    server: RunningServer
    receiver: Receiver
    client: Client


@pytest.fixture(scope="module")
def traced(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    root = models(tmp_path_factory.mktemp("models"))
    with receiving() as receiver:
        url = f"--trace-config=opentelemetry,url={receiver.url}"
        flags = (*ENGINES[engine], *TRACING, *ALL, url, "--log-verbose=2", "--log-format=json")
        server = start(tmp_path_factory.mktemp("server"), *flags, model_repository=root)
        with connect(server) as channel:
            yield Traced(server, receiver, Client(channel))
        assert server.terminate() == 0, server.log.read_text()


def x(*numbers: int) -> dict[str, np.ndarray]:
    return {"x": np.array([[number] for number in numbers], np.int64)}


def call(client: Client, model: str, inputs: dict[str, np.ndarray], metadata: Sequence[Any] = (), **more: Any) -> Any:
    """Begin an inference with metadata."""
    message = infer_request(model, inputs, **more).SerializeToString()
    return client.channel.unary_unary(f"{SERVICE}/ModelInfer").future(message, timeout=30, metadata=metadata)


def names(trace: Trace) -> list[str]:
    return [span.name for span in trace.children(trace.root)]


def test_a_request_waits_and_is_computed_inside_of_its_own_time(traced: Traced) -> None:
    traced.client.infer("affine", x(1, 2), id="whole")
    trace = traced.receiver.wait_for_request("whole")
    assert not trace.root.wire.parent_span_id
    assert names(trace) == ["queue", "compute"]
    compute = trace.child("compute")
    phases = trace.children(compute)
    assert [span.name for span in phases] == ["compute_input", "compute_infer", "compute_output"]

    start, end = trace.root.times
    steps = [start, *trace.child("queue").times, compute.times[0]]
    steps += [time for span in phases for time in span.times]
    steps += [compute.times[1], end]
    assert steps == sorted(steps)
    assert len({span.trace_id for span in (trace.root, *trace.inside)}) == 1
    assert trace.root.resource["service.name"] == "convoy"
    assert trace.root.attributes | {"triton.model_version": "1", "convoy.rows": 2} == trace.root.attributes
    assert compute.attributes["convoy.batch.rows"] == 2


def test_a_callers_trace_goes_on(traced: Traced) -> None:
    call(traced.client, "affine", x(1), ASKED, id="asked").result()
    trace = traced.receiver.wait_for_request("asked")
    assert trace.root.trace_id == TRACE
    assert trace.root.wire.parent_span_id.hex() == SPAN
    assert trace.root.wire.trace_state == "vendor=x"
    assert b"alice" not in b"".join(traced.receiver.bodies)


def test_requests_of_a_batch_have_the_batch_in_common(traced: Traced) -> None:
    calls = [call(traced.client, "held", x(n), id=f"mate {n}") for n in range(8)]
    for answer in calls:
        answer.result()
    mates = traced.receiver.wait_for(8, lambda span: span.request_id.startswith("mate"))
    computed = [trace.child("compute").attributes for trace in mates]
    assert {attributes["convoy.batch.requests"] for attributes in computed} == {8}
    assert len({attributes["convoy.batch.id"] for attributes in computed}) == 1


def test_a_request_in_parts_has_a_computation_for_each(traced: Traced) -> None:
    traced.client.infer("split", x(*range(10)), id="parts")
    trace = traced.receiver.wait_for_request("parts")
    assert names(trace) == ["queue", "compute", "compute", "compute"]
    rows = [span.attributes["convoy.batch.rows"] for span in trace.inside if span.name == "compute"]
    assert sorted(rows) == [2, 4, 4]


@pytest.mark.parametrize(
    ("request_", "status", "reason", "inside"),
    [
        (infer_request("nobody", x(1), id="unknown"), 5, "'nobody' is not found", []),
        (pb.ModelInferRequest(model_name="affine", id="empty"), 3, "expected 1 inputs but got 0", []),
        (infer_request("lookup", x(99), id="failing"), 13, "'lookup' version 1 failed to run", ["queue", "compute"]),
    ],
    ids=["unknown", "invalid", "failing"],
)
def test_a_failure_is_the_status_of_its_span(
    traced: Traced, request_: pb.ModelInferRequest, status: int, reason: str, inside: list[str]
) -> None:
    refusal_of(traced.client.start("ModelInfer", request_))
    trace = traced.receiver.wait_for_request(request_.id)
    assert trace.root.wire.status.code == trace.root.wire.status.STATUS_CODE_ERROR
    assert reason in trace.root.wire.status.message
    assert trace.root.attributes["rpc.grpc.status_code"] == status
    assert names(trace) == inside


def test_a_message_that_is_no_request_is_traced_too(traced: Traced) -> None:
    refusal_of(traced.client.start("ModelInfer", b"\xff\xff"))
    (trace,) = traced.receiver.wait_for(1, lambda span: "not a ModelInferRequest" in span.wire.status.message)
    assert trace.root.attributes["error.type"] == "InvalidRequest"


def test_a_refusal_for_want_of_room_is_traced_and_a_caller_that_leaves_is_too(traced: Traced) -> None:
    waiting = call(traced.client, "full", x(1), id="leaves")
    wait_for_pending(traced.server.metrics_url, "full", 1)
    refusal_of(call(traced.client, "full", x(2), id="no room"))
    assert traced.receiver.wait_for_request("no room").root.attributes["error.type"] == "queue_full"
    waiting.cancel()
    left = traced.receiver.wait_for_request("leaves")
    assert left.root.attributes["rpc.grpc.status_code"] == 1
    assert left.child("queue").wire.status.code == left.root.wire.status.STATUS_CODE_ERROR


def test_every_request_of_a_stream_is_traced_inside_the_callers_trace(traced: Traced) -> None:
    messages = [infer_request("affine", x(n), id=f"streamed {n}").SerializeToString() for n in range(2)]
    messages.append(infer_request("nobody", x(1), id="streamed 2").SerializeToString())
    stream = traced.client.channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
    assert len(list(stream(iter(messages), timeout=30, metadata=ASKED))) == 3
    traces = traced.receiver.wait_for(3, lambda span: span.request_id.startswith("streamed"))
    assert {trace.root.name for trace in traces} == {"inference.GRPCInferenceService/ModelStreamInfer"}
    assert {trace.root.wire.parent_span_id.hex() for trace in traces} == {SPAN}
    by_id = {trace.root.request_id: trace.root.attributes["rpc.grpc.status_code"] for trace in traces}
    assert by_id == {"streamed 0": 0, "streamed 1": 0, "streamed 2": 5}


def test_a_model_has_a_rate_and_a_count_of_its_own(traced: Traced) -> None:
    tritonclient = pytest.importorskip("tritonclient.grpc")
    with tritonclient.InferenceServerClient(traced.server.grpc_address) as triton:
        triton.update_trace_settings(model_name="rare", settings={"trace_rate": "3", "trace_count": "2"})
        for n in range(12):
            traced.client.infer("rare", x(n), id=f"rare {n}")
        call(traced.client, "rare", x(1), ASKED, id="rare asked").result()
        traced.client.infer("other", x(1), id="rare no more")
        traced.receiver.wait_for_request("rare no more")
        seen = traced.receiver.traces(lambda span: span.request_id.startswith("rare"))
        assert [trace.root.request_id for trace in seen] == ["rare 2", "rare 5", "rare asked", "rare no more"]
        left = triton.get_trace_settings(model_name="rare", as_json=True)["settings"]["trace_count"]["value"]
        assert left == ["0"]
        triton.update_trace_settings(model_name="rare", settings={"trace_rate": None, "trace_count": None})
        assert triton.get_trace_settings("rare", as_json=True) == triton.get_trace_settings(as_json=True)


def test_tritonclient_changes_trace_settings_and_is_told_what_it_cannot(traced: Traced) -> None:
    tritonclient = pytest.importorskip("tritonclient.grpc")
    with tritonclient.InferenceServerClient(traced.server.grpc_address) as triton:
        assert {"trace", "logging"} <= set(triton.get_server_metadata().extensions)
        answer = triton.update_trace_settings("other", {"trace_level": "OFF"}, as_json=True)["settings"]
        assert answer == {
            "trace_level": {"value": ["OFF"]},
            "trace_rate": {"value": ["1"]},
            "trace_count": {"value": ["-1"]},
            "trace_mode": {"value": ["opentelemetry"]},
        }
        call(traced.client, "other", x(1), ASKED, id="not traced").result()
        triton.update_trace_settings("other", {"trace_level": None})
        traced.client.infer("other", x(1), id="traced again")
        traced.receiver.wait_for_request("traced again")
        assert traced.receiver.traces(lambda span: span.request_id == "not traced") == []
        for model, settings, status in [
            ("nobody", {"trace_rate": "1"}, "NOT_FOUND"),
            ("other", {"trace_file": "x"}, "UNIMPLEMENTED"),
            ("", {"trace_rate": "often"}, "INVALID_ARGUMENT"),
        ]:
            with pytest.raises(tritonclient.InferenceServerException) as caught:
                triton.update_trace_settings(model, settings)
            assert caught.value.status() == f"StatusCode.{status}"


def test_no_contents_of_tensors_are_in_logs_or_spans(traced: Traced) -> None:
    secret = {"x": np.array([[SECRET]], object)}
    assert traced.client.infer("text", secret, id="kept")["y"].item() == SECRET
    failed = refusal_of(call(traced.client, "lookup", x(NUMBER), id="quoted"))
    assert str(NUMBER) in failed.message  # ONNX Runtime quotes the element, and its owner may hear it
    request = infer_request("text", {"x": np.array([[1]], np.int64)}, id="garbled")
    request.inputs[0].datatype = "BYTES"
    request.raw_input_contents[0] = SECRET
    refusal_of(traced.client.start("ModelInfer", request))
    refusal_of(traced.client.start("ModelInfer", SECRET + request.SerializeToString()))
    refusal_of(traced.client.start("ModelInfer", request.SerializeToString()[:-1]))
    for request_id in ("kept", "quoted", "garbled"):
        traced.receiver.wait_for_request(request_id)
    wait_until(lambda: '"garbled"' in traced.server.log.read_text(), 20)
    log = traced.server.log.read_text()
    for told in (log, *(str(body) for body in traced.receiver.bodies)):
        for form in (SECRET.decode(), SECRET.hex(), str(int.from_bytes(SECRET[:4], "little")), str(NUMBER)):
            assert form not in told


def test_the_access_log_says_what_the_trace_says(traced: Traced) -> None:
    call(traced.client, "affine", x(1, 2, 3), ASKED, id="logged").result()
    traced.receiver.wait_for_request("logged")
    lines = [line for line in traced.server.log.read_text().splitlines() if '"request_id": "logged"' in line]
    (line,) = map(json.loads, lines)
    times = {name: line.pop(name) for name in ("time", "queue_us", "total_us")}
    assert 0 <= times["queue_us"] <= times["total_us"]
    assert line == {
        "level": "INFO",
        "name": "server.access",
        "message": "ModelInfer OK",
        "method": "ModelInfer",
        "protocol": "grpc",
        "status": "OK",
        "model": "affine",
        "version": "1",
        "request_id": "logged",
        "trace_id": TRACE,
        "rows": 3,
        "batch_rows": 3,
    }


def test_tritonclient_changes_what_is_logged(start_engine: StartServer, tmp_path: Path) -> None:
    tritonclient = pytest.importorskip("tritonclient.grpc")
    server = start_engine("--log-info=false", model_repository=one_model(tmp_path))
    assert "READY after" not in server.log.read_text()
    with tritonclient.InferenceServerClient(server.grpc_address) as triton, connect(server) as channel:
        client = Client(channel)
        client.infer("affine", x(1), id="before")
        settings = triton.update_log_settings({"log_info": True, "log_verbose_level": 1, "log_format": "ISO8601"})
        assert settings == triton.get_log_settings()
        client.infer("affine", x(1), id="after")
        triton.update_log_settings({"log_verbose_level": 0})
        client.infer("affine", x(1), id="afterwards")
        for wrong, status in [({"log_file": "x"}, "UNIMPLEMENTED"), ({"log_loud": True}, "INVALID_ARGUMENT")]:
            with pytest.raises(tritonclient.InferenceServerException) as caught:
                triton.update_log_settings(wrong)
            assert caught.value.status() == f"StatusCode.{status}"
    assert server.terminate() == 0
    (line,) = [line for line in server.log.read_text().splitlines() if "server.access" in line]
    assert line[10] == "T"
    assert "I server.access: ModelInfer OK model=affine version=1 request_id=after rows=1 batch_rows=1" in line


@pytest.mark.parametrize("receiver", ["gone", "silent"])
def test_a_receiver_that_takes_nothing_costs_no_request(
    start_server: StartServer, tmp_path: Path, receiver: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # it connects, and never says a word
        url = f"--trace-config=opentelemetry,url=http://127.0.0.1:{listener.getsockname()[1]}/v1/traces"
        if receiver == "gone":
            listener.close()
        server = start_server(*TRACING, *ALL, url, "--exit-timeout-secs=1", model_repository=one_model(tmp_path))
        with connect(server) as channel:
            client = Client(channel)
            assert [client.infer("affine", x(n))["y"].item() for n in range(20)] == [3 * n + 1 for n in range(20)]
        assert server.terminate() == 0
    log = server.log.read_text()
    assert log.count("the receiver of traces takes none") <= 1
    assert "20 of 20 traces were lost" in log
    assert "Traceback" not in log


def test_what_waits_is_sent_before_the_server_is_gone(start_server: StartServer, tmp_path: Path) -> None:
    with receiving() as receiver:
        flags = ("--trace-config=opentelemetry,bsp_schedule_delay=600000", *ALL, TRACING[0])
        url = f"--trace-config=opentelemetry,url={receiver.url}"
        server = start_server(*flags, url, model_repository=one_model(tmp_path))
        with connect(server) as channel:
            Client(channel).infer("affine", x(1), id="last")
        assert server.terminate() == 0
        assert len(receiver.traces()) == 1


def test_tritons_trace_file_is_written(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    server = start_server(f"--trace-config=triton,file={path}", *ALL, model_repository=one_model(tmp_path / "models"))
    with connect(server) as channel:
        Client(channel).infer("affine", x(1), id="filed")
    assert server.terminate() == 0
    head, *rest = json.loads(path.read_text())
    assert head == {"id": 1, "model_name": "affine", "model_version": 1, "request_id": "filed"}
    moments = [(t["name"], t["ns"]) for entry in rest for t in entry["timestamps"]]
    assert moments == sorted(moments, key=lambda moment: moment[1])
    assert {"COMPUTE_START", "COMPUTE_END", "GRPC_SEND_END"} <= {name for name, _ in moments}


def test_a_server_without_traces_imports_and_sends_nothing(tmp_path: Path) -> None:
    program = """
import asyncio, sys, time
from server import app, logs, settings
flags = settings.parse(sys.argv[1:])
async def main():
    running = app.App(flags, logs.configure(flags))
    await running.start()
    await running.stop()
asyncio.run(main())
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    flags = ["--model-repository", str(one_model(tmp_path)), "--grpc-port=0", "--http-port=0", "--metrics-port=0"]
    address = ["--grpc-address=127.0.0.1", "--http-address=127.0.0.1"]
    done = subprocess.run([sys.executable, "-c", program, *flags, *address], cwd=ROOT, capture_output=True, timeout=60)
    assert done.stdout.decode().splitlines() == ["[]"], done.stderr.decode()


def test_without_the_extra_the_server_says_how_to_get_it(tmp_path: Path) -> None:
    hidden = tmp_path / "opentelemetry"
    hidden.mkdir()
    (hidden / "__init__.py").write_text("raise ImportError('there is no opentelemetry here')")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from server.__main__ import main; sys.exit(main())"
    flags = ["--model-repository", str(tmp_path), "--trace-config=mode=opentelemetry"]
    done = subprocess.run([sys.executable, "-c", program, *flags], cwd=ROOT, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert b"pip install 'convoy[tracing]'" in done.stderr
