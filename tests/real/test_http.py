"""Inference over plain HTTP: bodies that no client of ours would send, callers who leave, overload, traces, the end."""

from __future__ import annotations

import gzip
import http.client
import json
import signal
import socket
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests import onnx_models
from tests.real.clients import CALL_SECONDS, http_status, metric, wait_for_pending
from tests.real.conftest import RunningServer, StartServer, start
from tests.real.otlp_receiver import receiving
from tests.real.waiting import wait_until
from tests.real.zoo import held
from tests.repositories import add_model

MAX_INPUT = 1 << 20
MEMORY_BYTES = 48 << 20
"""What an allocator may keep of memory that was used once."""
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


def write_models(root: Path) -> Path:
    add_model(root, "affine", onnx_models.affine())
    add_model(root, "fp32", onnx_models.identity("FP32"))
    add_model(root, "bytes", onnx_models.identity("BYTES"))
    add_model(root, "vector", onnx_models.identity("FP32", ("N", 4)), "max_batch_size: 8")
    add_model(root, "text", onnx_models.identity("BYTES", ("N", 1)), "max_batch_size: 8")
    add_model(root, "add_sub", onnx_models.add_sub(), "max_batch_size: 8")
    add_model(root, "full", onnx_models.affine(), held("max_queue_size: 1"))
    add_model(root, "left", onnx_models.affine(), held())
    add_model(root, "held", onnx_models.affine(), held())
    return root


FLAGS = (f"--http-max-input-size={MAX_INPUT}", "--access-log=true", "--log-format=json")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    models = write_models(tmp_path_factory.mktemp("models"))
    server = start(tmp_path_factory.mktemp("server"), *FLAGS, model_repository=models)
    yield server
    assert server.terminate() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


def connection(server: RunningServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=CALL_SECONDS)


def post(server: RunningServer, path: str, body: bytes, **headers: str) -> Answer:
    with closing(connection(server)) as peer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        peer.request("POST", f"/v2/{path}", body, named)
        response = peer.getresponse()
        return Answer(response.status, response.headers, response.read())


def one(value: object = 1, **more: Any) -> bytes:
    """A request for a model of INT64 with one element."""
    tensor = {"name": "x", "datatype": "INT64", "shape": [1, 1], "data": [value]}
    return json.dumps({"inputs": [tensor], **more}).encode()


def floats(*values: str) -> bytes:
    text = ",".join(values)
    return f'{{"inputs":[{{"name":"x","datatype":"FP32","shape":[1,{len(values)}],"data":[{text}]}}]}}'.encode()


def infer(server: RunningServer, model: str, body: bytes, **headers: str) -> Answer:
    return post(server, f"models/{model}/infer", body, **headers)


# --- bodies ---


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "", "nonsense"])
def test_the_content_type_does_not_matter_as_with_triton(content_type: str, server: RunningServer) -> None:
    answer = infer(server, "affine", one(2), Content_Type=content_type)
    assert answer.status == 200
    assert answer.json["outputs"] == [{"name": "y", "datatype": "INT64", "shape": [1, 1], "data": [7]}]


def test_integers_of_64_bits_survive(server: RunningServer) -> None:
    assert infer(server, "affine", one(2**53 + 1)).json["outputs"][0]["data"] == [3 * (2**53 + 1) + 1]


def not_finite(server: RunningServer) -> tuple[Answer, Answer]:
    """What becomes of NaN and infinities, sent as words and as binary data."""
    binary = np.array([[np.nan, np.inf, -np.inf, 0.1]], np.float32).tobytes()
    said = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
    text = json.dumps({"inputs": [said]}).encode()
    length = {"Inference_Header_Content_Length": str(len(text))}
    words = floats("NaN", "Infinity", "-Infinity", "0.1")
    return infer(server, "fp32", words), infer(server, "fp32", text + binary, **length)


def test_what_is_no_number_of_json_is_refused(server: RunningServer) -> None:
    as_json, as_binary = not_finite(server)
    assert (as_json.status, as_binary.status) == (400, 400)
    assert "failed to parse the request JSON buffer" in as_json.error
    assert "output 'y' has NaN or Infinity" in as_binary.error


def test_with_a_flag_each_is_what_its_callers_expect(start_server: StartServer, tmp_path: Path) -> None:
    flags = ("--http-json-nan=true", "--distinct-overload-statuses=true")
    server = start_server(*flags, model_repository=write_models(tmp_path))
    for answer in not_finite(server):
        assert b'"data":[NaN,Infinity,-Infinity,0.1]' in answer.body
    assert refused_by_a_full_queue(server).status == 429


