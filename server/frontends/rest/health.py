"""`GET v2/health/live`, `v2/health/ready` and `v2/models/{model}/ready`: 200, or 400 while it is not so."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from server.errors import ConvoyError
from server.frontends.rest.exchange import Exchange, Route
from server.models.registry import Registry
from server.tensors import Buffer


def health_routes(is_live: Callable[[], bool], is_ready: Callable[[], bool], registry: Registry) -> list[Route]:
    """The routes. A model that is not ready is answered with the reason."""

    def model_ready(exchange: Exchange, _: Buffer) -> None:
        try:
            registry.find(exchange.parameters["model"], exchange.parameters.get("version", ""))
        except ConvoyError as error:
            exchange.respond_error(HTTPStatus.BAD_REQUEST, str(error))
        else:
            exchange.respond(HTTPStatus.OK)

    def answering(check: Callable[[], bool]) -> Callable[[Exchange, Buffer], None]:
        def answer(exchange: Exchange, _: Buffer) -> None:
            exchange.respond(HTTPStatus.OK if check() else HTTPStatus.BAD_REQUEST)

        return answer

    return [
        Route("GET", "v2/health/live", answering(is_live), "Live"),
        Route("GET", "v2/health/ready", answering(is_ready), "Ready"),
        Route("GET", "v2/models/{model}/ready", model_ready, "ModelReady"),
        Route("GET", "v2/models/{model}/versions/{version}/ready", model_ready, "ModelReady"),
    ]
