"""What the small HTTP applications share: ASGI's types, and answers of JSON."""

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


async def respond(send: Send, status: HTTPStatus, content: object = None, allow: str = "") -> None:
    """Answer with JSON, or with no body where `content` is None. `allow` lists the verbs that the path takes."""
    body = b"" if content is None else json.dumps(content).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    if body:
        headers.append((b"content-type", b"application/json"))
    if allow:
        headers.append((b"allow", allow.encode()))
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def respond_error(send: Send, status: HTTPStatus, error: str, allow: str = "") -> None:
    """Answer with `{"error": …}`."""
    await respond(send, status, {"error": error}, allow)
