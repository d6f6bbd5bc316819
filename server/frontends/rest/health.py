"""`GET v2/health/live`, `v2/health/ready` and `v2/models/{model}/ready`: what gRPC's calls of these names come to.

200 where it is so, 400 while it is not, and the status of the error where gRPC has one: 404 for an unknown model.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from proto import grpc_service_pb2 as pb
from server.errors import ConvoyError
from server.frontends.inference_service import InferenceService
from server.frontends.rest.exchange import Exchange, Route
from server.frontends.statuses import AS_TRITON
from server.tensors import Buffer

MODEL_NOT_READY = "Model version not ready"
"""Triton's sentence."""


def health_routes(service: InferenceService) -> list[Route]:
    """The routes."""

    def model_ready(exchange: Exchange) -> bool:
        parameters = exchange.parameters
        request = pb.ModelReadyRequest(name=parameters["model"], version=parameters.get("version", ""))
        return service.model_ready(request).ready

    def server_ready(_: Exchange) -> bool:
        return service.server_ready(pb.ServerReadyRequest()).ready

    return [
        Route("GET", "v2/health/live", _live, "Live"),
        Route("GET", "v2/health/ready", _answering(server_ready, "Server not ready"), "Ready"),
        *(
            Route("GET", f"v2/models/{{model}}{version}/ready", _answering(model_ready, MODEL_NOT_READY), "ModelReady")
            for version in ("", "/versions/{version}")
        ),
    ]


def _live(exchange: Exchange, _: Buffer) -> None:
    exchange.respond(HTTPStatus.OK)


def _answering(check: Callable[[Exchange], bool], not_so: str) -> Callable[[Exchange, Buffer], None]:
    def handle(exchange: Exchange, _: Buffer) -> None:
        try:
            is_so = check(exchange)
        except ConvoyError as error:
            AS_TRITON.fail(exchange, error)
        else:
            if is_so:
                exchange.respond(HTTPStatus.OK)
            else:
                exchange.respond_error(HTTPStatus.BAD_REQUEST, not_so)

    return handle
