"""`python -m loadtest simulate` as its users run it: several processes, and a cost table from an HTTP server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from loadtest.errors import LoadTestError
from loadtest.simulation.costs import read_costs

REPOSITORY = Path(__file__).parents[2]

PAGE = {
    "model_name": "m",
    "max_batch_size": 8,
    "instances": 1,
    "objective_ms": 5.0,
    "buckets": [{"rows": n, "p50_us": 200 + 50 * n, "p99_us": 260 + 65 * n, "runs": 128} for n in (1, 2, 4, 8)],
}


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path == "/v2/models/m/cost"
        body = json.dumps(PAGE if found else {"error": "Request for unknown model: 'other' is not found"}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    """Of a server that has the cost page of model m."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loadtest", "simulate", *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )


def test_two_processes_simulate_the_table_of_a_live_server(address: str, tmp_path: Path) -> None:
    processes = ("--processes", "2", "--stretches", "2", "--overlap", "1")
    result = simulate(
        "--costs", f"{address}/v2/models/m/cost", "--load", "0.8", "--seconds", "10", *processes, "--out", str(tmp_path)
    )
    assert result.returncode == 0, result.stdout
    assert "objective 5 ms" in result.stdout and "2 process(es)" in result.stdout
    [point] = json.loads((tmp_path / "results.json").read_text())["points"]
    assert point["arrivals_per_second"] == pytest.approx(0.8 * 8 / 600e-6, rel=0.05)


def test_what_cannot_be_carried_out_is_said_in_a_line(tmp_path: Path) -> None:
    result = simulate("--costs", str(tmp_path / "none.json"))
    assert (result.returncode, result.stdout.count("\n")) == (2, 1)
    assert "none.json: the cost table cannot be read" in result.stdout


def test_a_server_without_the_model_is_quoted(address: str) -> None:
    with pytest.raises(LoadTestError, match=r"other/cost: the server answered 404 Not Found: .*unknown model"):
        read_costs(f"{address}/v2/models/other/cost")


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(LoadTestError, match=r"127\.0\.0\.1:1/cost: the cost table cannot be read"):
        read_costs("http://127.0.0.1:1/cost")
