"""`GET`, `POST` and `DELETE /v2/playground/load`: the load that the server makes itself, for the playground.

Only for callers on this machine: a load costs what many callers together cost.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from math import isfinite
from typing import Any

from server.access.decisions import Access, Caller
from server.errors import ConvoyError, Forbidden, InvalidRequest
from server.frontends.access import Gate
from server.frontends.calls import Peer
from server.frontends.rest import json_tensors
from server.frontends.rest.bodies import Bodies
from server.frontends.rest.exchange import Exchange, Route, json_content
from server.frontends.rest.json_tensors import NonFinite
from server.frontends.rest.restrictions import CATEGORIES
from server.frontends.sockets import is_loopback
from server.frontends.statuses import AS_TRITON
from server.load_generator import (
    MOST_PER_SECOND,
    MOST_ROWS,
    MOST_SECONDS,
    LoadGenerator,
    LoadSnapshot,
    OfferedLoad,
)
from server.tensors import Buffer

OPERATION = "PlaygroundLoad"
TEMPLATE = "v2/playground/load"
MOST_BODY_BYTES = 4096
FIELDS = ("model", "version", "rows", "rate", "seconds")
_API = CATEGORIES[OPERATION].value


def load_routes(generator: LoadGenerator, bodies: Bodies, gate: Gate | None) -> list[Route]:
    """The routes. `gate`: asked whether a caller may send inferences to the model that it names; None: all may."""

    def show(exchange: Exchange, _: Buffer) -> None:
        exchange.respond(HTTPStatus.OK, json_content(load_page(generator.snapshot())))

    def begin(exchange: Exchange, body: Buffer) -> None:
        load = offered_load(body)
        if gate is not None:
            access, caller, _ = gate.identify(exchange)
            _check(access, caller, load.model)
        generator.begin(load)
        show(exchange, body)

    def stop(exchange: Exchange, body: Buffer) -> None:
        generator.stop()
        show(exchange, body)

    def received(exchange: Exchange, body: Buffer) -> None:
        bodies.receive(exchange, body, _local(begin))

    return [
        Route("GET", TEMPLATE, _local(show), OPERATION),
        Route("POST", TEMPLATE, received, OPERATION),
        Route("DELETE", TEMPLATE, _local(stop), OPERATION),
    ]


def _local(handle: Callable[[Exchange, Buffer], None]) -> Callable[[Exchange, Buffer], None]:
    """The same for callers on this machine; others are refused."""

    def guarded(exchange: Exchange, body: Buffer) -> None:
        try:
            if not is_local(exchange.peer):
                raise Forbidden("the load of the playground is for callers on the server's own machine")
            handle(exchange, body)
        except ConvoyError as error:
            AS_TRITON.fail(exchange, error)

    return guarded


def is_local(peer: Peer) -> bool:
    """Whether a peer is on this machine."""
    address = peer.address
    return is_loopback(address if address.startswith("unix:") else address.rpartition(":")[0].strip("[]"))


def offered_load(body: Buffer) -> OfferedLoad:
    """What a body asks for. Raises `InvalidRequest`."""
    if len(body) > MOST_BODY_BYTES:
        raise InvalidRequest(f"the request's JSON has {len(body)} bytes, {MOST_BODY_BYTES} are allowed")
    fields = json_tensors.parse(bytes(body), NonFinite.REFUSE)
    if not isinstance(fields, dict):
        raise InvalidRequest("the request's JSON must be an object")
    unknown = fields.keys() - FIELDS
    if unknown:
        raise InvalidRequest(f"unknown field '{min(unknown)}'; there are {', '.join(FIELDS)}")
    rows = fields.get("rows", 1)
    if type(rows) is not int:
        raise InvalidRequest("'rows' must be a whole number")
    return OfferedLoad(
        _text(fields, "model"),
        _text(fields, "version", ""),
        _number(fields, "rate"),
        _number(fields, "seconds", MOST_SECONDS),
        rows,
    )


def load_page(state: LoadSnapshot) -> dict[str, object]:
    """The answer as JSON has it."""
    load = state.load
    return {
        "running": state.seconds_left > 0,
        "model": None if load is None else load.model,
        "version": None if load is None else load.version,
        "rows": None if load is None else load.rows,
        "rate": None if load is None else load.rate,
        "seconds_left": round(state.seconds_left, 3),
        "sent": state.sent,
        "answered": state.answered,
        "failed": {reason.value: count for reason, count in state.failed.items()},
        "skipped": state.skipped,
        "in_progress": state.in_progress,
        "limits": {"rows": MOST_ROWS, "rate": MOST_PER_SECOND, "seconds": MOST_SECONDS},
    }


def _check(access: Access, caller: Caller, model: str) -> None:
    """Raises `Unauthenticated` or `Forbidden`, also for callers whose requests are counted: a load has no count."""
    access.check(caller, _API, model)
    if access.meter(caller.name) is not None:
        raise Forbidden(f"'{caller.name}' has limits, and the load of the playground knows none")


def _text(fields: dict[str, Any], name: str, default: str | None = None) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise InvalidRequest(f"'{name}' must be a string" if name in fields else f"the request has no '{name}'")
    return value


def _number(fields: dict[str, Any], name: str, default: float | None = None) -> float:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise InvalidRequest(f"'{name}' must be a number" if name in fields else f"the request has no '{name}'")
    return float(value)
