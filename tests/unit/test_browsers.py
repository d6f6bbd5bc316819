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

    assert Peer(refuse_other_sites(ROUTES, own_machine_only=False)).ask(verb, f"/{path}", **headers).status == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("convoy.localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("127.1.2.3", 200),
        ("[::1]:8000", 200),
        ("", 403),
        ("example.com", 403),
        ("localhost.example.com:8000", 403),
        ("127.0.0.1.example.com", 403),
        ("notlocalhost", 403),
        ("192.168.0.1:8000", 403),
        ("[::1", 200),
        ("[2001:db8::1]:8000", 403),
    ],
)
@pytest.mark.parametrize("mark", ["Sec_Fetch_Site", "Origin"])
def test_a_name_that_any_site_could_have_is_another_site(host: str, status: int, mark: str) -> None:
    peer = Peer(refuse_other_sites(ROUTES, own_machine_only=True))
    marks = {"Sec_Fetch_Site": "same-origin", "Origin": f"http://{host}"}

    assert peer.ask("POST", "/load", Host=host, **{mark: marks[mark]}).status == status


@pytest.mark.parametrize(
    ("marks", "status"),
    [
        ({"Origin": "http://models.example.com:8000"}, 200),
        ({"Origin": "http://Models.example.com:8000"}, 200),
        ({"Origin": "http://models.example.com"}, 403),
        ({"Origin": "http://example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://behind.example.com", "Sec_Fetch_Site": "same-origin"}, 200),
    ],
)
def test_a_browser_that_names_only_the_origin_of_its_page_is_believed(marks: dict[str, str], status: int) -> None:
    peer = Peer(refuse_other_sites(ROUTES, own_machine_only=False))

    assert peer.ask("POST", "/load", Host="models.example.com:8000", **marks).status == status


def test_programs_may_call_the_server_what_they_like() -> None:
    peer = Peer(refuse_other_sites(ROUTES, own_machine_only=True))

    assert peer.ask("POST", "/load", Host="models.example.com").status == 200


def test_where_others_may_change_the_server_it_may_have_any_name() -> None:
    peer = Peer(refuse_other_sites(ROUTES, own_machine_only=False))

    assert peer.ask("POST", "/load", Host="models.example.com", Sec_Fetch_Site="same-origin").status == 200


def test_a_large_change_is_refused_before_it_is_read() -> None:
    peer = Peer(refuse_other_sites(ROUTES, own_machine_only=False))

    peer.send(request("POST", "/load", b"x" * 1000, Sec_Fetch_Site="cross-site")[:-500])

    (refused,) = peer.answers()
    assert refused.status == 403
    assert peer.sink.refused


def test_what_was_in_front_of_a_route_stays_there() -> None:
    def refuse(exchange: Exchange) -> None:
        exchange.respond(HTTPStatus.UNAUTHORIZED)

    route = Route("POST", "load", answer, "RepositoryModelLoad", begin=lambda exchange: lambda: refuse(exchange))
    peer = Peer(refuse_other_sites([route], own_machine_only=False))

    peer.send(request("POST", "/load", b"x" * 1000)[:-500])

    (refused,) = peer.answers()
    assert refused.status == 401
