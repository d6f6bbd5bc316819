"""HTTP over real sockets: TLS and its renewal, peers that are slow or leave, and the end."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from threading import Thread

import pytest

from server.frontends.rest.exchange import Content
from server.frontends.sockets import READ_BYTES
from server.frontends.tls import TlsFiles
from tests.certificates import Authority
from tests.http.conftest import PATIENCE_SECONDS, Host, Peer
from tests.large_blocks import PagesOnDemand
from tests.real.waiting import wait_until

Connect = Callable[[int], Peer]

SOON = 0.05
"""A timeout that a test waits for."""
POST = b"POST /%b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"

CHUNKED = b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def post_securely(port: int, context: ssl.SSLContext, body: bytes = b"hello") -> bytes:
    connection = http.client.HTTPSConnection("localhost", port, timeout=PATIENCE_SECONDS, context=context)
    try:
        connection.request("POST", "/echo", body)
        return connection.getresponse().read()
    finally:
        connection.close()


def test_bodies_of_any_size_cross_tls(host: Host, authority: Authority) -> None:
    _, port = host.start(tls=authority.files)
    for size in (0, 5, 1 << 20):
        assert post_securely(port, authority.context(), b"x" * size) == b"x" * size


def test_a_port_is_shared_only_where_both_agree(host: Host) -> None:
    _, taken = host.start()
    _, port = host.start(reuse_port=True)
    assert host.start_at(port, reuse_port=True) == port
    for lone, options in ((taken, {"reuse_port": True}), (port, {})):
        with pytest.raises(OSError, match="cannot listen"):
            host.start_at(lone, **options)


def test_a_client_must_show_a_certificate_where_it_is_asked_to(host: Host, authority: Authority) -> None:
    _, port = host.start(tls=authority.mutual)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        post_securely(port, authority.context())
    assert post_securely(port, authority.context(with_certificate=True)) == b"hello"


def test_a_renewed_certificate_is_used_without_a_restart(host: Host, authority: Authority) -> None:
    _, port = host.start(tls=authority.files)
    before = authority.context()
    assert post_securely(port, before) == b"hello"
    authority.replace()
    assert post_securely(port, authority.context()) == b"hello"
    with pytest.raises(ssl.SSLCertVerificationError):
        post_securely(port, before)


def test_files_that_are_not_there_stop_the_start(host: Host, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no\.(pem|key)"):
        host.start(tls=TlsFiles(tmp_path / "no.pem", tmp_path / "no.key"))


def test_a_port_that_is_taken_is_said_to_be_so(host: Host) -> None:
    listener, port = host.start()
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port} for HTTP"):
        host.run(listener.start("127.0.0.1", port))


def test_a_caller_who_leaves_is_told_to_those_who_work_for_it(host: Host, connect: Connect) -> None:
    _, port = host.start()
    peer = connect(port)
    peer.send(POST % (b"held", 0))
    host.held.wait()
    peer.socket.close()
    assert host.held.gone.wait(PATIENCE_SECONDS)


def test_who_connects_and_says_nothing_is_cut_off(host: Host, connect: Connect) -> None:
    _, port = host.start(head_timeout=SOON)
    assert connect(port).read_to_end() == b""


def test_who_never_ends_a_head_is_cut_off(host: Host, connect: Connect) -> None:
    listener, port = host.start(head_timeout=3600.0)
    peer = connect(port)
    peer.send(b"POST /echo HTTP/1.1\r\nHost: h\r\n")
    wait_until(lambda: host.do(listener.snapshot).transport.received_bytes > 0, PATIENCE_SECONDS)
    (socket,) = listener.sockets
    host.do(socket.check, time.monotonic() + 3601)
    assert peer.read_status() == 408


@pytest.mark.parametrize("head", [POST % (b"echo", 5), CHUNKED])
def test_who_never_ends_a_body_is_cut_off(head: bytes, host: Host, connect: Connect) -> None:
    _, port = host.start(body_timeout=SOON)
    peer = connect(port)
    peer.send(head)
    assert b" 408 " in peer.read_to_end()


def test_who_asks_for_nothing_more_is_cut_off(host: Host, connect: Connect) -> None:
    _, port = host.start(idle_timeout=SOON)
    peer = connect(port)
    peer.send(POST % (b"echo", 0))
    assert peer.read_status() == 200
    assert peer.read_to_end() == b""


def test_who_waits_for_an_answer_is_not_idle(host: Host, connect: Connect) -> None:
    _, port = host.start(idle_timeout=SOON)
    waiting, idle = connect(port), connect(port)
    waiting.send(POST % (b"held", 0))
    exchange = host.held.wait()
    idle.send(POST % (b"echo", 0))
    assert idle.read_status() == 200
    assert idle.read_to_end() == b""
    host.do(exchange.respond, HTTPStatus.OK)
    assert waiting.read_status() == 200


def test_who_does_not_read_answers_is_cut_off(host: Host, connect: Connect) -> None:
    _, port = host.start(body_timeout=SOON)
    peer = connect(port)
    peer.send(POST % (b"held", 0) * 2)
    host.do(host.held.wait().respond, HTTPStatus.OK, Content(bytes(32 << 20), ()))
    second = host.held.wait()
    assert host.held.gone.wait(PATIENCE_SECONDS)
    assert not second.open


def test_a_refused_peer_that_still_sends_can_read_why(host: Host, connect: Connect) -> None:
    _, port = host.start(max_input_bytes=1000)
    peer = connect(port)
    peer.send(POST % (b"echo", 1 << 20) + bytes(1 << 20))
    assert peer.read_status() == 413
    peer.send(bytes(1 << 20))
    assert peer.read_to_end() == b""


def test_a_refusal_does_not_cut_off_what_was_asked_before(
    host: Host, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.frontends.rest.listener.LINGER_SECONDS", 0.0)
    _, port = host.start()
    peer, other = connect(port), connect(port)
    peer.send(POST % (b"held", 0) + b"nonsense\r\n\r\n")
    exchange = host.held.wait()
    other.send(b"nonsense\r\n\r\n")
    assert other.read_status() == 400
    assert other.read_to_end() == b""
    host.do(exchange.respond, HTTPStatus.OK)
    assert (peer.read_status(), peer.read_status()) == (200, 400)


def test_a_draining_listener_answers_what_is_asked_and_ends_each_connection_with_it(
    host: Host, connect: Connect
) -> None:
    listener, port = host.start()
    busy, idle = connect(port), connect(port)
    busy.send(POST % (b"held", 0))
    exchange = host.held.wait()
    host.do(listener.announce_stop)
    drained = host.begin(listener.drain(PATIENCE_SECONDS))
    newcomer = connect(port)
    newcomer.send(POST % (b"echo", 0))
    assert b"Connection: close" in newcomer.read_to_end()
    host.do(exchange.respond, HTTPStatus.OK)
    drained()
    assert b"Connection: close" in busy.read_to_end()
    idle.send(POST % (b"echo", 0))
    assert b"Connection: close" in idle.read_to_end()


def test_the_grace_of_a_drain_is_bounded(host: Host, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    listener, port = host.start()
    connect(port).send(POST % (b"held", 0))
    host.held.wait()
    host.run(listener.drain(SOON))
    assert "took too long" in caplog.text
    host.run(listener.stop())
    assert host.held.gone.wait(PATIENCE_SECONDS)


def test_connections_and_bytes_are_counted(host: Host, connect: Connect) -> None:
    listener, port = host.start()
    peer = connect(port)
    request = POST % (b"echo", 5) + b"hello"
    peer.send(request)
    assert peer.read_status() == 200
    transport = host.do(listener.snapshot).transport
    assert (transport.connections, transport.opened, transport.received_bytes) == (1, 1, len(request))
    assert transport.sent_bytes > 5


def test_a_large_body_is_read_when_its_pages_are_there(host: Host, connect: Connect) -> None:
    pages = PagesOnDemand()
    listener, port = host.start(populator=pages)
    peer = connect(port)
    size = 8 << 20
    sending = Thread(target=peer.send, args=(POST % (b"echo", size) + bytes(size),))
    sending.start()
    length, go_on = pages.asked.get(timeout=PATIENCE_SECONDS)
    assert size - READ_BYTES < length < size
    assert host.do(listener.snapshot).transport.received_bytes <= READ_BYTES
    go_on()
    sending.join(PATIENCE_SECONDS)
    assert peer.read_status() == 200


def test_the_time_to_send_a_request_is_each_requests_own(host: Host, connect: Connect) -> None:
    listener, port = host.start()
    peer = connect(port)
    whole = POST % (b"echo", 0)
    peer.send(whole[:10])
    begun = []
    for _ in range(3):
        peer.send(whole[10:] + whole[:10])  # never is there a moment without a request that has come in part
        assert peer.read_status() == 200
        begun += [socket._since for socket in listener.sockets]
    assert len(set(begun)) == 3
