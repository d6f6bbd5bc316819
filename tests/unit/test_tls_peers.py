"""Who is at the other end of a connection, as transports tell it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.frontends.calls import Peer
from server.frontends.grpc.grpcio_calls import _address, _names
from server.frontends.sockets import is_loopback
from server.frontends.tls import peer_of

CERTIFICATE = {
    "subject": ((("organizationName", "Example"),), (("commonName", "client"), ("userId", "7"))),
    "subjectAltName": (("DNS", "a.example"), ("IP Address", "10.0.0.1"), ("URI", "spiffe://b"), ("email", "c@d")),
}
NAMES = ("CN:client", "DNS:a.example", "URI:spiffe://b", "email:c@d")


class Told(asyncio.BaseTransport):
    """A transport that has these words to say."""

    def __init__(self, **extra: Any) -> None:
        super().__init__(extra)


@pytest.mark.parametrize(
    ("peername", "address"),
    [(("127.0.0.1", 80), "127.0.0.1:80"), (("::1", 80, 0, 0), "[::1]:80"), ("", "unix:"), (None, "unix:")],
)
def test_a_peer_has_an_address(peername: object, address: str) -> None:
    assert peer_of(Told(peername=peername)) == Peer(address)


@pytest.mark.parametrize("certificate", [None, {}])
def test_a_peer_without_a_certificate_has_no_names(certificate: object) -> None:
    assert peer_of(Told(peername=("h", 1), peercert=certificate)).certificate == ()


def test_a_certificate_has_names_of_several_kinds() -> None:
    assert peer_of(Told(peername=("h", 1), peercert=CERTIFICATE)).certificate == NAMES


def test_grpcio_tells_the_same_names() -> None:
    told = {
        "x509_subject": [b"O=Example,CN=client"],
        "x509_common_name": [b"client"],
        "x509_subject_alternative_name": [b"a.example", b"10.0.0.1", b"spiffe://b", b"c@d"],
        "peer_dns": [b"a.example"],
        "peer_ip": [b"10.0.0.1"],
        "peer_uri": [b"spiffe://b"],
        "peer_email": [b"c@d"],
    }
    assert _names(told) == NAMES
    assert _names({"x509_common_name": [b""]}) == ()


@pytest.mark.parametrize(
    ("core", "address"),
    [
        ("ipv4:127.0.0.1:80", "127.0.0.1:80"),
        ("ipv6:%5B::1%5D:80", "[::1]:80"),
        ("unix:", "unix:"),
        ("unix:/s", "unix:"),
    ],
)
def test_grpcio_tells_addresses_in_its_own_way(core: str, address: str) -> None:
    assert _address(core) == address


def test_a_name_that_resolves_to_loopback_today_may_be_another_tomorrow() -> None:
    assert not is_loopback("host.example")
