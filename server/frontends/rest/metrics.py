"""`GET /metrics`. The event loop copies what is counted; a thread of the page's own makes text of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from urllib.parse import parse_qs

from server.frontends.calls import INTERNAL_MESSAGE
from server.frontends.rest.exchange import Content, Exchange, Route
from server.metrics.page import MetricsPage, Request
from server.metrics.snapshots import Snapshot
from server.tensors import Buffer

log = logging.getLogger(__name__)


def metrics_route(take: Callable[[], Awaitable[Snapshot]], page: MetricsPage, renderer: ThreadPoolExecutor) -> Route:
    """The route. `renderer` has one thread: pages are made one after another."""
    scrapes: set[asyncio.Task[None]] = set()  # the event loop itself holds on to none

    async def scrape(exchange: Exchange) -> None:
        try:
            snapshot = await take()
            loop = asyncio.get_running_loop()
            rendered = await loop.run_in_executor(renderer, page.render, snapshot, _request(exchange))
        except Exception:  # whoever scrapes must hear of it
            log.exception("the metrics page cannot be made")
            exchange.respond_error(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_MESSAGE)
            return
        headers = [("Content-Type", rendered.content_type), ("Vary", "Accept, Accept-Encoding")]
        if rendered.content_encoding:
            headers.append(("Content-Encoding", rendered.content_encoding))
        exchange.respond(HTTPStatus.OK, Content(rendered.body, headers))

    def handle(exchange: Exchange, _: Buffer) -> None:
        task = asyncio.get_running_loop().create_task(scrape(exchange))
        scrapes.add(task)
        task.add_done_callback(scrapes.discard)

    return Route("GET", "metrics", handle, "Metrics")


def _request(exchange: Exchange) -> Request:
    names = parse_qs(exchange.head.query).get("name[]", [])
    header = exchange.head.header
    return Request(header(b"accept"), header(b"accept-encoding"), frozenset(names))
