"""Ray Serve: a proxy, a controller and a replica, over HTTP."""

from __future__ import annotations

from loadtest.peers.base import Peer, program, requirements
from loadtest.peers.calls import raw_http

RAY_SERVE = Peer(
    name="ray",
    title="Ray Serve",
    protocol="HTTP/1.1",
    call=lambda _: raw_http("/"),
    launch=lambda serving: program(
        serving, "ray_server.py", RAY_SERVE_THROUGHPUT_OPTIMIZED="1", RAY_USAGE_STATS_ENABLED="0"
    ),
    configuration="one replica, `@serve.batch(max_batch_size, batch_wait_timeout_s=0.001)`, "
    "`max_ongoing_requests=256`, `RAY_SERVE_THROUGHPUT_OPTIMIZED=1`, no dashboard; float32 bytes both ways",
    packages=("ray", "uvicorn", "onnxruntime"),
    requirements=requirements("ray"),
)
