"""What a browser asks for a page of another site: it may not change the server.

Any site can have its visitors' browsers send requests to 127.0.0.1. It sees no answers, but a load or an unload
works without them. Browsers say whose page asks (Fetch Metadata, W3C), and pages cannot say it for them. Programs say
nothing of the kind, and are not meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from http import HTTPStatus

from server.frontends.access_rules import CHANGING
from server.frontends.rest.exchange import Exchange, Route
from server.tensors import Buffer

MESSAGE = "pages of other sites may not change this server"


CHANGES = frozenset((*CHANGING, "PlaygroundLoad"))
"""Operations that change the server, or may; a GET of theirs does not."""


def refuse_other_sites(routes: Iterable[Route]) -> list[Route]:
    """The routes; those that change the server refuse what other sites' pages ask."""
    return [_refusing(route) if route.verb != "GET" and route.operation in CHANGES else route for route in routes]


def _refusing(route: Route) -> Route:
    def begin(exchange: Exchange) -> Callable[[], None] | None:
        if _is_of_another_site(exchange):
            return lambda: _refuse(exchange)
        return route.begin(exchange) if route.begin is not None else None

    def handle(exchange: Exchange, body: Buffer) -> None:
        if _is_of_another_site(exchange):
            _refuse(exchange)
        else:
            route.handle(exchange, body)

    return replace(route, begin=begin, handle=handle)


def _is_of_another_site(exchange: Exchange) -> bool:
    return exchange.head.header(b"sec-fetch-site").lower() == "cross-site"


def _refuse(exchange: Exchange) -> None:
    exchange.respond_error(HTTPStatus.FORBIDDEN, MESSAGE)
