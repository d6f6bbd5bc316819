"""`GET /metrics`. The event loop copies what is counted; a thread of the page's own makes text of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from urllib.parse import parse_qs

from server.frontends.rest.responses import AsgiApp, Receive, Scope, Send, respond_error
from server.metrics.page import MetricsPage, Request
from server.metrics.snapshots import Snapshot

PATH = "/metrics"


def metrics_app(take: Callable[[], Awaitable[Snapshot]], page: MetricsPage, renderer: ThreadPoolExecutor) -> AsgiApp:
    """The application. `renderer` has one thread: pages are made one after another."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != PATH:
            await respond_error(send, HTTPStatus.NOT_FOUND, f"no route {scope['path']}; there is {PATH}")
            return
        if scope["method"] not in ("GET", "HEAD"):
            await respond_error(send, HTTPStatus.METHOD_NOT_ALLOWED, f"{PATH} takes GET", allow="GET, HEAD")
            return
        snapshot = await take()
        rendered = await asyncio.get_running_loop().run_in_executor(renderer, page.render, snapshot, _request(scope))
        headers = [
            (b"content-type", rendered.content_type.encode()),
            (b"content-length", str(len(rendered.body)).encode()),
            (b"vary", b"accept, accept-encoding"),
        ]
        if rendered.content_encoding:
            headers.append((b"content-encoding", rendered.content_encoding.encode()))
        await send({"type": "http.response.start", "status": HTTPStatus.OK.value, "headers": headers})
        await send({"type": "http.response.body", "body": rendered.body})

    return app


def _request(scope: Scope) -> Request:
    names = parse_qs(scope["query_string"].decode("latin-1")).get("name[]", [])
    return Request(_header(scope, b"accept"), _header(scope, b"accept-encoding"), frozenset(names))


def _header(scope: Scope, wanted: bytes) -> str:
    return ",".join([value.decode("latin-1") for name, value in scope["headers"] if name == wanted])
