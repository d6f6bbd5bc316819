"""What is done with bodies on threads, since it takes long: content codings, gzip and deflate, undone and done; large
bodies read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import TypeVar

from server.errors import ConvoyError, MemoryFull
from server.frontends import compression
from server.frontends.calls import INTERNAL_MESSAGE
from server.frontends.rest.exchange import Content, Exchange
from server.frontends.rest.http1 import HttpError, accepts, too_large
from server.frontends.statuses import AS_TRITON
from server.tensors import Buffer

log = logging.getLogger(__name__)

CODINGS = tuple(coding.decode() for coding in compression.COMPRESSIONS)
COMPRESSED_BYTES = 512
"""A smaller answer is not compressed: it would hardly be smaller."""
MAX_RATIO = 1032
"""No deflated data is this many times as large when it is inflated (zlib's own technical details)."""
THREADS = 2
"""One large body holds nobody else's up."""
_IDENTITY = ("", "identity")

T = TypeVar("T")


class Bodies:
    """The threads of one listener, and what they do."""

    def __init__(self, max_input_bytes: int) -> None:
        self._max_input_bytes = max_input_bytes
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bodies")  # start with the first such body

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

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
            self.work(exchange, partial(_inflated, body, coding, most), partial(_go_on_with, exchange, handle, most))

    def work(self, exchange: Exchange, task: Callable[[], T], then: Callable[[T], object]) -> None:
        """Do something on a thread and go on with what it returns, where the caller still waits. It may raise
        `HttpError` and `ConvoyError`."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, task)
        future.add_done_callback(partial(_go_on, exchange, then))

    def send(self, exchange: Exchange, content: Content) -> Content | None:
        """An answer as its caller accepts it; None where it will be given later."""
        asked = exchange.head.headers.get(b"accept-encoding")
        if asked is None or len(content.body) < COMPRESSED_BYTES:
            return content
        coding = accepts(asked.decode("latin-1"), CODINGS)
        if not coding:
            return content
        if len(content.body) <= compression.INLINE_BYTES:
            return _deflated(content, coding)
        deflating = asyncio.get_running_loop().run_in_executor(self._threads, _deflated, content, coding)
        deflating.add_done_callback(partial(_rendered, exchange))
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


def _go_on_with(exchange: Exchange, handle: Callable[[Exchange, Buffer], None], most: int, body: Buffer) -> None:
    exchange.hold(len(body) - most)
    handle(exchange, body)


def _go_on(exchange: Exchange, then: Callable[[T], object], done: asyncio.Future[T]) -> None:
    if not exchange.open or done.cancelled():
        return
    try:
        then(done.result())
    except HttpError as error:
        exchange.respond_error(error.status, str(error))
    except ConvoyError as error:
        AS_TRITON.fail(exchange, error)
    except Exception:
        log.exception("a handler raised")
        if exchange.open:
            exchange.respond_error(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_MESSAGE)


def _rendered(exchange: Exchange, deflating: asyncio.Future[Content]) -> None:
    if deflating.cancelled():
        return
    error = deflating.exception()
    if error is not None:
        log.error("an answer could not be compressed", exc_info=error)
    exchange.rendered(None if error is not None else deflating.result())


def _deflated(content: Content, coding: str) -> Content:
    headers = (*content.headers, ("Content-Encoding", coding), ("Vary", "Accept-Encoding"))
    return Content(compression.deflate(content.body, coding.encode()), headers)
