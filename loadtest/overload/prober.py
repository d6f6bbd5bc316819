"""Asks a server how it is, ten times a second over each protocol, and prints how long the answers took, as JSON.

Latencies count from the moment that the question is sent; how late the prober was itself is told beside them.
"""

from __future__ import annotations

import argparse
import http.client
import json
import time
from collections.abc import Callable
from threading import Thread

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

_EVERY_SECONDS = 0.1
_PATIENCE_SECONDS = 30.0


class Probe:
    """Questions of one kind, on a thread of their own."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self.latencies_ms: list[float] = []
        self.late_ms: list[float] = []
        self.failed = 0
        self._ask = ask

    def run(self, until: float) -> None:
        due = time.monotonic()
        while due < until:
            time.sleep(max(0.0, due - time.monotonic()))
            sent = time.monotonic()
            self.late_ms.append((sent - due) * 1e3)
            try:
                healthy = self._ask()
            except (OSError, http.client.HTTPException, grpc.RpcError):
                healthy = False
            self.failed += not healthy
            self.latencies_ms.append((time.monotonic() - sent) * 1e3)
            due = max(due + _EVERY_SECONDS, time.monotonic() - _EVERY_SECONDS)

    def as_json(self) -> dict[str, object]:
        return {"latencies_ms": self.latencies_ms, "late_ms": self.late_ms, "failed": self.failed}


def main() -> None:
    parser = argparse.ArgumentParser(description="Asks a server how it is, ten times a second.")
    parser.add_argument("--grpc", required=True, metavar="HOST:PORT")
    parser.add_argument("--http", required=True, metavar="HOST:PORT")
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    rest = http.client.HTTPConnection(given.http, timeout=_PATIENCE_SECONDS)

    def over_http() -> bool:
        rest.request("GET", "/v2/health/ready")
        answer = rest.getresponse()
        answer.read()
        return answer.status == http.HTTPStatus.OK

    with grpc.insecure_channel(given.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        probes = {
            "grpc": Probe(
                lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=_PATIENCE_SECONDS).status == serving
            ),
            "http": Probe(over_http),
        }
        for probe in probes.values():
            probe.run(time.monotonic() + 2 * _EVERY_SECONDS)  # the connection is there before anything counts
            probe.latencies_ms, probe.late_ms, probe.failed = [], [], 0
        until = time.monotonic() + given.seconds
        threads = [Thread(target=probe.run, args=(until,)) for probe in probes.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(json.dumps({name: probe.as_json() for name, probe in probes.items()}))


if __name__ == "__main__":
    main()
