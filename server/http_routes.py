"""What is served over HTTP: the routes of all services, behind what stands in front of them."""

from __future__ import annotations

from server.frontends.access import Gate
from server.frontends.calls import MethodTable
from server.frontends.inference_service import InferenceService
from server.frontends.rest.access import guard_routes
from server.frontends.rest.bodies import Bodies
from server.frontends.rest.browsers import refuse_other_sites
from server.frontends.rest.card import card_routes
from server.frontends.rest.cost import cost_routes
from server.frontends.rest.exchange import Route
from server.frontends.rest.generate import GenerateRoutes
from server.frontends.rest.health import health_routes
from server.frontends.rest.infer import InferRoutes
from server.frontends.rest.json_tensors import NonFinite
from server.frontends.rest.live import LiveRoutes
from server.frontends.rest.openapi import openapi_route
from server.frontends.rest.playground import playground_routes
from server.frontends.rest.playground_load import load_routes
from server.frontends.rest.restrictions import accounted_routes, restrict_routes
from server.frontends.rest.rpc_routes import rpc_routes
from server.frontends.sockets import is_loopback
from server.ledger import Account
from server.load_generator import LoadGenerator
from server.models.registry import Registry
from server.settings import Settings


def http_routes(
    settings: Settings,
    inference: InferenceService,
    registry: Registry,
    methods: MethodTable,
    metrics: Route,
    bodies: Bodies,
    gate: Gate | None,
    account: Account,
    load: LoadGenerator | None,
) -> list[Route]:
    """The routes. `account`: where inference is accounted for; `load`: there where the page is.

    Raises `OSError` where the page's files are missing.
    """
    non_finite = NonFinite.WORDS if settings.http_json_nan else NonFinite.REFUSE
    forwarded = settings.http_header_forward_pattern
    infer = InferRoutes(
        inference,
        registry,
        bodies,
        non_finite=non_finite,
        forwarded=forwarded,
        gate=gate if gate and gate.guards_all else None,
    )
    generate = GenerateRoutes(inference, registry, bodies, non_finite=non_finite, forwarded=forwarded)
    routes = [
        *infer.routes(),
        *generate.routes(),
        *health_routes(inference),
        *rpc_routes(gate.guard(methods) if gate else methods, bodies),
        *cost_routes(registry),
        *LiveRoutes(registry).routes(),
        *(load_routes(load, bodies, gate if gate and gate.guards_all else None) if load is not None else []),
        *card_routes(registry),
        *([metrics] if settings.http_metrics else []),
    ]
    every = refuse_other_sites(
        behind_gate([*routes, openapi_route(routes)], gate),
        own_machine_only=is_loopback(settings.http_address)
        and settings.auth_policy is None
        and settings.allow_admin is None,
    )
    page = playground_routes() if load is not None else ()
    return [*accounted_routes(restrict_routes(every, settings.http_restricted_apis), account), *page]


def behind_gate(routes: list[Route], gate: Gate | None) -> list[Route]:
    """The routes, behind the gate where it guards all of them."""
    return guard_routes(routes, gate) if gate and gate.guards_all else routes
