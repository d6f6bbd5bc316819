"""What a browser asks for a page of another site: it may not change the server.

Any site can have its visitors' browsers send requests to 127.0.0.1. It sees no answers, but a load or an unload
works without them. Browsers say whose page asks (Fetch Metadata, W3C), and pages cannot say it for them. Over plain
HTTP they say so to servers on the own machine alone; to all others they name at least the page's Origin. Programs say
nothing of the kind, and are not meant.

A site may also let its own name lead to 127.0.0.1 once its page is there (DNS rebinding): the page is then one of this
server's, as the browser sees it. Its name is in Host, and is none that leads to the own machine everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from http import HTTPStatus

from server.frontends.access_rules import CHANGING
from server.frontends.rest.exchange import Exchange, Route
from server.frontends.rest.http1 import Head
from server.frontends.sockets import is_loopback
from server.tensors import Buffer

MESSAGE = "pages of other sites may not change this server"
OTHER_NAME = (
    f"{MESSAGE}, and this one has a name that any site could have; open it as localhost, or start the server with "
    "--auth-policy or --allow-admin=true"
)

CHANGES = frozenset((*CHANGING, "PlaygroundLoad"))
"""Operations that change the server, or may; a GET of theirs does not."""


def refuse_other_sites(routes: Iterable[Route], *, own_machine_only: bool) -> list[Route]:
    """The routes; those that change the server refuse what other sites' pages ask.

    `own_machine_only`: pages are this server's only under a name of the own machine. It is for servers that no other
    machine reaches, and whose callers need no token.
    """

    def reason(head: Head) -> str:
        site, origin, host = (head.header(name).lower() for name in (b"sec-fetch-site", b"origin", b"host"))
        if site == "cross-site" or (not site and origin and origin.partition("://")[2] != host):
            return MESSAGE
        if own_machine_only and (site or origin) and not _names_own_machine(host):
            return OTHER_NAME
        return ""

    return [
        _refusing(route, reason) if route.verb != "GET" and route.operation in CHANGES else route for route in routes
    ]


def _refusing(route: Route, reason: Callable[[Head], str]) -> Route:
    def begin(exchange: Exchange) -> Callable[[], None] | None:
        if reason(exchange.head):
            return lambda: refuse(exchange)
        return route.begin(exchange) if route.begin is not None else None

    def handle(exchange: Exchange, body: Buffer) -> None:
        if reason(exchange.head):
            refuse(exchange)
        else:
            route.handle(exchange, body)

    def refuse(exchange: Exchange) -> None:
        exchange.respond_error(HTTPStatus.FORBIDDEN, reason(exchange.head))

    return replace(route, begin=begin, handle=handle)


def _names_own_machine(host: str) -> bool:
    """Whether browsers find only their own machine under a Host header, in lower case (RFC 6761, section 6.3)."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.endswith(".localhost") or is_loopback(name)
