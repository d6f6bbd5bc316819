"""`GET /v2/health/live` and `/v2/health/ready` as an ASGI application: 200 with no body, or 400 while not ready."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


def health_app(is_live: Callable[[], bool], is_ready: Callable[[], bool]) -> AsgiApp:
    """The application. Any other path is 404, any verb but GET and HEAD is 405."""
    checks = {"/v2/health/live": is_live, "/v2/health/ready": is_ready}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        check = checks.get(scope["path"])
        if check is None:
            await _respond(send, HTTPStatus.NOT_FOUND, f"no route {scope['path']}; there is {' and '.join(checks)}")
        elif scope["method"] not in ("GET", "HEAD"):
            await _respond(send, HTTPStatus.METHOD_NOT_ALLOWED, f"{scope['path']} takes GET", allow="GET, HEAD")
        else:
            await _respond(send, HTTPStatus.OK if check() else HTTPStatus.BAD_REQUEST)

    return app


async def _respond(send: Send, status: HTTPStatus, error: str = "", allow: str = "") -> None:
    body = json.dumps({"error": error}).encode() if error else b""
    headers = [(b"content-length", str(len(body)).encode())]
    if error:
        headers.append((b"content-type", b"application/json"))
    if allow:
        headers.append((b"allow", allow.encode()))
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})
