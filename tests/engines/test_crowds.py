"""Many streams, many connections, and pings."""

from __future__ import annotations

import resource

import grpc
import pytest

from tests.engines.conftest import Connect, Serve
from tests.engines.hosting import PATIENCE_SECONDS
from tests.engines.methods import ECHO, ECHO_STREAM, HELD, Held, echoes, end_of
from tests.engines.raw_peer import ACK, ENHANCE_YOUR_CALM, GOAWAY, PING, Frame, RawPeer, goaway_code
from tests.engines.requests import Requests

CROWD = 1000
FILES = 4 * CROWD
"""File descriptors that a crowd of connections needs here, where both of their ends are."""


def test_a_thousand_calls_are_open_on_one_connection(serve: Serve, connect: Connect, held: Held) -> None:
    method = connect(serve(held.methods)).unary_unary(HELD)
    pending = [method.future(b"%d" % index, timeout=4 * PATIENCE_SECONDS) for index in range(CROWD)]
    calls = [held.next_call() for _ in pending]
    for call in reversed(calls):
        call.call.on_cancel = None
        kind, message = call.next_heard()
        assert kind == "message"
        call.reply(b"answer to " + message)
    assert [call.result() for call in pending] == [b"answer to %d" % index for index in range(CROWD)]


def test_a_thousand_streams_are_open_on_one_connection(serve: Serve, connect: Connect) -> None:
    method = connect(serve(echoes())).stream_stream(ECHO_STREAM)
    crowd = CROWD // 4  # each stream of the sync client takes a thread
    requests = [Requests(b"%d" % index) for index in range(crowd)]
    streams = [method(stream, timeout=4 * PATIENCE_SECONDS) for stream in requests]
    assert [next(answers) for answers in streams] == [b"%d" % index for index in range(crowd)]
    for stream in requests:
        stream.end()
    assert {end_of(answers) for answers in streams} == {(grpc.StatusCode.OK, "")}


@pytest.fixture
def many_files() -> None:
    """Let this process open as many files as a crowd needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"needs {FILES} file descriptors; the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))


@pytest.mark.usefixtures("many_files")
def test_a_thousand_connections_are_served(serve: Serve, connect: Connect) -> None:
    server = serve(echoes())
    methods = [connect(server).unary_unary(ECHO) for _ in range(CROWD)]
    for _ in range(2):
        for index, method in enumerate(methods):
            assert method(b"%d" % index, timeout=4 * PATIENCE_SECONDS) == b"%d" % index


# --- pings ---


def test_pings_are_answered(serve: Serve) -> None:
    peer = RawPeer(serve(echoes()))
    for index in range(3):
        ping = Frame(PING, 0, 0, b"ping  %2d" % index)
        peer.send(ping)
        assert peer.next_of(PING) == ping._replace(flags=ACK)
    peer.close()


def test_a_peer_that_pings_too_often_is_sent_away(serve: Serve) -> None:
    peer = RawPeer(serve(echoes()))
    peer.send(*[Frame(PING, 0, 0, bytes(8))] * 20)
    assert goaway_code(peer.next_of(GOAWAY)) == ENHANCE_YOUR_CALM
    assert [frame for frame in peer.frames() if frame.kind == GOAWAY] == []  # and the connection is closed
    peer.close()


def test_a_client_that_keeps_its_connection_alive_is_served(serve: Serve, connect: Connect, held: Held) -> None:
    server = serve(held.methods, min_recv_ping_interval_without_data=0.0, keepalive_permit_without_calls=True)
    options = (("grpc.keepalive_time_ms", 10), ("grpc.http2.max_pings_without_data", 0))
    pending = connect(server, *options).unary_unary(HELD).future(b"", timeout=PATIENCE_SECONDS)
    call = held.next_call()
    peer = RawPeer(server)
    for _ in range(5):
        peer.send(Frame(PING, 0, 0, bytes(8)))
        assert peer.next_of(PING).flags == ACK
    peer.close()
    call.reply(b"answer")
    assert pending.result() == b"answer"
