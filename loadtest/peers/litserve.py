"""LitServe. Its requests are JSON or forms; arrays travel as base64, as in its examples with pictures."""

from __future__ import annotations

from loadtest.peers.base import Peer, program, requirements
from loadtest.peers.calls import base64_in_json

LITSERVE = Peer(
    name="litserve",
    title="LitServe",
    protocol="HTTP/1.1",
    call=lambda _: base64_in_json("/predict", "input", listed=False, answer_key="output"),
    launch=lambda serving: program(serving, "litserve_server.py"),
    configuration="`max_batch_size`, `batch_timeout` 1 ms, `workers_per_device=1`, `fast_queue=True`; base64 in JSON",
    packages=("litserve", "fastapi", "uvicorn", "onnxruntime"),
    requirements=requirements("litserve"),
)
