"""A latency objective over real sockets: a model that takes some 50 ms a request, and far more requests than it serves.

The model's batches are single rows, so that one answer is enough for its costs to be known.
"""

from __future__ import annotations

import queue
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from server.scheduling.costs import ENOUGH
from tests import onnx_models
from tests.real.clients import Client, metric, wait_for_running
from tests.real.conftest import RunningServer, StartServer, connect
from tests.real.test_queueing import slow_rows
from tests.repositories import add_model

ROUNDS = 4_000
"""About 50 ms of `slow` on one core."""
OBJECTIVE_MS = 400
PRIMING = ENOUGH + 4
"""Requests until what it was measured with before it was ready, zeros, which take no time, is forgotten and no plan
remembers it."""
FLOOD = 60
"""Requests at once: some seconds of work."""


def start_slow(start: StartServer, folder: Path, *flags: str) -> RunningServer:
    """A server whose model 'slow' has answered some requests."""
    config = f'max_batch_size: 1 parameters {{ key: "slo_ms" value {{ string_value: "{OBJECTIVE_MS}" }} }}'
    add_model(folder, "slow", onnx_models.slow(), config)
    server = start(*flags, model_repository=folder)
    with connect(server) as channel:
        for _ in range(PRIMING):
            Client(channel).infer("slow", slow_rows(0, ROUNDS))
    return server


def flood(server: RunningServer) -> list[grpc.Future]:
    """All calls of a flood, when they have ended."""
    with connect(server) as channel:
        client = Client(channel)
        calls = [client.start_infer("slow", slow_rows(i, ROUNDS), id=str(i)) for i in range(FLOOD)]
        for call in calls:
            call.exception()
        return calls


def count(server: RunningServer, name: str, **labels: str) -> float:
    return metric(server.metrics_url, name, model="slow", **labels)


@pytest.mark.parametrize(
    ("flags", "statuses"),
    [
        ((), {"overloaded": grpc.StatusCode.UNAVAILABLE, "objective_missed": grpc.StatusCode.UNAVAILABLE}),
        (
            ("--distinct-overload-statuses=true",),
            {"overloaded": grpc.StatusCode.RESOURCE_EXHAUSTED, "objective_missed": grpc.StatusCode.DEADLINE_EXCEEDED},
        ),
    ],
    ids=["as Triton", "distinct"],
)
def test_what_cannot_be_in_time_is_refused_with_a_reason_and_when_to_come_again(
    flags: tuple[str, ...], statuses: dict[str, grpc.StatusCode], start_engine: StartServer, tmp_path: Path
) -> None:
    server = start_slow(start_engine, tmp_path, *flags)
    calls = flood(server)

    reasons = Counter(
        "answered" if call.exception() is None else dict(call.trailing_metadata())["convoy-reason"] for call in calls
    )
    assert reasons["answered"] >= 1
    assert reasons["overloaded"] >= FLOOD / 2
    assert reasons.keys() <= {"answered", *statuses}
    for call in calls:
        if call.exception() is None:
            continue
        metadata = dict(call.trailing_metadata())
        assert call.code() is statuses[metadata["convoy-reason"]]
        assert f"its objective of {OBJECTIVE_MS} ms" in call.details()
        assert ("grpc-retry-pushback-ms" in metadata) is (metadata["convoy-reason"] == "overloaded")
        assert 1 <= int(metadata.get("grpc-retry-pushback-ms", "1")) < 60_000
    for reason, code in (("overloaded", "overloaded"), ("too_late", "objective_missed")):
        assert count(server, "convoy_request_failed_total", reason=reason) == reasons[code]
    met, missed = count(server, "convoy_objective_met_total"), count(server, "convoy_objective_missed_total")
    assert met + missed == PRIMING + reasons["answered"]
    assert count(server, "convoy_deadline_met_total") == met
    assert count(server, "convoy_deadline_missed_total") == PRIMING + FLOOD - met


def test_after_a_flood_everybody_is_served_again(start_engine: StartServer, tmp_path: Path) -> None:
    server = start_slow(start_engine, tmp_path)
    flood(server)
    wait_for_running(server.metrics_url, "slow", 0)

    with connect(server) as channel:
        assert Client(channel).infer("slow", slow_rows(7, ROUNDS))["y"].item() == 7


def test_tritons_client_is_told_too(start_engine: StartServer, tmp_path: Path) -> None:
    server = start_slow(start_engine, tmp_path)
    results: queue.SimpleQueue[InferenceServerException | None] = queue.SimpleQueue()
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        inputs = []
        for name, array in slow_rows(1, ROUNDS).items():
            inputs.append(tritonclient.grpc.InferInput(name, array.shape, "FP32" if name == "x" else "INT64"))
            inputs[-1].set_data_from_numpy(np.ascontiguousarray(array))
        for _ in range(FLOOD):
            client.async_infer("slow", inputs, lambda result, error: results.put(error))
        errors = [results.get(timeout=30) for _ in range(FLOOD)]

    refusals = [error for error in errors if error is not None]
    assert FLOOD / 2 <= len(refusals) < FLOOD
    assert {error.status() for error in refusals} == {"StatusCode.UNAVAILABLE"}
    assert all(f"its objective of {OBJECTIVE_MS} ms" in error.message() for error in refusals)
