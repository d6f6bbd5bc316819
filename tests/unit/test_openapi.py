"""The document of the routes: valid, and as complete as the routes are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random

from server.engine import Engine
from server.frontends.calls import UnaryMethod
from server.frontends.inference_service import SERVICE, InferenceService
from server.frontends.rest.bodies import Bodies
from server.frontends.rest.card import card_routes
from server.frontends.rest.cost import cost_routes
from server.frontends.rest.exchange import Route
from server.frontends.rest.generate import GenerateRoutes
from server.frontends.rest.health import health_routes
from server.frontends.rest.infer import InferRoutes
from server.frontends.rest.json_tensors import NonFinite
from server.frontends.rest.live import LiveRoutes
from server.frontends.rest.metrics import metrics_route
from server.frontends.rest.openapi import OPERATIONS, document, openapi_route
from server.frontends.rest.playground_load import load_routes
from server.frontends.rest.rpc_routes import rpc_routes
from server.ledger import Account
from server.load_generator import LoadGenerator
from server.metrics.snapshots import Snapshot
from server.models.registry import Registry
from tests import fakes
from tests.unit.http_peer import Peer
from tests.unit.metric_pages import page_of
from tests.unit.test_rpc_routes import NAMES

METHODS = {f"/{SERVICE}/{name}": UnaryMethod(lambda call, message: None) for name in NAMES}


def all_routes() -> list[Route]:
    """Those of a server with every flag."""
    registry = Registry()
    service = InferenceService(
        Engine(registry), registry, server_id="convoy", strict_readiness=True, watch=fakes.watch()
    )
    generator = LoadGenerator(Engine(registry), registry, Account("playground"), fakes.PuppetClock(), Random())
    infer = InferRoutes(service, registry, Bodies(1), non_finite=NonFinite.REFUSE)
    generate = GenerateRoutes(service, registry, Bodies(1), non_finite=NonFinite.REFUSE)
    take: Callable[[], Awaitable[Snapshot]] = Snapshot  # type: ignore[assignment]  # nobody scrapes here
    return [
        *infer.routes(),
        *generate.routes(),
        *health_routes(service),
        *rpc_routes(METHODS, Bodies(1)),
        *cost_routes(registry),
        *LiveRoutes(registry).routes(),
        *load_routes(generator, Bodies(1), None),
        *card_routes(registry),
        metrics_route(take, page_of(), ThreadPoolExecutor(1)),
    ]


def test_the_document_is_valid_and_is_served() -> None:
    from openapi_spec_validator import validate  # seconds of importing, which whoever collects would wait for

    routes = all_routes()
    route = openapi_route(routes)
    shown = Peer([route]).ask("GET", "/v2/openapi.json").json
    assert shown == document([*routes, route])
    validate(shown)


def test_every_operation_has_a_route() -> None:
    routes = all_routes()
    assert {route.operation for route in [*routes, openapi_route(routes)]} == set(OPERATIONS)
