"""Runs that fail, over real sockets and with ONNX Runtime: only the guilty hear of it, and the version stays up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from proto import grpc_service_pb2 as pb
from tests.real.clients import (
    Client,
    answer_of,
    infer_request,
    metric,
    refusal_of,
    wait_for_pending,
)
from tests.real.test_queueing import rows

if TYPE_CHECKING:
    from tests.real.conftest import RunningServer


def column(*numbers: float) -> dict[str, np.ndarray]:
    return {"x": np.array([[number, 1] for number in numbers], np.float32)}


def test_a_request_that_gives_nan_fails_alone(zoo: RunningServer, client: Client) -> None:
    good = [client.start_infer("held_root", column(x * x)) for x in range(6)]
    wait_for_pending(zoo.metrics_url, "held_root", 6)
    bad = refusal_of(client.start_infer("held_root", column(4, -1)))

    assert bad.status is grpc.StatusCode.INTERNAL
    assert bad.message == "model 'held_root' version 1 gave NaN for output 'y', row 1 of the request"
    assert [answer_of(call)["y"].tolist() for call in good] == [[[x, 1]] for x in range(6)]


def test_without_the_parameter_nan_is_an_answer(client: Client) -> None:
    assert np.isnan(client.infer("honest_root", column(-1))["y"][0, 0])


@pytest.mark.parametrize(
    ("datatype", "number", "nan"), [("FP16", 0x7C00, 0xFE00), ("BF16", 0xFF80, 0x7F81), ("FP64", np.inf, np.nan)]
)
def test_nan_is_seen_in_every_datatype_that_has_it(datatype: str, number: float, nan: float, client: Client) -> None:
    def call(content: float) -> grpc.Future:
        request = pb.ModelInferRequest(model_name=f"no_nan_{datatype.lower()}")
        request.inputs.add(name="x", datatype=datatype, shape=[1, 1])
        request.raw_input_contents.append(np.array(content, "<f8" if datatype == "FP64" else "<u2").tobytes())
        return client.start("ModelInfer", request)

    assert pb.ModelInferResponse.FromString(call(number).result()).outputs
    assert refusal_of(call(nan)).status is grpc.StatusCode.INTERNAL


def test_one_clients_bad_requests_take_a_model_down_for_nobody(zoo: RunningServer, client: Client) -> None:
    for start in range(0, 100, 10):
        bad = [client.start_infer("crowd_lookup", rows(99)) for _ in range(10)]
        assert {refusal_of(call).status for call in bad} == {grpc.StatusCode.INTERNAL}
        if start in (0, 90):
            assert client.infer("crowd_lookup", rows(3))["y"].item() == 30
    assert client.call("ModelReady", pb.ModelReadyRequest(name="crowd_lookup")).ready
    assert metric(zoo.metrics_url, "convoy_failed_runs_total", model="crowd_lookup") >= 100
    assert metric(zoo.metrics_url, "convoy_model_reloads_total", model="crowd_lookup") == 0


def test_a_batch_without_memory_is_answered_in_smaller_ones_and_stays_smaller(
    zoo: RunningServer, client: Client
) -> None:
    def x(number: float) -> dict[str, np.ndarray]:
        return {"x": np.array([[number]], np.float32)}

    calls = [client.start_infer("held_hungry", x(n)) for n in range(8)]
    assert [answer_of(call)["y"].item() for call in calls] == list(range(8))
    assert client.batches("held_hungry") == {2: 4}
    assert metric(zoo.metrics_url, "convoy_max_batch_rows", model="held_hungry") == 2
    assert "'held_hungry' version 1 ran out of memory with a batch of 4 rows" in zoo.log.read_text()

    calls = [client.start_infer("held_hungry", x(n)) for n in range(2)]  # a full batch now
    assert [answer_of(call)["y"].item() for call in calls] == [0, 1]

    refusal = client.refusal("ModelInfer", infer_request("held_hungry", {"x": np.ones((3, 1), np.float32)}))
    assert refusal.status is grpc.StatusCode.UNAVAILABLE
    assert "model 'held_hungry' version 1 failed to run: it found no memory: " in refusal.message
