"""One server that is attacked, and a client whom that must not touch."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from tests.hostile.peer import Peer
from tests.real.clients import Client
from tests.real.conftest import RunningServer, connect, start
from tests.real.waiting import wait_until

IMAGE = np.zeros((1, 1, 32, 32), np.float32)
MEMORY_BYTES = 48 << 20
"""What an allocator may keep of memory that was used once; attacks that leak take much more."""
WAIT_SECONDS = 20
PAUSE_SECONDS = 0.01


class AttackedServer:
    """A server process, and peers that connect to it."""

    def __init__(self, server: RunningServer) -> None:
        self.port = server.ports["grpc"]
        self.process = psutil.Process(server.process.pid)
        self.peers: list[Peer] = []

    def peer(self) -> Peer:
        """A new connection; closed after the test."""
        peer = Peer(self.port)
        self.peers.append(peer)
        return peer

    def resident_bytes(self) -> int:
        return int(self.process.memory_info().rss)

    def connections(self) -> int:
        """Connections to the gRPC port that the server has open."""
        return sum(
            connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == self.port
            for connection in self.process.net_connections("tcp")
        )


class Bystander:
    """A normal client that calls the server again and again, on a connection of its own."""

    def __init__(self, server: RunningServer) -> None:
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self.served = 0
        self._thread = threading.Thread(target=self._run, args=(server,))
        self._thread.start()

    def _run(self, server: RunningServer) -> None:
        with connect(server) as channel:
            client = Client(channel)
            while not self._stop.wait(PAUSE_SECONDS) and self._failure is None:
                try:
                    client.infer("lenet5", {"input": IMAGE})
                except Exception as error:  # noqa: BLE001 -- reported by `check`
                    self._failure = error
                self.served += 1

    def check(self) -> None:
        """Raise what went wrong, or return once it has been served again."""
        before = self.served
        wait_until(lambda: self.served > before + 1 or self._failure is not None, WAIT_SECONDS)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture(scope="session")
def hostile_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = start(tmp_path_factory.mktemp("attacked"), "--grpc-engine=nghttp2")
    yield server
    assert server.terminate() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


@pytest.fixture(scope="session")
def bystander(hostile_server: RunningServer) -> Iterator[Bystander]:
    client = Bystander(hostile_server)
    yield client
    client.stop()


@pytest.fixture
def victim(hostile_server: RunningServer, bystander: Bystander) -> Iterator[AttackedServer]:
    """The server, which after the test serves others as before, in no more memory, and has hung up on the attacker."""
    bystander.check()
    server = AttackedServer(hostile_server)
    connections, memory = server.connections(), server.resident_bytes()
    yield server
    bystander.check()
    for peer in server.peers:
        peer.close()
    wait_until(lambda: server.connections() <= connections, WAIT_SECONDS)
    wait_until(lambda: server.resident_bytes() < memory + MEMORY_BYTES, WAIT_SECONDS)
