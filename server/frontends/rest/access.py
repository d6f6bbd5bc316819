"""Access over HTTP: every route behind a `Gate`, before a body is unpacked or read.

Routes that are RPCs are let in by the guards of the method table, which know what the JSON asks. Here their callers are
only recognised, so that a stranger's body costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from server.access.policy import METRICS
from server.errors import ConvoyError
from server.frontends.access import Gate
from server.frontends.access_rules import rule_of
from server.frontends.rest.exchange import Exchange, Route
from server.frontends.rest.restrictions import CATEGORIES, INFERENCE
from server.frontends.statuses import AS_TRITON
from server.restricted_apis import ApiCategory
from server.tensors import Buffer

OWN = frozenset({
    "Live", "Ready", "ModelReady", *INFERENCE, "Cost", "Card", "LiveFigures", "PlaygroundLoad", "Metrics", "OpenApi",
})  # fmt: skip
"""Operations that are no RPC of the method table."""


def guard_routes(routes: Iterable[Route], gate: Gate) -> list[Route]:
    """The routes, behind the gate."""
    return [_guarded(route, gate) for route in routes]


def _guarded(route: Route, gate: Gate) -> Route:
    door = _Door(gate, route) if route.operation in OWN else _RpcDoor(gate, route)
    return replace(route, handle=door.handle, begin=door.begin)


class _Door:
    """In front of a route that asks nobody else."""

    def __init__(self, gate: Gate, route: Route) -> None:
        category = CATEGORIES.get(route.operation, ApiCategory.METADATA)
        self._api = METRICS if route.operation == "Metrics" else category.value
        self._is_inference = route.operation in INFERENCE
        self._gate = gate
        self._handle = route.handle

    def begin(self, exchange: Exchange) -> Callable[[], None] | None:
        try:
            access, caller, _ = self._gate.identify(exchange)
            access.check(caller, self._api, exchange.parameters.get("model"))
        except ConvoyError as error:
            return partial(self._refuse, exchange, error)
        return None

    def handle(self, exchange: Exchange, body: Buffer) -> None:
        try:
            access, caller, now = self._gate.identify(exchange)
            access.admit(caller, self._api, exchange.parameters.get("model"), len(body), now)
        except ConvoyError as error:
            self._refuse(exchange, error)
        else:
            self._handle(exchange, body)

    def _refuse(self, exchange: Exchange, error: ConvoyError) -> None:
        if self._is_inference:
            self._gate.count(error)
        AS_TRITON.fail(exchange, error)


class _RpcDoor:
    """In front of a route over an RPC: what the RPC asks is for the guard of the method table to judge."""

    def __init__(self, gate: Gate, route: Route) -> None:
        self._rule = rule_of(route.operation)
        self._gate = gate
        self._handle = route.handle
        self._may_change = route.verb == "POST"

    def begin(self, exchange: Exchange) -> Callable[[], None] | None:
        parameters, unread = exchange.parameters, self._rule.unread
        question = unread._replace(
            model=parameters.get("model"),
            subject=parameters.get("region", ""),
            changes=unread.changes and self._may_change,
        )
        error = self._gate.refusal(self._rule, exchange, question)
        return None if error is None else partial(AS_TRITON.fail, exchange, error)

    def handle(self, exchange: Exchange, body: Buffer) -> None:
        refuse = self.begin(exchange)
        if refuse is None:
            self._handle(exchange, body)
        else:
            refuse()
