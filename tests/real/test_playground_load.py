"""The load that a server makes itself, and what it shows of it: bounded, and on the ledger to the last request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from server.access.tokens import digest_of, shown
from tests import onnx_models
from tests.real.clients import http_status, metric, read_url, wait_for_pending
from tests.real.conftest import RunningServer, StartServer, start
from tests.real.waiting import wait_until
from tests.real.zoo import held
from tests.repositories import add_model

PATIENCE_SECONDS = 60
LOAD = "/v2/playground/load"
ALICE, BOB = "cvy_example-alice-0123456789abcdef0123456789", "cvy_example-bob-0123456789abcdef0123456789ab"
POLICY = f"""
[[principals]]
name = "alice"
tokens = ["{shown(digest_of(ALICE))}"]
allow = [{{ apis = ["inference"], models = ["affine"] }}]

[[principals]]
name = "bob"
tokens = ["{shown(digest_of(BOB))}"]
allow = [{{ apis = ["inference"], models = ["*"] }}]
limits = {{ requests_per_second = 1000 }}
"""


def write_models(root: Path) -> Path:
    add_model(root, "affine", onnx_models.affine(), "max_batch_size: 8 dynamic_batching { }")
    add_model(root, "held", onnx_models.affine(), held("max_queue_size: 3"))
    return root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = write_models(tmp_path_factory.mktemp("models"))
    server = start(tmp_path_factory.mktemp("server"), model_repository=root)
    yield server
    assert server.terminate() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


def ask(server: RunningServer, verb: str, path: str, body: object = None, token: str = "") -> Any:
    """The answer as JSON has it; of one that is no 200, its status."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urlopen(Request(server.http_url + path, data, headers, method=verb), timeout=30) as answer:
            return json.load(answer)
    except HTTPError as error:
        with error:
            return error.code


def begin(server: RunningServer, model: str, rate: float) -> None:
    assert ask(server, "POST", LOAD, {"model": model, "rate": rate})["running"] is True


def settled(server: RunningServer) -> Any:
    """End the load, and return what has become of it once all are answered."""
    assert ask(server, "DELETE", LOAD)["running"] is False
    wait_until(lambda: ask(server, "GET", LOAD)["in_progress"] == 0, PATIENCE_SECONDS)
    return ask(server, "GET", LOAD)


def ledger(server: RunningServer, outcome: str) -> float:
    return metric(server.metrics_url, "convoy_ledger_ended_total", protocol="playground", outcome=outcome)


def test_every_request_is_counted_by_the_load_the_ledger_the_model_and_the_batches_alike(server: RunningServer) -> None:
    live = "/v2/models/affine/live"
    page = ask(server, "GET", live)
    requests = 0

    def seen() -> int:
        nonlocal page, requests
        page = ask(server, "GET", f"{live}?since={page['cursor']}")
        assert page["missed_batches"] == 0
        requests += sum(page["batches"]["requests"])
        return requests

    begin(server, "affine", 300)
    wait_until(lambda: seen() >= 200, PATIENCE_SECONDS)
    state = settled(server)

    assert seen() == state["answered"] == state["sent"] == ledger(server, "answered")
    assert (state["failed"], state["model"]) == ({}, "affine")
    assert metric(server.metrics_url, "nv_inference_request_success", model="affine") == state["answered"]
    assert (page["waiting"]["requests"], page["running"]) == (0, {"batches": 0, "requests": 0})


def test_in_overload_the_queue_is_full_and_the_rest_is_refused(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(model_repository=write_models(tmp_path / "models"))
    live = "/v2/models/held/live"
    ask(server, "GET", live)
    begin(server, "held", 200)
    wait_for_pending(server.metrics_url, "held", 3)
    wait_until(lambda: "queue_full" in ask(server, "GET", live)["failed_per_second"], PATIENCE_SECONDS)
    page = ask(server, "GET", live)
    assert (page["waiting"]["requests"], page["policy"]) == (3, "window")
    assert page["waiting"]["oldest_us"] > 0
    state = ask(server, "DELETE", LOAD)
    assert state["in_progress"] == 3
    assert state["failed"] == {"queue_full": state["sent"] - 3}
    assert ledger(server, "refused") == state["sent"] - 3


@pytest.mark.parametrize(
    "load",
    [
        {"model": "affine", "rate": 1e6},
        {"model": "affine", "rate": 1, "seconds": 3600},
        {"model": "affine", "rate": 1, "rows": 9},
    ],
)
def test_more_than_the_limits_is_refused(server: RunningServer, load: dict[str, object]) -> None:
    assert ask(server, "POST", LOAD, load) == 400


def test_a_server_without_the_page_makes_no_load(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--ui=false", model_repository=write_models(tmp_path / "models"))
    for verb in ("GET", "POST", "DELETE"):
        assert http_status(server.http_url + LOAD, verb) == 404
    assert 'protocol="http"' in read_url(server.metrics_url)
    assert 'protocol="playground"' not in read_url(server.metrics_url)


def test_a_policy_decides_who_may_offer_load_to_which_model(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(POLICY)
    server = start_server(
        f"--auth-policy={tmp_path / 'policy.toml'}", model_repository=write_models(tmp_path / "models")
    )
    affine, other = ({"model": model, "rate": 1, "seconds": 1} for model in ("affine", "held"))
    assert ask(server, "POST", LOAD, affine) == 401
    assert ask(server, "POST", LOAD, affine, ALICE)["running"] is True
    assert ask(server, "POST", LOAD, other, ALICE) == 403
    assert ask(server, "POST", LOAD, affine, BOB) == 403
    assert ask(server, "GET", "/v2/models/affine/live", token=ALICE) == 403


def test_a_server_that_stops_ends_the_load_and_answers_what_it_sent(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(model_repository=write_models(tmp_path / "models"))
    begin(server, "held", 50)
    wait_for_pending(server.metrics_url, "held", 3)
    begin(server, "affine", 5000)
    wait_until(lambda: ask(server, "GET", LOAD)["answered"] >= 100, PATIENCE_SECONDS)
    assert server.terminate() == 0
    (line,) = [line for line in server.log.read_text().splitlines() if "ledger: playground: " in line]
    assert re.search(r"received = answered \d+(, queue_full \d+)?, abandoned 0, in progress 0$", line), line
