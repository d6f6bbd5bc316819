"""Content codings of bodies: gzip and deflate, undone and done on a thread where they take long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus

from server.errors import MemoryFull
from server.frontends import compression
from server.frontends.calls import INTERNAL_MESSAGE
from server.frontends.rest.exchange import Content, Exchange
from server.frontends.rest.http1 import HttpError, accepts, too_large
from server.tensors import Buffer

log = logging.getLogger(__name__)

CODINGS = tuple(coding.decode() for coding in compression.COMPRESSIONS)
COMPRESSED_BYTES = 512
"""A smaller answer is not compressed: it would hardly be smaller."""
INLINE_BYTES = 16 << 10
"""Up to here, an answer is compressed where it is: the way to a thread and back would take as long."""
MAX_RATIO = 1032
"""No deflated data is this many times as large when it is inflated (zlib's own technical details)."""
_IDENTITY = ("", "identity")


class Bodies:
    """Undoes and does the codings of one listener."""

    def __init__(self, max_input_bytes: int) -> None:
        self._max_input_bytes = max_input_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="zlib")  # starts with the first compressed body

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def receive(self, exchange: Exchange, body: Buffer, handle: Callable[[Exchange, Buffer], None]) -> None:
        """Go on with a request's body without its coding: at once where it has none, later where it has one.

        A small body may become a large one, so every coding is undone on the thread. What cannot be is answered here.
        """
        coding = exchange.head.header(b"content-encoding").strip().lower()
        if coding in _IDENTITY:
            handle(exchange, body)
        elif coding not in CODINGS:
            known = " or ".join(CODINGS)
            message = f"Content-Encoding must be {known}, not '{coding}'"
            exchange.respond_error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)
        else:
            most = min(self._max_input_bytes, MAX_RATIO * len(body))
            try:
                exchange.hold(most)
            except MemoryFull as error:
                exchange.fail_with(error)
                return
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._thread, _inflated, body, coding, most)
            future.add_done_callback(partial(_received, exchange, handle, most))

    def send(self, exchange: Exchange, content: Content) -> Content | None:
        """An answer as its caller accepts it; None where it will be given later."""
        asked = exchange.head.headers.get(b"accept-encoding")
        if asked is None or len(content.body) < COMPRESSED_BYTES:
            return content
        coding = accepts(asked.decode("latin-1"), CODINGS)
        if not coding:
            return content
        if len(content.body) <= INLINE_BYTES:
            return _deflated(content, coding)
        future = asyncio.get_running_loop().run_in_executor(self._thread, _deflated, content, coding)
        future.add_done_callback(partial(_sent, exchange))
        return None


def _inflated(body: Buffer, coding: str, max_bytes: int) -> Buffer:
    """Raises `HttpError`."""
    try:
        plain = compression.inflate(body, coding.encode(), max_bytes)
    except ValueError as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"the request's body is no {coding}: {error}") from None
    if plain is None:
        raise too_large(max_bytes)
    return plain


def _received(
    exchange: Exchange, handle: Callable[[Exchange, Buffer], None], most: int, inflating: asyncio.Future[Buffer]
) -> None:
    if not exchange.open or inflating.cancelled():
        return
    try:
        body = inflating.result()
        exchange.hold(len(body) - most)
        handle(exchange, body)
    except HttpError as error:
        exchange.respond_error(error.status, str(error))
    except Exception:
        log.exception("a handler raised")
        if exchange.open:
            exchange.respond_error(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_MESSAGE)


def _deflated(content: Content, coding: str) -> Content:
    headers = (*content.headers, ("Content-Encoding", coding), ("Vary", "Accept-Encoding"))
    return Content(compression.deflate(content.body, coding.encode()), headers)


def _sent(exchange: Exchange, deflating: asyncio.Future[Content]) -> None:
    if not exchange.open or deflating.cancelled():
        return
    error = deflating.exception()
    if error is None:
        exchange.respond(HTTPStatus.OK, deflating.result())
    else:
        log.error("an answer cannot be compressed", exc_info=error)
        exchange.respond_error(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_MESSAGE)
