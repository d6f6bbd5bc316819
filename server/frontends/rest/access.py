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
from server.frontends.access_rules import Rule, rule_of
from server.frontends.rest.exchange import Exchange, Route
from server.frontends.rest.restrictions import CATEGORIES
from server.frontends.statuses import AS_TRITON
from server.restricted_apis import ApiCategory
from server.tensors import Buffer

Handle = Callable[[Exchange, Buffer], None]
Refused = Callable[[ConvoyError], None]

OWN = frozenset({"Live", "Ready", "ModelReady", "Infer", "Generate", "GenerateStream", "Cost", "Metrics", "OpenApi"})
"""Operations that are no RPC of the method table."""


def guard_routes(routes: Iterable[Route], gate: Gate, refused_inference: Refused) -> list[Route]:
    """The routes, behind the gate. `refused_inference` counts requests that are turned away."""

    def behind(route: Route) -> Route:
        handle: Handle
        if route.operation in OWN:
            api = (
                METRICS if route.operation == "Metrics" else CATEGORIES.get(route.operation, ApiCategory.METADATA).value
            )
            count = refused_inference if api == ApiCategory.INFERENCE else None
            handle = partial(_admit, gate, api, count, route.handle)
        else:
            handle = partial(_recognise, gate, rule_of(route.operation), route.handle)
        return replace(route, handle=handle)

    return [behind(route) for route in routes]


def _admit(gate: Gate, api: str, count: Refused | None, handle: Handle, exchange: Exchange, body: Buffer) -> None:
    try:
        access, caller, now = gate.identify(exchange)
        access.admit(caller, api, exchange.parameters.get("model"), len(body), now)
    except ConvoyError as error:
        if count is not None:
            count(error)
        AS_TRITON.fail(exchange, error)
    else:
        handle(exchange, body)


def _recognise(gate: Gate, rule: Rule, handle: Handle, exchange: Exchange, body: Buffer) -> None:
    caller = None
    try:
        access, caller, _ = gate.identify(exchange)
        access.check_api(caller, rule.least)
    except ConvoyError as error:
        if exchange.head.verb == "POST":
            parameters = exchange.parameters
            question = rule.unread._replace(model=parameters.get("model"), subject=parameters.get("region", ""))
            gate.note_refusal(exchange, caller, question, error)
        AS_TRITON.fail(exchange, error)
    else:
        handle(exchange, body)
