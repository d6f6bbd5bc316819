"""A graceful end: what is in progress ends well, what is new is refused, and peers are told by GOAWAY."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from server.frontends.calls import StatusCode
from tests.engines.conftest import Connect, Serve
from tests.engines.hosting import GRACE_SECONDS, PATIENCE_SECONDS, Host, Server
from tests.engines.methods import ECHO, HELD, STREAM, Held, echoes, end_of, failure_of
from tests.engines.raw_peer import ACK, GOAWAY, NO_ERROR, PING, PREFACE, SETTINGS, Frame, RawPeer, goaway_code
from tests.engines.requests import Requests


class Watcher:
    """Waits until a channel has been told to go."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._ready = threading.Event()
        self._told = threading.Event()
        channel.subscribe(self._on_change)

    def wait_until_ready(self) -> None:
        """grpcio tells states late; one that has passed when it does is never told."""
        assert self._ready.wait(PATIENCE_SECONDS)

    def wait(self) -> None:
        assert self._told.wait(PATIENCE_SECONDS)

    def _on_change(self, state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY:
            self._ready.set()
        elif self._ready.is_set():
            self._told.set()


def begin(channel: grpc.Channel, message: bytes = b"") -> grpc.Future:
    return channel.unary_unary(HELD).future(message, timeout=PATIENCE_SECONDS)


def test_calls_in_progress_are_answered_and_new_ones_are_refused(
    serve: Serve, connect: Connect, held: Held, host: Host
) -> None:
    server = serve(held.methods)
    channel, other = connect(server), connect(server)
    watcher = Watcher(channel)
    pending = [begin(channel, bytes([index])) for index in range(8)]
    calls = [held.next_call() for _ in pending]
    watcher.wait_until_ready()
    wait_for_end = host.begin_stop(server)
    watcher.wait()
    assert begin(channel).code() == grpc.StatusCode.UNAVAILABLE
    assert begin(other).code() == grpc.StatusCode.UNAVAILABLE
    for call in calls:
        call.reply(call.next_heard()[1])
    wait_for_end()
    assert [call.result() for call in pending] == [bytes([index]) for index in range(8)]
    assert all(call.heard.empty() for call in calls)


def test_streams_are_asked_to_end_once_and_end_as_they_like(
    serve: Serve, connect: Connect, held: Held, host: Host, requests: Requests
) -> None:
    server = serve(held.methods)
    answers = connect(server).stream_stream(STREAM)(requests, timeout=PATIENCE_SECONDS)
    requests.put(b"one")
    call = held.next_call()
    assert call.next_heard() == ("message", b"one")
    wait_for_end = host.begin_stop(server)
    assert call.next_heard() == ("drain", b"")
    requests.put(b"two")
    assert call.next_heard() == ("message", b"two")
    call.send(b"last words")
    call.finish()
    assert next(answers) == b"last words"
    assert end_of(answers) == (grpc.StatusCode.OK, "")
    wait_for_end()
    assert call.heard.empty()


def test_a_stream_that_only_listens_is_asked_to_end(serve: Serve, connect: Connect, held: Held, host: Host) -> None:
    """As a health Watch is: its caller has long half-closed."""
    server = serve(held.methods)
    answers = connect(server).unary_stream(STREAM)(b"service", timeout=PATIENCE_SECONDS)
    call = held.next_call()
    assert [call.next_heard(), call.next_heard()] == [("message", b"service"), ("half-closed", b"")]
    wait_for_end = host.begin_stop(server)
    assert call.next_heard() == ("drain", b"")
    call.finish()
    assert end_of(answers) == (grpc.StatusCode.OK, "")
    wait_for_end()


def test_a_stream_may_end_with_an_error_as_the_server_stops(
    serve: Serve, connect: Connect, held: Held, host: Host, requests: Requests
) -> None:
    server = serve(held.methods)
    answers = connect(server).stream_stream(STREAM)(requests, timeout=PATIENCE_SECONDS)
    call = held.next_call()
    wait_for_end = host.begin_stop(server)
    assert call.next_heard() == ("drain", b"")
    call.fail(StatusCode.UNAVAILABLE, "the server stops")
    assert end_of(answers) == (grpc.StatusCode.UNAVAILABLE, "the server stops")
    wait_for_end()


def test_a_method_that_raises_when_it_is_asked_to_end_does_not_stop_the_stop(
    serve: Serve, connect: Connect, held: Held, host: Host, requests: Requests
) -> None:
    def broken() -> None:
        raise RuntimeError("it does not want to")

    server = serve(held.methods)
    answers = connect(server).stream_stream(STREAM)(requests, timeout=PATIENCE_SECONDS)
    call = held.next_call()
    call.drain = broken
    host.stop(server)
    assert end_of(answers)[0] == grpc.StatusCode.INTERNAL


def test_who_has_connected_and_was_not_accepted_yet_is_served(serve: Serve, held: Held, host: Host) -> None:
    if host.engine == "grpcio":
        pytest.skip("grpcio resets such connections")
    server = serve(held.methods)
    connected = threading.Event()

    def stop_as_soon_as_somebody_has_connected() -> asyncio.Task[None]:
        # The one runs right behind the other: between them the loop looks at no socket.
        asyncio.get_running_loop().call_soon(connected.wait, PATIENCE_SECONDS)
        return asyncio.ensure_future(server.engine.stop(GRACE_SECONDS))

    with ThreadPoolExecutor(1) as elsewhere:
        stopping = elsewhere.submit(host.do, stop_as_soon_as_somebody_has_connected)
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS) as peer:
            peer.sendall(PREFACE + Frame(SETTINGS, 0, 0, b"").encode() + Frame(PING, 0, 0, b"12345678").encode())
            connected.set()
            heard = b""
            while part := peer.recv(1024):
                heard += part
        host.run(asyncio.wait_for(stopping.result(PATIENCE_SECONDS), PATIENCE_SECONDS))
    assert Frame(PING, ACK, 0, b"12345678").encode() in heard


def test_what_outlasts_the_grace_is_cut_off(serve: Serve, connect: Connect, held: Held, host: Host) -> None:
    server = serve(held.methods)
    pending = begin(connect(server), b"slow")
    call = held.next_call()
    host.stop(server, grace_seconds=0.2)
    assert pending.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert [call.next_heard(), call.next_heard()] == [("message", b"slow"), ("cancelled", b"")]
    call.reply(b"too late")
    assert failure_of(pending)[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_idle_peers_are_told_by_goaway_and_let_go(serve: Serve, host: Host) -> None:
    server: Server = serve(echoes())
    peer = RawPeer(server)
    wait_for_end = host.begin_stop(server)
    codes = [goaway_code(frame) for frame in peer.frames() if frame.kind == GOAWAY]
    assert set(codes) == {NO_ERROR}
    wait_for_end()
    peer.close()


def test_an_idle_server_stops_and_starts_again(serve: Serve, connect: Connect, host: Host) -> None:
    for _ in range(3):
        server = serve(echoes())
        assert connect(server).unary_unary(ECHO)(b"x", timeout=PATIENCE_SECONDS) == b"x"
        host.stop(server)
        assert connect(server).unary_unary(ECHO).future(b"x", timeout=PATIENCE_SECONDS).code() in (
            grpc.StatusCode.UNAVAILABLE,
        )
