"""`POST v2/models/{model}[/versions/{version}]/generate` and `…/generate_stream`: one inference in flat JSON, as Triton
has it (its generate extension). A model answers once, so the stream is one event.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from server.frontends.forwarding import forwarded_headers
from server.frontends.rest import generate_codec
from server.frontends.rest.exchange import Content, Exchange, Route
from server.frontends.rest.model_routes import ModelRoutes
from server.messages import InferenceRequest, InferenceResponse
from server.tensors import Buffer


class GenerateRoutes(ModelRoutes):
    """The routes."""

    def routes(self) -> list[Route]:
        return [
            Route("POST", f"v2/models/{{model}}{version}/{word}", partial(self._handle, as_event), operation)
            for version in ("", "/versions/{version}")
            for word, as_event, operation in (
                ("generate", False, "Generate"),
                ("generate_stream", True, "GenerateStream"),
            )
        ]

    def _handle(self, as_event: bool, exchange: Exchange, body: Buffer) -> None:
        self.bodies.receive(exchange, body, partial(self._generate, as_event))

    def _generate(self, as_event: bool, exchange: Exchange, body: Buffer) -> None:
        generation = _Generation(self, exchange, as_event)
        exchange.render = generation.render
        self.service.infer(generation.decode, generation.encode, exchange, body)


class _Generation:
    """One request, from its body to the answer's."""

    def __init__(self, routes: GenerateRoutes, exchange: Exchange, as_event: bool) -> None:
        self._routes = routes
        self._exchange = exchange
        self._as_event = as_event
        self._headers: Sequence[tuple[str, str]] = ()

    def decode(self, message: Buffer, deadline: float) -> InferenceRequest:
        parameters, routes = self._exchange.parameters, self._routes
        model, version = parameters["model"], parameters.get("version", "")
        config = routes.registry.find(model, version).config
        request = generate_codec.decode(
            model, version, config.inputs, config.max_batch_size > 0, bytes(message), deadline, routes.non_finite
        )
        if routes.forwarded is not None:
            request.headers = forwarded_headers(routes.forwarded, self._exchange)
        return request

    def encode(self, response: InferenceResponse) -> Buffer:
        body, self._headers = generate_codec.encode(response, self._routes.non_finite, as_event=self._as_event)
        return body

    def render(self, message: Buffer) -> Content | None:
        return self._routes.bodies.send(self._exchange, Content(message, self._headers))