def test_a_raw_body_is_the_only_input(server: RunningServer) -> None:
    values = np.array([1.5, -2, 3, 4], np.float32)
    answer = infer(server, "vector", values.tobytes(), Inference_Header_Content_Length="0")
    length = int(answer.headers["Inference-Header-Content-Length"])
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert json.loads(answer.body[:length])["outputs"][0]["shape"] == [1, 4]
    assert answer.body[length:] == values.tobytes()
    answer = infer(server, "text", b"a picture", Inference_Header_Content_Length="0")
    assert answer.body.endswith(b"\x09\0\0\0a picture")


BOMB = gzip.compress(bytes(64 << 20))
HOSTILE: Mapping[str, tuple[str, bytes, dict[str, str], int, str]] = {
    "nothing": ("affine", b"", {}, 400, "failed to parse"),
    "no JSON": ("affine", b"x=1", {}, 400, "failed to parse"),
    "deep lists": ("affine", b"[" * 250_000, {}, 400, "failed to parse"),
    "deep objects": ("affine", b'{"inputs":' * 100_000, {}, 400, "failed to parse"),
    "invalid UTF-8": ("affine", one().replace(b"INT64", b"\xff"), {}, 400, "failed to parse"),
    "a header longer than the body": ("affine", one(), {"Inference_Header_Content_Length": "999"}, 400, "has 78 bytes"),
    "a negative header": ("affine", one(), {"Inference_Header_Content_Length": "-1"}, 400, "Unable to parse"),
    "a header that is no number": ("affine", one(), {"Inference_Header_Content_Length": "1e2"}, 400, "Unable to parse"),
    "a raw body for two inputs": ("add_sub", bytes(16), {"Inference_Header_Content_Length": "0"}, 400, "one input"),
    "a raw body of the wrong size": ("vector", bytes(15), {"Inference_Header_Content_Length": "0"}, 400, "byte size"),
    "a raw body for nobody": ("nobody", bytes(15), {"Inference_Header_Content_Length": "0"}, 404, "unknown model"),
    "a body too large": ("affine", bytes(MAX_INPUT + 1), {}, 413, f"larger than max ({MAX_INPUT} bytes)"),
    "a bomb": ("affine", BOMB, {"Content_Encoding": "gzip"}, 413, f"larger than max ({MAX_INPUT} bytes)"),
    "no gzip": ("affine", one(), {"Content_Encoding": "gzip"}, 400, "is no gzip"),
    "half a stream": ("affine", gzip.compress(one())[:-9], {"Content_Encoding": "gzip"}, 400, "is no gzip"),
    "an unknown coding": ("affine", one(), {"Content_Encoding": "br"}, 415, "must be gzip or deflate, not 'br'"),
    "shapes without end": (
        "fp32",
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4611686018427387904],"data":[1]}]}',
        {},
        400,
        "too many elements",
    ),
    "a giant tensor announced": (
        "fp32",
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"parameters":{"binary_data_size":9223372036854775807}}]}',
        {},
        400,
        "announces",
    ),
}


