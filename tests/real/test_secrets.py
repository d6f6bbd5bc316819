"""What operators entrust to flags and to the environment is in no log, no trace and no answer, whatever goes wrong."""

from __future__ import annotations

import socket
import subprocess
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import Client
from tests.real.conftest import ROOT, SERVER, START_SECONDS, StartServer, connect
from tests.real.waiting import wait_until
from tests.repositories import add_model

FLAG, STORE, HEADER, GUARD = "flag-sesame", "store-sesame", "header-sesame", "guard-sesame"
MARK = "sesame"
CACHE_GONE = "requests are served without a cache"


@pytest.fixture
def closed_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    add_model(folder, "m", onnx_models.affine(), "response_cache { enable: true }")
    return folder


def test_a_server_whose_cache_and_receiver_are_gone_tells_no_secrets(
    root: Path, closed_port: int, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = f"http://user:{HEADER}@127.0.0.1:{closed_port}/v1/traces?token={HEADER}"
    flags = [
        f"--cache-config=redis,host=127.0.0.1,port={closed_port},password={FLAG}",
        "--trace-config=mode=opentelemetry", "--trace-config=rate=1", "--trace-config=level=TIMESTAMPS",
        f"--trace-config=opentelemetry,url={receiver}", "--trace-config=opentelemetry,bsp_schedule_delay=1",
        f"--grpc-restricted-protocol=model-repository:admin={GUARD}", f"--http-restricted-api=trace:admin={GUARD}",
        "--log-verbose=2", "--access-log=true",
    ]  # fmt: skip
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"api-key={HEADER}")
    server = start_server(*flags, model_repository=root)
    with connect(server) as channel:
        client = Client(channel)
        assert client.infer("m", {"x": np.ones((1, 1), np.int64)})["y"].tolist() == [[4]]
        refused = client.refusal("RepositoryIndex", pb.RepositoryIndexRequest())
        settings = client.call("TraceSetting", pb.TraceSettingRequest())
    wait_until(lambda: CACHE_GONE in server.log.read_text(), START_SECONDS)
    page = urllib.request.urlopen(server.metrics_url, timeout=30).read().decode()
    assert server.terminate() == 0
    told = [server.log.read_text(), refused.message, str(settings), page]
    assert "m" in told[0]
    assert [text for text in told if MARK in text] == []


@pytest.mark.parametrize(
    ("url", "flags"),
    [
        ("s3://bucket/models", ()),
        (f"s3://key:{STORE}@bucket/models?X-Amz-Signature={STORE}", ()),
        ("models", (f"--cache-config=redis,host=h,password={FLAG}", "--cache-config=redis,sesam=1")),
        ("models", (f"--grpc-restricted-protocol=nothing:admin={GUARD}",)),
        ("models", (f"--http-restricted-api=trace:admin={GUARD}\n",)),
    ],
    ids=["a store that is away", "a store's URL", "a wrong cache", "an unknown API", "a wrong value"],
)
def test_a_server_that_does_not_start_tells_no_secrets(
    url: str, flags: tuple[str, ...], closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", STORE)
    monkeypatch.setenv("AWS_SESSION_TOKEN", STORE)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    command = [*SERVER, f"--model-repository={url}", "--log-verbose=2", "--grpc-port=0", "--http-port=0", *flags]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=START_SECONDS, check=False)
    assert ended.returncode in (1, 2), ended
    assert ended.stderr
    assert MARK not in ended.stdout + ended.stderr
