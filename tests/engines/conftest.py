"""Every test of this folder that asks for a server, directly or not, runs once with each gRPC engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest

from server.frontends.calls import MethodTable
from tests.engines.hosting import Host, Server, why_missing
from tests.engines.methods import Held
from tests.engines.requests import Requests

Serve = Callable[..., Server]
Connect = Callable[..., grpc.Channel]

UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@pytest.fixture(scope="session", params=["nghttp2", "grpcio"])
def engine(request: pytest.FixtureRequest) -> str:
    """The gRPC engine under test."""
    if reason := why_missing(request.param):
        pytest.skip(reason)
    return request.param


@pytest.fixture(scope="session")
def host(engine: str) -> Iterator[Host]:
    """The loop that servers of this engine run on."""
    host = Host(engine)
    yield host
    host.close()


@pytest.fixture
def serve(host: Host) -> Iterator[Serve]:
    """A function that serves a method table; what it started is stopped after the test."""
    servers: list[Server] = []

    def start(methods: MethodTable, **options: object) -> Server:
        server = host.start(methods, **options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        host.stop(server)


@pytest.fixture
def connect(serve: Serve) -> Iterator[Connect]:
    """A function that connects to a server, over a connection of its own; closed before the servers stop."""
    channels: list[grpc.Channel] = []

    def open_channel(server: Server, *options: tuple[str, object], **arguments: object) -> grpc.Channel:
        own = (("grpc.use_local_subchannel_pool", 1), *UNLIMITED, *options)
        channel = grpc.insecure_channel(server.target, options=own, **arguments)
        channels.append(channel)
        return channel

    yield open_channel
    for channel in channels:
        channel.close()


@pytest.fixture
def held(host: Host) -> Held:
    """Methods whose calls the test answers."""
    return Held(host)


@pytest.fixture
def requests() -> Iterator[Requests]:
    """A request stream that ends with the test, so that the thread that reads it does."""
    requests = Requests()
    yield requests
    requests.end()
