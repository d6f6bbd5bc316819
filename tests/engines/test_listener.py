"""Where and how an engine listens: TLS and its renewal, addresses, ages, pings."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import grpc
import pytest

from server.frontends.tls import TlsFiles
from tests.certificates import Authority
from tests.engines.conftest import Connect, Serve
from tests.engines.hosting import PATIENCE_SECONDS, Host, Server
from tests.engines.methods import ECHO, HELD, Held, echoes
from tests.large_blocks import PagesOnDemand


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def echo(channel: grpc.Channel, message: bytes = b"hello") -> bytes:
    return channel.unary_unary(ECHO)(message, timeout=PATIENCE_SECONDS)


def secure(server: Server, credentials: grpc.ChannelCredentials) -> grpc.Channel:
    return grpc.secure_channel(f"localhost:{server.port}", credentials, (("grpc.use_local_subchannel_pool", 1),))


def failure(channel: grpc.Channel) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        echo(channel)
    return caught.value.code()


def test_a_client_that_trusts_the_server_talks_over_tls(serve: Serve, authority: Authority) -> None:
    server = serve(echoes(), tls=authority.files)
    with secure(server, authority.trust()) as channel:
        assert echo(channel) == b"hello"


def test_large_messages_cross_tls(serve: Serve, authority: Authority) -> None:
    server = serve(echoes(), tls=authority.files)
    message = bytes(range(256)) * 8192
    with secure(server, authority.trust()) as channel:
        assert echo(channel, message) == message


def test_a_client_without_tls_is_not_served(serve: Serve, authority: Authority, connect: Connect) -> None:
    server = serve(echoes(), tls=authority.files)
    assert failure(connect(server)) is grpc.StatusCode.UNAVAILABLE


def test_a_client_must_show_a_certificate_where_it_is_asked_to(serve: Serve, authority: Authority) -> None:
    server = serve(echoes(), tls=authority.mutual)
    with secure(server, authority.trust()) as stranger:
        assert failure(stranger) is grpc.StatusCode.UNAVAILABLE
    with secure(server, authority.trust(with_certificate=True)) as friend:
        assert echo(friend) == b"hello"


def test_a_renewed_certificate_is_used_without_a_restart(serve: Serve, authority: Authority) -> None:
    server = serve(echoes(), tls=authority.files)
    before = authority.trust()
    with secure(server, before) as channel:
        assert echo(channel) == b"hello"
    authority.replace()
    with secure(server, authority.trust()) as channel:
        assert echo(channel) == b"hello"
    with secure(server, before) as channel:
        assert failure(channel) is grpc.StatusCode.UNAVAILABLE


def test_a_broken_renewal_leaves_the_old_certificate_in_force(serve: Serve, authority: Authority) -> None:
    server = serve(echoes(), tls=authority.files)
    authority.files.certificate.unlink()
    with secure(server, authority.trust()) as channel:
        assert echo(channel) == b"hello"


def test_files_that_are_not_there_stop_the_start(host: Host, tmp_path: Path) -> None:
    missing = TlsFiles(tmp_path / "no.pem", tmp_path / "no.key")
    with pytest.raises(OSError, match=r"no\.(pem|key)"):
        host.start(echoes(), tls=missing)


def test_a_unix_socket_serves(host: Host, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'grpc.sock'}"
    server = host.start(echoes())
    other = host.listen(echoes(), address)
    try:
        with grpc.insecure_channel(address) as channel:
            assert echo(channel) == b"hello"
    finally:
        host.stop(other)
        host.stop(server)


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_an_ipv6_address_serves(host: Host) -> None:
    server = host.listen(echoes(), "::1")
    try:
        with grpc.insecure_channel(f"[::1]:{server.port}") as channel:
            assert echo(channel) == b"hello"
    finally:
        host.stop(server)


def test_a_port_is_taken_once(serve: Serve, host: Host) -> None:
    server = serve(echoes())
    with pytest.raises(OSError, match="cannot listen"):
        host.listen(echoes(), "127.0.0.1", server.port)


def test_a_port_can_be_shared(serve: Serve, host: Host) -> None:
    server = serve(echoes(), reuse_port=True)
    second = host.listen(echoes(), "127.0.0.1", server.port, reuse_port=True)
    assert second.port == server.port
    host.stop(second)


def watch(channel: grpc.Channel) -> Callable[[grpc.ChannelConnectivity], None]:
    """Returns a function that waits until the channel has been in a state."""
    seen: SimpleQueue[grpc.ChannelConnectivity] = SimpleQueue()
    channel.subscribe(seen.put)

    def wait_for(state: grpc.ChannelConnectivity) -> None:
        while seen.get(timeout=PATIENCE_SECONDS) is not state:
            pass

    return wait_for


def test_a_large_message_is_read_when_its_pages_are_there(host: Host, serve: Serve, connect: Connect) -> None:
    if host.engine == "grpcio":
        pytest.skip("grpcio reads into memory of its own")
    pages = PagesOnDemand()
    server = serve(echoes(), populator=pages, max_message_bytes=16 << 20)
    message = bytes(8 << 20)
    call = connect(server).unary_unary(ECHO).future(message, timeout=PATIENCE_SECONDS)
    length, go_on = pages.asked.get(timeout=PATIENCE_SECONDS)
    received = host.do(server.engine.transport).received_bytes
    assert received < len(message)
    assert length <= len(message)
    go_on()
    assert call.result() == message


def test_a_connection_that_is_old_enough_is_asked_to_go(serve: Serve, connect: Connect) -> None:
    server = serve(echoes(), max_connection_age=0.3)
    channel = connect(server)
    wait_for = watch(channel)
    assert echo(channel) == b"hello"
    wait_for(grpc.ChannelConnectivity.READY)
    wait_for(grpc.ChannelConnectivity.IDLE)
    assert echo(channel) == b"hello"


def test_a_call_outlives_its_connections_age(serve: Serve, connect: Connect, held: Held) -> None:
    server = serve(held.methods, max_connection_age=0.3)
    channel = connect(server)
    wait_for = watch(channel)
    call = channel.unary_unary(HELD).future(b"hello", timeout=PATIENCE_SECONDS)
    open_call = held.next_call()
    wait_for(grpc.ChannelConnectivity.READY)
    wait_for(grpc.ChannelConnectivity.IDLE)
    open_call.reply(b"late, but not lost")
    assert call.result() == b"late, but not lost"


def test_a_call_that_outlasts_the_grace_is_cut_off(serve: Serve, connect: Connect, held: Held) -> None:
    server = serve(held.methods, max_connection_age=0.2, max_connection_age_grace=0.2)
    call = connect(server).unary_unary(HELD).future(b"hello", timeout=PATIENCE_SECONDS)
    open_call = held.next_call()
    open_call.next_heard()
    assert open_call.next_heard() == ("cancelled", b"")
    assert call.code() is grpc.StatusCode.UNAVAILABLE


def test_a_client_that_pings_too_often_is_sent_away(serve: Serve, connect: Connect, held: Held) -> None:
    server = serve(held.methods, max_ping_strikes=2)
    channel = connect(server, ("grpc.keepalive_time_ms", 50), ("grpc.http2.max_pings_without_data", 0))
    call = channel.unary_unary(HELD).future(b"hello", timeout=PATIENCE_SECONDS)
    held.next_call()
    assert call.code() is grpc.StatusCode.UNAVAILABLE
    assert "too many pings" in call.debug_error_string().lower().replace("_", " ")


def test_a_client_may_ping_as_often_as_the_server_allows(serve: Serve, connect: Connect, held: Held) -> None:
    server = serve(held.methods, max_ping_strikes=2, min_recv_ping_interval_without_data=0.0)
    channel = connect(server, ("grpc.keepalive_time_ms", 50), ("grpc.http2.max_pings_without_data", 0))
    call = channel.unary_unary(HELD).future(b"hello", timeout=PATIENCE_SECONDS)
    open_call = held.next_call()
    other = channel.unary_unary(HELD).future(b"beside it", timeout=0.5)
    assert other.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # some ten pings later
    open_call.reply(b"still there")
    assert call.result() == b"still there"


def test_a_silent_client_is_pinged(host: Host, serve: Serve, connect: Connect, held: Held) -> None:
    server = serve(held.methods, keepalive_time=0.1, keepalive_timeout=PATIENCE_SECONDS)
    call = connect(server).unary_unary(HELD).future(b"hello", timeout=0.6)
    held.next_call()
    assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # it answers its pings, so it is not cut off