@pytest.mark.parametrize(("model", "body", "headers", "status", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_body_gets_a_clear_error_and_takes_no_memory(
    model: str, body: bytes, headers: dict[str, str], status: int, reason: str, server: RunningServer
) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    for _ in range(5):
        answer = infer(server, model, body, **headers)
        assert answer.status == status
        assert reason in answer.error
    assert process.memory_info().rss < before + MEMORY_BYTES
    assert infer(server, "affine", one()).status == 200


def test_headers_said_twice_are_refused(server: RunningServer) -> None:
    with closing(connection(server)) as peer:
        peer.putrequest("POST", "/v2/models/affine/infer")
        for length in ("3", "5"):
            peer.putheader("Inference-Header-Content-Length", length)
        peer.putheader("Content-Length", str(len(one())))
        peer.endheaders(one())
        assert peer.getresponse().status == 400


@pytest.mark.parametrize(("coding", "count"), [("gzip", 1000), ("deflate", 20_000)])
def test_a_large_answer_is_compressed_for_who_accepts_it(coding: str, count: int, server: RunningServer) -> None:
    body = floats(*["0.5"] * count)
    answer = infer(server, "fp32", body, Accept_Encoding=f"br, {coding}")
    assert answer.headers["Content-Encoding"] == coding
    plain = gzip.decompress(answer.body) if coding == "gzip" else zlib.decompress(answer.body)
    assert plain == infer(server, "fp32", body).body


def test_a_body_in_chunks_is_a_body(server: RunningServer) -> None:
    with closing(connection(server)) as peer:
        peer.request("POST", "/v2/models/affine/infer", iter([one()[:7], one()[7:]]), encode_chunked=True)
        assert json.loads(peer.getresponse().read())["outputs"][0]["data"] == [4]


# --- what the server does with requests ---


def test_a_caller_who_leaves_frees_the_place(server: RunningServer) -> None:
    peer = connection(server)
    peer.request("POST", "/v2/models/left/infer", one())
    wait_for_pending(server.metrics_url, "left", 1)
    peer.close()
    wait_for_pending(server.metrics_url, "left", 0)
    gone = {"method": "POST", "route": "/v2/models/{model}/infer", "status": "gone"}
    wait_until(lambda: metric(server.metrics_url, "convoy_http_requests_total", **gone) == 1, CALL_SECONDS)
    assert metric(server.metrics_url, "convoy_request_failed_total", model="left", reason="cancelled") == 1


def refused_by_a_full_queue(server: RunningServer) -> Answer:
    with closing(connection(server)) as waiting:
        waiting.request("POST", "/v2/models/full/infer", one())
        wait_for_pending(server.metrics_url, "full", 1)
        return infer(server, "full", one())


def test_a_full_queue_says_so_with_a_reason_for_programs(server: RunningServer) -> None:
    answer = refused_by_a_full_queue(server)
    assert (answer.status, answer.headers["convoy-reason"]) == (503, "queue_full")
    assert "Exceeds maximum queue size" in answer.error


def test_the_access_log_has_a_line_for_each_request(server: RunningServer) -> None:
    infer(server, "affine", one(id="logged"))
    infer(server, "nobody", one(id="refused"))

    def lines() -> dict[str, Any]:
        said = [json.loads(line) for line in server.log.read_text().splitlines() if "server.access" in line]
        return {line["request_id"]: line for line in said}

    wait_until(lambda: {"logged", "refused"} <= lines().keys(), CALL_SECONDS)
    assert (lines()["logged"]["status"], lines()["logged"]["model"]) == ("OK", "affine")
    assert lines()["refused"]["status"] == "NOT_FOUND"
    assert {line["protocol"] for line in lines().values()} == {"http"}


def test_a_callers_trace_goes_on_here(start_server: StartServer, tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="the extra 'tracing' is not installed")
    with receiving() as receiver:
        flags = ("mode=opentelemetry", "level=TIMESTAMPS", "opentelemetry,bsp_schedule_delay=50")
        where = f"opentelemetry,url={receiver.url}"
        server = start_server(
            *(f"--trace-config={flag}" for flag in (*flags, where)), model_repository=write_models(tmp_path)
        )
        assert infer(server, "affine", one(id="traced"), traceparent=f"00-{TRACE}-{SPAN}-01").status == 200
        trace = receiver.wait_for_request("traced")
    assert (trace.root.wire.trace_id.hex(), trace.root.wire.parent_span_id.hex()) == (TRACE, SPAN)
    assert [span.name for span in trace.children(trace.root)] == ["queue", "compute"]
    assert trace.root.attributes["rpc.system"] == "http"
    assert "rpc.grpc.status_code" not in trace.root.attributes


def is_open(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), CALL_SECONDS):
            return True
    except ConnectionRefusedError:
        return False


def received_bytes(server: RunningServer) -> float:
    return metric(server.metrics_url, "convoy_http_received_bytes_total")


def test_the_server_answers_what_was_asked_before_it_stops(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(model_repository=write_models(tmp_path))
    with ExitStack() as stack:
        waiting, idle, sending = (stack.enter_context(closing(connection(server))) for _ in range(3))
        idle.request("GET", "/v2/health/live")
        idle.getresponse().read()
        waiting.request("POST", "/v2/models/held/infer", one())
        wait_for_pending(server.metrics_url, "held", 1)
        before = received_bytes(server)
        sending.putrequest("POST", "/v2/models/affine/infer")
        sending.putheader("Content-Length", str(len(one())))
        sending.endheaders(one()[:-1])
        wait_until(lambda: received_bytes(server) > before + len(one()), CALL_SECONDS)
        server.process.send_signal(signal.SIGTERM)
        answers = [waiting.getresponse()]
        wait_until(lambda: not is_open(server.ports["grpc"]), CALL_SECONDS)  # it is stopping, models would go next
        assert http_status(f"{server.http_url}/v2/health/live") == 200
        sending.send(one()[-1:])
        answers.append(sending.getresponse())
        for answer in answers:
            assert (answer.status, json.loads(answer.read())["outputs"][0]["data"]) == (200, [4])
            assert answer.headers["Connection"] == "close"
    assert server.terminate() == 0
    assert not any(is_open(port) for port in server.ports.values())
    assert "Traceback" not in server.log.read_text()
