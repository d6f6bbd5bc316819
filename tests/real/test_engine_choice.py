"""Which gRPC engine a server takes, with and without the extension that nghttp2 needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as triton

from tests.real.conftest import MODEL_REPOSITORY, ROOT, RunningServer, StartServer, start

WITHOUT_EXTENSION = """
import sys
sys.modules["server.frontends.grpc._http2"] = None  # as if it had not been built
from server.__main__ import main
sys.exit(main(sys.argv[1:]))
"""

WITH_OLD_EXTENSION = """
import sys
from types import ModuleType
old = sys.modules["server.frontends.grpc._http2"] = ModuleType("_http2")  # of a time that knew no digests
old.ffi = old.lib = object()
from server.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def unbuilt_server(tmp_path: Path) -> Iterator[RunningServer]:
    server = start(tmp_path, program=(sys.executable, "-c", WITHOUT_EXTENSION))
    yield server
    server.terminate()


def test_auto_takes_grpcio_and_warns_where_the_extension_was_not_built(unbuilt_server: RunningServer) -> None:
    with triton.InferenceServerClient(unbuilt_server.grpc_address) as client:
        assert client.is_server_ready()
    log = unbuilt_server.log.read_text()
    assert "W server.app: gRPC engine: grpcio, since nghttp2 is not available" in log
    assert "libnghttp2-dev" in log


@pytest.mark.parametrize(
    ("program", "hint"),
    [
        pytest.param(WITHOUT_EXTENSION, "libnghttp2-dev", id="not built"),
        pytest.param(WITH_OLD_EXTENSION, "run `python setup.py build_ext --inplace` or `make install-dev`", id="old"),
    ],
)
def test_asking_for_nghttp2_where_there_is_none_stops_the_start(program: str, hint: str) -> None:
    command = [
        sys.executable,
        "-c",
        program,
        f"--model-repository={MODEL_REPOSITORY}",
        "--grpc-engine=nghttp2",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "cannot start: the gRPC engine nghttp2 is not available" in done.stderr
    assert hint in done.stderr


def test_auto_takes_nghttp2_where_it_was_built(start_server: StartServer) -> None:
    pytest.importorskip("server.frontends.grpc.http2", reason="the nghttp2 engine is not built")
    assert "gRPC engine: nghttp2" in start_server().log.read_text()


def test_grpcio_can_be_asked_for(start_server: StartServer) -> None:
    assert "gRPC engine: grpcio\n" in start_server("--grpc-engine=grpcio").log.read_text()
