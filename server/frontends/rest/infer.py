"""`POST v2/models/{model}[/versions/{version}]/infer`: the same inference as gRPC's, in the words of HTTP."""

from __future__ import annotations

from collections.abc import Sequence

from server.errors import InvalidRequest
from server.frontends.forwarding import forwarded_headers
from server.frontends.rest import infer_codec
from server.frontends.rest.exchange import Content, Exchange, Route
from server.frontends.rest.infer_codec import HEADER_LENGTH, Wanted
from server.frontends.rest.model_routes import ModelRoutes
from server.messages import InferenceRequest, InferenceResponse
from server.tensors import Buffer

INFER = "Infer"
_LENGTH = HEADER_LENGTH.lower().encode()


class InferRoutes(ModelRoutes):
    """The routes of inference."""

    def routes(self) -> list[Route]:
        return [
            Route("POST", f"v2/models/{{model}}{version}/infer", self.handle, INFER)
            for version in ("", "/versions/{version}")
        ]

    def handle(self, exchange: Exchange, body: Buffer) -> None:
        self.bodies.receive(exchange, body, self._infer)

    def _infer(self, exchange: Exchange, body: Buffer) -> None:
        inference = _Inference(self, exchange)
        exchange.render = inference.render
        self.service.infer(inference.decode, inference.encode, exchange, body)


class _Inference:
    """One request, from its body to the answer's."""

    __slots__ = ("_exchange", "_headers", "_routes", "_wanted")

    def __init__(self, routes: InferRoutes, exchange: Exchange) -> None:
        self._routes = routes
        self._exchange = exchange
        self._wanted = Wanted()
        self._headers: Sequence[tuple[str, str]] = ()

    def decode(self, message: Buffer, deadline: float) -> InferenceRequest:
        request = self._decode(message, deadline)
        if request.shared is not None and self._routes.gate is not None:
            self._routes.gate.check_shared(self._exchange)
        if self._routes.forwarded is not None:
            request.headers = forwarded_headers(self._routes.forwarded, self._exchange)
        return request

    def _decode(self, message: Buffer, deadline: float) -> InferenceRequest:
        parameters = self._exchange.parameters
        model, version = parameters["model"], parameters.get("version", "")
        body = memoryview(message)
        length = _json_length(self._exchange)
        if length != 0:
            request, self._wanted = infer_codec.decode(model, version, body, length, deadline, self._routes.non_finite)
            return request
        self._wanted = Wanted(by_default=True)
        config = self._routes.registry.find(model, version).config
        return infer_codec.decode_raw(model, version, config.inputs, config.max_batch_size > 0, body, deadline)

    def encode(self, response: InferenceResponse) -> Buffer:
        body, self._headers = infer_codec.encode(response, self._wanted, self._routes.non_finite)
        return body

    def render(self, message: Buffer) -> Content | None:
        return self._routes.bodies.send(self._exchange, Content(message, self._headers))


def _json_length(exchange: Exchange) -> int | None:
    """Where the JSON of a body ends; None where all of it is JSON. Raises `InvalidRequest`."""
    value = exchange.head.headers.get(_LENGTH)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 15:
        raise InvalidRequest(f"Unable to parse {HEADER_LENGTH}, got: {value.decode('latin-1')}")
    return int(value)
