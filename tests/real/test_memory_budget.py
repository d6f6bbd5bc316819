"""--memory-budget in real servers: what does not fit is refused by name, on every protocol, and the rest goes on."""

from __future__ import annotations

import http.client
import json
import re
from contextlib import closing
from pathlib import Path

import grpc
import numpy as np
import pytest

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import Client, http_status, infer_request, metric, wait_for_pending
from tests.real.conftest import RunningServer, StartServer, connect
from tests.real.waiting import wait_until
from tests.real.zoo import held
from tests.repositories import add_model

PATIENCE_SECONDS = 30
BUDGET = 11 << 20
LARGEST = 2 << 20
ELEMENTS = 400_000
"""1.6 MB, and twice as much is expected of its answer: two such requests fit into the budget, and a third does not."""
HUGE = 128 << 20
JSON_LENGTH = "Inference-Header-Content-Length"


@pytest.fixture
def server(start_engine: StartServer, tmp_path: Path) -> RunningServer:
    root = tmp_path / "models"
    add_model(root, "held", onnx_models.identity("FP32"), held())
    add_model(root, "free", onnx_models.identity("FP32"), "max_batch_size: 8")
    return start_engine(
        f"--memory-budget={BUDGET}", f"--grpc-max-message-bytes={LARGEST}", f"--http-max-input-size={LARGEST}",
        model_repository=root,
    )  # fmt: skip


def large() -> dict[str, np.ndarray]:
    return {"x": np.zeros((1, ELEMENTS), np.float32)}


def http_body() -> tuple[dict[str, str], bytes]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, ELEMENTS], "parameters": {"binary_data_size": 4 * ELEMENTS}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return {JSON_LENGTH: str(len(head))}, head + bytes(4 * ELEMENTS)


def used(server: RunningServer) -> float:
    return metric(server.metrics_url, "convoy_memory_used_bytes")


def test_what_there_is_no_memory_for_is_refused_by_name_and_health_is_answered(server: RunningServer) -> None:
    with connect(server) as channel:
        client = Client(channel)
        waiting = [client.start_infer("held", large()) for _ in range(2)]
        wait_for_pending(server.metrics_url, "held", 2)
        assert 4 * 4 * ELEMENTS < used(server) <= BUDGET

        third = client.start("ModelInfer", infer_request("free", large()))
        assert third.exception(PATIENCE_SECONDS).code() is grpc.StatusCode.UNAVAILABLE
        assert "Exceeds the memory budget of the server: " in third.details()
        assert ("convoy-reason", "memory_full") in third.trailing_metadata()
        with closing(http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=PATIENCE_SECONDS)) as peer:
            headers, body = http_body()
            peer.request("POST", "/v2/models/free/infer", body, headers)
            answer = peer.getresponse()
            assert (answer.status, answer.headers["convoy-reason"]) == (503, "memory_full")
        assert metric(server.metrics_url, "convoy_memory_refused_total") == 2
        assert client.call("ServerReady", pb.ServerReadyRequest()).ready
        assert http_status(f"{server.http_url}/v2/health/ready") == 200

        waiting[0].cancel()
        wait_for_pending(server.metrics_url, "held", 1)
        assert client.infer("free", large())["y"].shape == (1, ELEMENTS)
        waiting[1].cancel()
        wait_until(lambda: used(server) == 0, PATIENCE_SECONDS)
    assert server.terminate() == 0


def test_a_body_is_refused_by_the_length_that_it_declares(server: RunningServer) -> None:
    with connect(server) as channel:
        waiting = [Client(channel).start_infer("held", large()) for _ in range(2)]
        wait_for_pending(server.metrics_url, "held", 2)
        with closing(http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=PATIENCE_SECONDS)) as peer:
            peer.putrequest("POST", "/v2/models/free/infer")
            peer.putheader("Content-Length", str(LARGEST))
            peer.endheaders()  # and not a byte of it
            assert peer.getresponse().status == 503
        for call in waiting:
            call.cancel()


def test_the_memory_of_a_large_body_goes_back_when_nobody_needs_it(start_server: StartServer, tmp_path: Path) -> None:
    root = tmp_path / "models"
    add_model(root, "free", onnx_models.identity("FP32"), "max_batch_size: 8")
    server = start_server(f"--http-max-input-size={HUGE}", model_repository=root)
    with closing(http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=PATIENCE_SECONDS)) as peer:
        peer.request("POST", "/v2/models/free/infer", bytes(HUGE))  # which is no JSON
        assert peer.getresponse().status == 400
    needed = process_bytes(server, "VmHWM") - HUGE // 2
    wait_until(lambda: process_bytes(server, "VmRSS") < needed, 4 * PATIENCE_SECONDS)
    assert server.terminate() == 0


def process_bytes(server: RunningServer, key: str) -> int:
    """A size in /proc/PID/status."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (size,) = re.findall(rf"^{key}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(size) << 10
