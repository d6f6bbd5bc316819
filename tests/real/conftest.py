"""Real servers for the tests of this folder: a process each, on loopback and free ports, stopped by its own id."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from server.__main__ import UNBALANCED
from tests.real.clients import Client
from tests.real.waiting import wait_until
from tests.real.zoo import write_zoo

ROOT = Path(__file__).parents[2]
MODEL_REPOSITORY = ROOT / "model_repository"

ENGINES: dict[str, tuple[str, ...]] = {
    "grpcio": ("--grpc-engine=grpcio",),
    "nghttp2": ("--grpc-engine=nghttp2",),
}
"""The gRPC engines that the same tests run against, and the flags that choose them."""

START_SECONDS = 60
STOP_SECONDS = 60


@dataclass
class RunningServer:
    """A server process that is ready."""

    process: subprocess.Popen[bytes]
    ports: dict[str, int]
    log: Path

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.ports['grpc']}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['http']}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['metrics']}/metrics"

    def terminate(self) -> int:
        """Send SIGTERM and return the exit status: of a server that answered every request exactly once."""
        if self.process.poll() is None:
            self.process.terminate()
        status = self.process.wait(STOP_SECONDS)
        assert status != UNBALANCED, f"the ledger or the memory budget does not balance:\n{self.log.read_text()}"
        return status


StartServer = Callable[..., RunningServer]


SERVER = (sys.executable, "-m", "server")


def start(
    folder: Path, *flags: str, model_repository: Path | None = None, program: tuple[str, ...] = SERVER
) -> RunningServer:
    """Start a server on free ports, its log in `folder`, and return when it is ready."""
    ports_file, log = folder / "ports.json", folder / "server.log"
    ports_file.unlink(missing_ok=True)
    command = [
        *program,
        "--model-repository", str(model_repository or MODEL_REPOSITORY),
        "--grpc-address=127.0.0.1", "--http-address=127.0.0.1",
        "--grpc-port=0", "--http-port=0", "--metrics-port=0",
        f"--ports-file={ports_file}",
        *flags,
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    try:
        wait_until(lambda: ports_file.exists() or process.poll() is not None, START_SECONDS)
        assert process.poll() is None, f"the server did not start:\n{log.read_text()}"
        return RunningServer(process, json.loads(ports_file.read_text()), log)
    except BaseException:
        process.kill()
        process.wait()
        raise


def connect(server: RunningServer) -> grpc.Channel:
    """A connection that no other channel of this process shares. The caller closes it."""
    return grpc.insecure_channel(server.grpc_address, options=[("grpc.use_local_subchannel_pool", 1)])


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """A function that starts servers; what it started is stopped after the test."""
    servers: list[RunningServer] = []

    def start_one(*flags: str, model_repository: Path | None = None) -> RunningServer:
        server = start(tmp_path_factory.mktemp("server"), *flags, model_repository=model_repository)
        servers.append(server)
        return server

    yield start_one
    for server in servers:
        server.terminate()


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The gRPC engine under test. Whoever asks for it, directly or not, runs once with each."""
    if request.param == "nghttp2":
        pytest.importorskip("server.frontends.grpc.listener", reason="it was not built here", exc_type=ImportError)
    return request.param


@pytest.fixture
def start_engine(engine: str, start_server: StartServer) -> StartServer:
    """As `start_server`, with the engine under test."""

    def start_one(*flags: str, model_repository: Path | None = None) -> RunningServer:
        return start_server(*ENGINES[engine], *flags, model_repository=model_repository)

    return start_one


@pytest.fixture(scope="session")
def zoo(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server of the models of `zoo.py` for all tests that leave it as it was. It never raises, whatever comes."""
    root = write_zoo(tmp_path_factory.mktemp("zoo"))
    server = start(tmp_path_factory.mktemp("zoo_server"), *ENGINES[engine], model_repository=root)
    yield server
    assert server.terminate() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


@pytest.fixture
def client(zoo: RunningServer) -> Iterator[Client]:
    """A client of `zoo` with a connection of its own."""
    with connect(zoo) as channel:
        yield Client(channel)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server of the committed model repository for all tests that leave it as it was."""
    server = start(tmp_path_factory.mktemp("shared"))
    yield server
    assert server.terminate() == 0, server.log.read_text()
