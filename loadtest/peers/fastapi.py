"""FastAPI on uvicorn, the few lines that anybody would begin with: no batching."""

from __future__ import annotations

from loadtest.peers.base import Peer, program, requirements
from loadtest.peers.calls import raw_http

FASTAPI = Peer(
    name="fastapi",
    title="FastAPI",
    protocol="HTTP/1.1",
    call=lambda _: raw_http("/predict"),
    launch=lambda serving: program(serving, "fastapi_server.py"),
    configuration="one uvicorn worker with uvloop and httptools; float32 bytes both ways; the model runs per request, "
    "without batching",
    packages=("fastapi", "uvicorn", "uvloop", "httptools", "onnxruntime"),
    requirements=requirements("fastapi"),
)
