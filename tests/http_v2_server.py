"""A small server of HTTP v2 with binary tensors, over a real socket: KServe's protocol as the wire has it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]

SLOW_SECONDS = 1.5
"""Longer than the half second that Locust's master waits for the last reports of its workers."""


@dataclass
class HttpV2Server:
    """Models of one FP32 input `x` of two columns, each answered by its own rows in `y`.

    A model whose name begins with "wrong" answers without `y`, one that begins with "busy" not at all but with a 503,
    and one that begins with "slow" after SLOW_SECONDS.
    """

    models: tuple[str, ...]
    address: str = ""
    seen: Counter[tuple[str, bytes]] = field(default_factory=Counter)
    """Model and raw contents of `x`, of all requests for inference."""

    def describe(self, path: str) -> tuple[int, Json]:
        """What a GET of `path` answers: status and JSON."""
        found = re.fullmatch(r"/v2/models/([^/]+)(/config)?", path)
        if not found or found[1] not in self.models:
            return 404, {"error": f"nothing at {path}"}
        if found[2]:
            return 200, {"name": found[1], "max_batch_size": 8}
        x, y = ({"name": name, "datatype": "FP32", "shape": [-1, 2]} for name in "xy")
        return 200, {"name": found[1], "versions": ["1"], "platform": "fake", "inputs": [x], "outputs": [y]}

    def infer(self, model: str, head: Json, data: bytes) -> tuple[int, Json, bytes]:
        """What a request is answered by: status, JSON, and what follows it."""
        (tensor,) = head["inputs"]
        assert tensor["parameters"]["binary_data_size"] == len(data)
        assert head["parameters"] == {"binary_data_output": True}
        self.seen[model, data] += 1
        if model.startswith("slow"):
            time.sleep(SLOW_SECONDS)
        if model.startswith("busy"):
            return 503, {"error": "too many requests"}, b""
        output = {**tensor, "name": "y"}
        return 200, {"model_name": model, "outputs": [] if model.startswith("wrong") else [output]}, data


@contextmanager
def serving(*models: str) -> Iterator[HttpV2Server]:
    """A server of `models` on loopback, for as long as the block lasts."""
    fake = HttpV2Server(models)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, answer = fake.describe(self.path)
            self.reply(status, json.dumps(answer).encode(), b"")

        def do_POST(self) -> None:
            length = int(self.headers["Inference-Header-Content-Length"])
            body = self.rfile.read(int(self.headers["Content-Length"]))
            model = self.path.removeprefix("/v2/models/").removesuffix("/infer")
            status, head, data = fake.infer(model, json.loads(body[:length]), body[length:])
            if head.get("outputs") == []:
                data = b""
            self.reply(status, json.dumps(head).encode(), data)

        def reply(self, status: int, head: bytes, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(head) + len(data)))
            if data:
                self.send_header("Inference-Header-Content-Length", str(len(head)))
            self.end_headers()
            self.wfile.write(head + data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.address = f"127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
