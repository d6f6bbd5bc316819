"""The page of what batches cost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.frontends.rest.cost import cost_routes
from server.models.lifecycle import State
from server.models.model import LoadedVersion
from server.models.registry import Registry
from server.scheduling.costs import CostTable
from tests.fakes import PuppetClock, PuppetSession, fp32
from tests.unit.http_peer import Answer, Peer
from tests.unit.loaded import batching_config, doubled_and_negated, run


def loaded(version: int) -> LoadedVersion:
    costs = CostTable((1, 2, 4, 8))
    costs.profile(1, 61.04e-6)
    costs.profile(1, 80e-6)
    costs.profile(2, 100e-6 * version)
    session = PuppetSession([fp32("x", -1, -1)], [fp32("y", -1, -1), fp32("z", -1, -1)], doubled_and_negated)
    return LoadedVersion(batching_config(instances=2), version, [session] * 2, PuppetClock(), costs=costs)


def get(path: str, method: str = "GET", loading: bool = False) -> tuple[int, Any]:
    """Status and content of a page of a server with versions 1 and 2 of model 'm', and maybe a third."""
    answers: list[Answer] = []

    async def main() -> None:
        registry = Registry()
        for version in (1, 2):
            registry.set_state("m", version, State.LOADING)
            registry.set_ready("m", loaded(version))
        if loading:
            registry.set_state("m", 3, State.LOADING)
        answers.append(Peer(cost_routes(registry)).ask(method, path))
        await asyncio.gather(*(version.drain() for version in registry.loaded()))

    run(main)
    return answers[0].status, answers[0].json


def test_the_latest_version_is_shown_line_by_line() -> None:
    assert get("/v2/models/m/cost") == (
        200,
        {
            "model_name": "m",
            "model_version": "2",
            "max_batch_size": 8,
            "objective_ms": None,
            "instances": 2,
            "buckets": [
                {"rows": 1, "p50_us": 61.0, "p99_us": 80.0, "runs": 2},
                {"rows": 2, "p50_us": 200.0, "p99_us": 200.0, "runs": 1},
            ],
        },
    )


def test_a_version_can_be_named() -> None:
    status, page = get("/v2/models/m/versions/1/cost")
    assert (status, page["model_version"], page["buckets"][1]["p50_us"]) == (200, "1", 100.0)


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v2/models/nobody/cost", 404, "Request for unknown model: 'nobody' is not found"),
        ("/v2/models/m/versions/7/cost", 404, "version 7 is not found"),
        ("/v2/models/m/versions/3/cost", 503, "version 3 is not at ready state"),
        ("/v2/models/m/versions/x/cost", 400, "not a number"),
        ("/v2/models/m/cost/more", 404, "no route /v2/models/m/cost/more"),
    ],
)
def test_what_has_no_table_says_why(path: str, status: int, error: str) -> None:
    got, page = get(path, loading=True)
    assert got == status
    assert error in page["error"]


def test_a_table_can_only_be_read() -> None:
    assert get("/v2/models/m/cost", "POST") == (405, {"error": "/v2/models/m/cost takes GET, HEAD, not POST"})
