"""`GET /v2/models/{model}/cost` and `/v2/models/{model}/versions/{version}/cost`: what a version's batches take."""

from __future__ import annotations

from http import HTTPStatus

from server.errors import ConvoyError
from server.frontends.rest.exchange import Exchange, Route, json_content
from server.frontends.statuses import AS_TRITON
from server.models.registry import Registry
from server.models.served import Served
from server.tensors import Buffer


def cost_routes(registry: Registry) -> list[Route]:
    """The routes."""

    def handle(exchange: Exchange, _: Buffer) -> None:
        try:
            loaded = registry.find(exchange.parameters["model"], exchange.parameters.get("version", ""))
        except ConvoyError as error:
            AS_TRITON.fail(exchange, error)
        else:
            exchange.respond(HTTPStatus.OK, json_content(cost_page(loaded)))

    return [
        Route("GET", "v2/models/{model}/cost", handle, "Cost"),
        Route("GET", "v2/models/{model}/versions/{version}/cost", handle, "Cost"),
    ]


def cost_page(loaded: Served) -> dict[str, object]:
    """The table as JSON has it: one bucket for each batch size that has been measured, in microseconds."""
    config = loaded.config
    return {
        "model_name": config.name,
        "model_version": str(loaded.version),
        "max_batch_size": config.max_batch_size,
        "objective_ms": config.objective_ms or None,
        "instances": loaded.instances,
        "buckets": [
            {
                "rows": cost.rows,
                "p50_us": round(cost.typical_seconds * 1e6, 1),
                "p99_us": round(cost.worst_seconds * 1e6, 1),
                "runs": cost.runs,
            }
            for cost in loaded.costs.lines()
        ],
    }
