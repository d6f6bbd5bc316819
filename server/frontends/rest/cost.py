"""`GET /v2/models/{model}/cost` and `/v2/models/{model}/versions/{version}/cost`: what a version's batches take."""

from __future__ import annotations

import re
from http import HTTPStatus

from server.errors import ConvoyError, InvalidRequest, NotFound, NotReady
from server.frontends.rest.responses import AsgiApp, Receive, Scope, Send, respond, respond_error
from server.models.registry import Registry
from server.models.served import Served

_PATH = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?/cost")

_STATUSES: dict[type[ConvoyError], HTTPStatus] = {
    InvalidRequest: HTTPStatus.BAD_REQUEST,
    NotFound: HTTPStatus.NOT_FOUND,
    NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
}


def cost_app(registry: Registry, otherwise: AsgiApp) -> AsgiApp:
    """The application; all other paths are for `otherwise`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = _PATH.fullmatch(scope["path"])
        if path is None:
            await otherwise(scope, receive, send)
        elif scope["method"] not in ("GET", "HEAD"):
            await respond_error(send, HTTPStatus.METHOD_NOT_ALLOWED, f"{scope['path']} takes GET", allow="GET, HEAD")
        else:
            try:
                page = cost_page(registry.find(path["model"], path["version"] or ""))
            except (InvalidRequest, NotFound, NotReady) as error:
                await respond_error(send, _STATUSES[type(error)], str(error))
            else:
                await respond(send, HTTPStatus.OK, page)

    return app


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
