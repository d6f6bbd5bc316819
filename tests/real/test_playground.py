"""A server with its page, and one without."""

from __future__ import annotations

import json
from pathlib import Path

from server.frontends.rest.playground import STATIC
from tests.real.clients import http_status, read_url
from tests.real.conftest import StartServer


def test_a_server_on_loopback_has_the_page_beside_its_routes(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(model_repository=tmp_path)

    assert read_url(f"{server.http_url}/") == (STATIC / "index.html").read_text()
    assert f"page     {server.http_url}/" in server.log.read_text()
    paths = json.loads(read_url(f"{server.http_url}/v2/openapi.json"))["paths"]
    assert [path for path in paths if not path.startswith("/v2")] == []


def test_a_flag_takes_the_page_away(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--ui=false", model_repository=tmp_path)

    assert http_status(f"{server.http_url}/") == 404
    assert http_status(f"{server.http_url}/assets/app.js") == 404
    assert "page  " not in server.log.read_text()
