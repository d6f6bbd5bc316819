"""`GET /v2/health/live` and `/v2/health/ready` as an ASGI application: 200 with no body, or 400 while not ready."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from server.frontends.rest.responses import AsgiApp, Receive, Scope, Send, respond, respond_error


def health_app(is_live: Callable[[], bool], is_ready: Callable[[], bool]) -> AsgiApp:
    """The application. Any other path is 404, any verb but GET and HEAD is 405."""
    checks = {"/v2/health/live": is_live, "/v2/health/ready": is_ready}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        check = checks.get(scope["path"])
        if check is None:
            await respond_error(
                send, HTTPStatus.NOT_FOUND, f"no route {scope['path']}; there is {' and '.join(checks)}"
            )
        elif scope["method"] not in ("GET", "HEAD"):
            await respond_error(send, HTTPStatus.METHOD_NOT_ALLOWED, f"{scope['path']} takes GET", allow="GET, HEAD")
        else:
            await respond(send, HTTPStatus.OK if check() else HTTPStatus.BAD_REQUEST)

    return app
