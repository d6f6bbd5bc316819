"""`GET /v2/models/{model}/card` and `/v2/models/{model}/versions/{version}/card`: a version's model card, as JSON."""

from __future__ import annotations

from http import HTTPStatus

from server.errors import ConvoyError
from server.frontends.rest.exchange import JSON, Content, Exchange, Route
from server.frontends.statuses import AS_TRITON
from server.models.cards import CARD_FILENAME
from server.models.registry import Registry
from server.models.served import Served
from server.tensors import Buffer


def card_routes(registry: Registry) -> list[Route]:
    """The routes."""

    def handle(exchange: Exchange, _: Buffer) -> None:
        try:
            loaded = registry.find(exchange.parameters["model"], exchange.parameters.get("version", ""))
        except ConvoyError as error:
            AS_TRITON.fail(exchange, error)
            return
        if loaded.card.content:
            exchange.respond(HTTPStatus.OK, Content(loaded.card.content, (("Content-Type", JSON),)))
        else:
            exchange.respond_error(HTTPStatus.NOT_FOUND, why_none(loaded))

    return [
        Route("GET", "v2/models/{model}/card", handle, "Card"),
        Route("GET", "v2/models/{model}/versions/{version}/card", handle, "Card"),
    ]


def why_none(loaded: Served) -> str:
    """Why a version has no card to show."""
    reason = loaded.card.problem or f"there is no {CARD_FILENAME} in its version's folder"
    return f"model '{loaded.config.name}' version {loaded.version} has no card: {reason}"
