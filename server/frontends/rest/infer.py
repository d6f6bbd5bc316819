"""`POST v2/models/{model}[/versions/{version}]/infer`: the same inference as gRPC's, in the words of HTTP."""

from __future__ import annotations

from http import HTTPStatus

from server.errors import InvalidRequest
from server.frontends import compression
from server.frontends.inference_service import InferenceService
from server.frontends.rest import infer_codec
from server.frontends.rest.exchange import Content, Exchange, Route
from server.frontends.rest.http1 import HttpError, accepts, too_large
from server.frontends.rest.infer_codec import HEADER_LENGTH, Wanted
from server.frontends.rest.json_tensors import NonFinite
from server.messages import InferenceRequest, InferenceResponse
from server.models.registry import Registry
from server.tensors import Buffer

COMPRESSED_BYTES = 512
"""A smaller answer is not compressed: it would hardly be smaller."""

CODINGS = tuple(coding.decode() for coding in compression.COMPRESSIONS)
_LENGTH = HEADER_LENGTH.lower().encode()
_IDENTITY = ("", "identity")


class InferRoutes:
    """The routes of inference."""

    def __init__(
        self, service: InferenceService, registry: Registry, *, non_finite: NonFinite, max_input_bytes: int
    ) -> None:
        self._service = service
        self.registry = registry
        self.non_finite = non_finite
        self._max_input_bytes = max_input_bytes

    def routes(self) -> list[Route]:
        return [
            Route("POST", f"v2/models/{{model}}{version}/infer", self.handle, "Infer")
            for version in ("", "/versions/{version}")
        ]

    def handle(self, exchange: Exchange, body: Buffer) -> None:
        try:
            body = inflated(exchange, body, self._max_input_bytes)
        except HttpError as error:
            exchange.respond_error(error.status, str(error))
            return
        inference = _Inference(self, exchange)
        exchange.render = inference.render
        self._service.infer(exchange, body, inference.decode, inference.encode)


def inflated(exchange: Exchange, body: Buffer, max_bytes: int) -> Buffer:
    """A request's body without its content coding. Raises `HttpError`."""
    coding = exchange.head.header(b"content-encoding").strip().lower()
    if coding in _IDENTITY:
        return body
    if coding not in CODINGS:
        raise HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Encoding must be {' or '.join(CODINGS)}, not '{coding}'"
        )
    try:
        plain = compression.inflate(body, coding.encode(), max_bytes)
    except ValueError as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"the request's body is no {coding}: {error}") from None
    if plain is None:
        raise too_large(max_bytes)
    return plain


class _Inference:
    """One request, from its body to the answer's."""

    __slots__ = ("_exchange", "_headers", "_routes", "_wanted")

    def __init__(self, routes: InferRoutes, exchange: Exchange) -> None:
        self._routes = routes
        self._exchange = exchange
        self._wanted = Wanted()
        self._headers: tuple[tuple[str, str], ...] = ()

    def decode(self, message: Buffer, deadline: float) -> InferenceRequest:
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

    def encode(self, response: InferenceResponse) -> bytes:
        body, headers = infer_codec.encode(response, self._wanted, self._routes.non_finite)
        asked = self._exchange.head.headers.get(b"accept-encoding")
        if asked is not None and len(body) >= COMPRESSED_BYTES:
            coding = accepts(asked.decode("latin-1"), CODINGS)
            if coding:
                body = compression.deflate(body, coding.encode())
                headers = (*headers, ("Content-Encoding", coding), ("Vary", "Accept-Encoding"))
        self._headers = tuple(headers)
        return body

    def render(self, message: bytes) -> Content:
        return Content(message, self._headers)


def _json_length(exchange: Exchange) -> int | None:
    """Where the JSON of a body ends; None where all of it is JSON. Raises `InvalidRequest`."""
    value = exchange.head.headers.get(_LENGTH)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 15:
        raise InvalidRequest(f"Unable to parse {HEADER_LENGTH}, got: {value.decode('latin-1')}")
    return int(value)
