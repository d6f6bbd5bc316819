"""Pages of other sites cannot have a visitor's browser change the server; everybody else can."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from server.frontends.rest.browsers import refuse_other_sites
from server.frontends.rest.exchange import Exchange, Route
from server.tensors import Buffer
from tests.unit.http_peer import Peer, request


def answer(exchange: Exchange, _: Buffer) -> None:
    exchange.respond(HTTPStatus.OK)


ROUTES = (
    Route("POST", "load", answer, "RepositoryModelLoad"),
    Route("POST", "settings", answer, "TraceSetting"),
    Route("GET", "settings", answer, "TraceSetting"),
    Route("POST", "infer", answer, "Infer"),
    Route("DELETE", "load", answer, "PlaygroundLoad"),
)


@pytest.mark.parametrize(
    ("verb", "path", "site", "status"),
    [
        ("POST", "load", "cross-site", 403),
        ("POST", "settings", "Cross-Site", 403),
        ("GET", "settings", "cross-site", 200),
        ("POST", "infer", "cross-site", 200),
        ("DELETE", "load", "cross-site", 403),
        ("POST", "load", "same-origin", 200),
        ("POST", "load", "same-site", 200),
        ("POST", "load", "none", 200),
        ("POST", "load", "", 200),
    ],
)
def test_only_changes_are_refused_and_only_to_other_sites(verb: str, path: str, site: str, status: int) -> None:
    headers = {"Sec_Fetch_Site": site} if site else {}

    assert Peer(refuse_other_sites(ROUTES)).ask(verb, f"/{path}", **headers).status == status


def test_a_large_change_is_refused_before_it_is_read() -> None:
    peer = Peer(refuse_other_sites(ROUTES))

    peer.send(request("POST", "/load", b"x" * 1000, Sec_Fetch_Site="cross-site")[:-500])

    (refused,) = peer.answers()
    assert refused.status == 403
    assert peer.sink.refused


def test_what_was_in_front_of_a_route_stays_there() -> None:
    def refuse(exchange: Exchange) -> None:
        exchange.respond(HTTPStatus.UNAUTHORIZED)

    route = Route("POST", "load", answer, "RepositoryModelLoad", begin=lambda exchange: lambda: refuse(exchange))
    peer = Peer(refuse_other_sites([route]))

    peer.send(request("POST", "/load", b"x" * 1000)[:-500])

    (refused,) = peer.answers()
    assert refused.status == 401
