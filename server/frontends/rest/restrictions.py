"""Restricted APIs over HTTP: routes that are answered only where a header has the secret, as in Triton."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from http import HTTPStatus

from server.frontends import restrictions
from server.frontends.rest.exchange import Exchange, Route
from server.frontends.restrictions import Guard
from server.ledger import Account
from server.restricted_apis import ApiCategory, Restrictions
from server.tensors import Buffer

CATEGORIES: dict[str, ApiCategory] = restrictions.CATEGORIES | {
    "Live": ApiCategory.HEALTH,
    "Ready": ApiCategory.HEALTH,
    "Infer": ApiCategory.INFERENCE,
    "Generate": ApiCategory.INFERENCE,
    "GenerateStream": ApiCategory.INFERENCE,
    "Cost": ApiCategory.STATISTICS,
    "LiveFigures": ApiCategory.STATISTICS,
    "PlaygroundLoad": ApiCategory.INFERENCE,
    "Card": ApiCategory.METADATA,
}
"""Routes by their operations. The OpenAPI document and the metrics have none, as in Triton."""


INFERENCE = frozenset(("Infer", "Generate", "GenerateStream"))
"""Operations that are an inference each."""


def restrict_routes(routes: Iterable[Route], restricted: Restrictions) -> list[Route]:
    """The routes, those of a restricted category behind their guards."""
    guards = {category: Guard(secret) for category, secret in restricted.items()}

    def behind(route: Route) -> Route:
        category = CATEGORIES.get(route.operation)
        guard = guards.get(category) if category is not None else None
        return route if guard is None else replace(route, handle=partial(_handle, guard, route.handle))

    return [behind(route) for route in routes]


def accounted_routes(routes: Iterable[Route], account: Account) -> list[Route]:
    """The routes, inference on the ledger: whatever stands in front of it by now is accounted for, too."""
    return [replace(route, account=account) if route.operation in INFERENCE else route for route in routes]


def _handle(guard: Guard, handle: Callable[[Exchange, Buffer], None], exchange: Exchange, body: Buffer) -> None:
    if guard.admits(exchange):
        handle(exchange, body)
    else:
        message = f"This API is restricted, expecting header '{guard.header}'"
        exchange.respond_error(HTTPStatus.FORBIDDEN, message)
