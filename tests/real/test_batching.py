"""Requests that share batches: who runs with whom, that every answer is right for its own request, and exact counts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import onnxruntime
import pytest

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import (
    SERVICE,
    Client,
    answer_of,
    arrays,
    infer_request,
    metric,
    wait_for_pending,
    wait_for_running,
)
from tests.real.zoo import WINDOW_SECONDS
from tests.repositories import add_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.real.conftest import RunningServer, StartServer

CLIENTS = 64
REQUESTS_EACH = 25


def rows(*values: int) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.array(values, np.int64).reshape(-1, 1)}


def crowd(address: str, requests: Sequence[Sequence[pb.ModelInferRequest]]) -> list[list[pb.ModelInferResponse]]:
    """Each inner list is sent by a client with a connection of its own, one request after another, all at once."""

    async def one(requests: Sequence[pb.ModelInferRequest]) -> list[pb.ModelInferResponse]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            infer = channel.unary_unary(f"{SERVICE}/ModelInfer")
            return [
                pb.ModelInferResponse.FromString(await infer(request.SerializeToString(), timeout=30))
                for request in requests
            ]

    async def everyone() -> list[list[pb.ModelInferResponse]]:
        return await asyncio.gather(*(one(each) for each in requests))

    return asyncio.run(everyone())


@pytest.mark.parametrize("model", ["crowd", "crowd_natural", "crowd_instances"])
def test_64_clients_at_once_get_their_own_answers_and_are_counted_exactly(model: str, zoo: RunningServer) -> None:
    values = np.arange(CLIENTS * REQUESTS_EACH).reshape(CLIENTS, REQUESTS_EACH).tolist()
    answers = crowd(
        zoo.grpc_address,
        [[infer_request(model, rows(value), id=str(value)) for value in mine] for mine in values],
    )

    assert [[int(answer.id) for answer in mine] for mine in answers] == values
    assert [[(arrays(answer)["y"].item() - 1) / 3 for answer in mine] for mine in answers] == values

    sent = CLIENTS * REQUESTS_EACH
    with grpc.insecure_channel(zoo.grpc_address) as channel:
        statistics = Client(channel).statistics(model)
    assert statistics.inference_count == statistics.inference_stats.success.count == sent
    assert statistics.inference_stats.fail.count == 0
    assert sum(batch.compute_infer.count for batch in statistics.batch_stats) == statistics.execution_count
    assert sum(batch.batch_size * batch.compute_infer.count for batch in statistics.batch_stats) == sent
    if model == "crowd":  # whose window makes company likely however fast the machine is, though not on average
        assert max(batch.batch_size for batch in statistics.batch_stats) > 4

    def count(name: str) -> float:
        return metric(zoo.metrics_url, name, model=model)

    assert count("nv_inference_count") == count("nv_inference_request_success") == sent
    assert count("nv_inference_exec_count") == count("nv_inference_batch_size_histogram_count")
    assert count("nv_inference_exec_count") == statistics.execution_count
    assert count("nv_inference_batch_size_histogram_sum") == sent
    for phase in ("request", "queue", "compute_input", "compute_infer", "compute_output"):
        assert count(f"nv_inference_{phase}_duration_histogram_us_count") == sent, phase
    assert count("nv_inference_request_failure") == 0
    assert count("nv_inference_in_flight_request_count") == count("nv_inference_pending_request_count") == 0


def test_requests_of_any_number_of_rows_are_answered_row_by_row(zoo: RunningServer) -> None:
    sizes = np.random.default_rng(7).integers(1, 9, size=(16, 20))
    starts = np.cumsum(sizes).reshape(sizes.shape) - sizes
    answers = crowd(
        zoo.grpc_address,
        [
            [infer_request("crowd", rows(*range(start, start + size))) for start, size in zip(*each, strict=True)]
            for each in zip(starts, sizes, strict=True)
        ],
    )

    for mine, my_starts, my_sizes in zip(answers, starts, sizes, strict=True):
        for answer, start, size in zip(mine, my_starts, my_sizes, strict=True):
            assert arrays(answer)["y"].ravel().tolist() == [3 * x + 1 for x in range(start, start + size)]


def test_a_batch_that_is_full_runs_at_once(client: Client) -> None:
    calls = [client.start_infer("held_mixed_rows", rows(*values)) for values in ((1, 2, 3), (4,), (5, 6, 7, 8))]

    assert [answer_of(call)["y"].ravel().tolist() for call in calls] == [[4, 7, 10], [13], [16, 19, 22, 25]]
    assert client.batches("held_mixed_rows") == {8: 1}


def test_two_requests_well_inside_one_window_share_a_batch(client: Client) -> None:
    calls = [client.start_infer("window", rows(value)) for value in (1, 2)]

    assert [answer_of(call)["y"].item() for call in calls] == [4, 7]
    assert client.batches("window") == {2: 1}


def test_a_lone_request_waits_for_its_window_and_no_longer_than_that(client: Client) -> None:
    assert client.infer("lone", rows(1))["y"].item() == 4

    queue = client.statistics("lone").inference_stats.queue
    assert 0.05 <= queue.ns / 1e9 < 0.05 + WINDOW_SECONDS


def test_a_preferred_size_runs_without_waiting_for_the_window(zoo: RunningServer, client: Client) -> None:
    calls = [client.start_infer("preferred", rows(value)) for value in (1, 2, 3)]
    wait_for_pending(zoo.metrics_url, "preferred", 3)
    calls.append(client.start_infer("preferred", rows(4)))

    assert [answer_of(call)["y"].item() for call in calls] == [4, 7, 10, 13]
    assert client.batches("preferred") == {4: 1}


def test_requests_of_different_shapes_never_share_a_batch(zoo: RunningServer, client: Client) -> None:
    wide, narrow = np.arange(21).reshape(7, 3), np.arange(7).reshape(7, 1)
    calls = [client.start_infer("held_shapes", {"x": x}) for x in (wide, narrow)]
    wait_for_pending(zoo.metrics_url, "held_shapes", 2)
    calls += [client.start_infer("held_shapes", {"x": x[:1]}) for x in (wide, narrow)]

    for call, x in zip(calls, (wide, narrow, wide[:1], narrow[:1]), strict=True):
        assert answer_of(call)["y"].tolist() == (3 * x + 1).tolist()
    assert client.batches("held_shapes") == {8: 2}


def test_requests_for_different_outputs_share_a_batch_and_get_their_own(client: Client) -> None:
    a = np.full((2, 4), 5, np.float32)
    wanted = (["sum"], ["difference"], [], ["difference", "sum"])
    calls = [
        client.start_infer(
            "held_outputs",
            {"a": a, "b": a * index},
            outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names],
        )
        for index, names in enumerate(wanted)
    ]

    answers = [answer_of(call) for call in calls]
    assert [list(answer) for answer in answers] == [
        ["sum"],
        ["difference"],
        ["sum", "difference"],
        ["difference", "sum"],
    ]
    assert answers[0]["sum"].tolist() == (a * 1).tolist()
    assert answers[1]["difference"].tolist() == (a * 0).tolist()
    assert answers[3]["sum"].tolist() == (a * 4).tolist()
    assert answers[3]["difference"].tolist() == (a * -2).tolist()
    assert client.batches("held_outputs") == {8: 1}


def test_without_dynamic_batching_requests_run_one_by_one(client: Client) -> None:
    calls = [client.start_infer("one_by_one", rows(value, value)) for value in range(20)]

    assert [answer_of(call)["y"][1].item() for call in calls] == [3 * value + 1 for value in range(20)]
    assert client.batches("one_by_one") == {2: 20}


def test_a_second_instance_works_while_the_first_is_busy(zoo: RunningServer, client: Client) -> None:
    def slow(value: float, rounds: int) -> dict[str, np.ndarray[Any, Any]]:
        return {"x": np.array([[value]], np.float32), "iterations": np.array([[rounds]])}

    busy = client.start_infer("slow_2", slow(1, 60_000))
    wait_for_running(zoo.metrics_url, "slow_2", 1)
    assert client.infer("slow_2", slow(2, 1))["y"].item() == 2
    assert not busy.done()
    assert answer_of(busy)["y"].item() == 1
    assert client.batches("slow_2") == {1: 2}


def test_answers_are_those_of_onnx_runtime_alone_batched_or_not(start_engine: StartServer, tmp_path: Any) -> None:
    model = onnx_models.mlp()
    add_model(tmp_path, "mlp", model, "max_batch_size: 64 dynamic_batching { max_queue_delay_microseconds: 2000 }")
    server = start_engine(model_repository=tmp_path)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(3)
    inputs = [
        [random.standard_normal((size, 32), np.float32) for size in random.integers(1, 17, size=12)] for _ in range(16)
    ]

    answers = crowd(server.grpc_address, [[infer_request("mlp", {"x": x}) for x in mine] for mine in inputs])
    for mine, my_answers in zip(inputs, answers, strict=True):
        for x, answer in zip(mine, my_answers, strict=True):
            alone = np.concatenate([session.run(["y"], {"x": row[np.newaxis]})[0] for row in x])
            np.testing.assert_allclose(arrays(answer)["y"], alone, rtol=0, atol=1e-5)
