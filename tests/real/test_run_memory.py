"""`--run-memory-limit`: a graph that makes tensors of any size out of a number harms nobody else."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from server.backends.run_memory import IDENTITY
from tests.real.clients import Client, infer_request
from tests.real.conftest import RunningServer, connect, start
from tests.real.test_bombs import peak
from tests.repositories import add_model

MIB = 1 << 20
LIMIT = 64 * MIB
ELSE = 96 * MIB
"""Bytes that a server may take beside what is limited: libraries that are loaded later, the allocator."""


def sum_of_zeros() -> ModelProto:
    """n to the sum of n zeros, FP32."""
    nodes = [
        helper.make_node("ConstantOfShape", ["n"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=1),
    ]
    number = helper.make_tensor_value_info("n", TensorProto.INT64, (1,))
    total = helper.make_tensor_value_info("sum", TensorProto.FLOAT, (1,))
    graph = helper.make_graph(nodes, "sum_of_zeros", [number], [total])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root = tmp_path_factory.mktemp("run_memory")
    add_model(root, "sums", sum_of_zeros())
    add_model(root, "no_arena", sum_of_zeros(), 'parameters { key: "enable_mem_arena" value { string_value: "0" } }')
    server = start(tmp_path_factory.mktemp("server"), f"--run-memory-limit={LIMIT}", model_repository=root)
    yield server
    assert server.terminate() == 0, server.log.read_text()


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with connect(server) as channel:
        yield Client(channel)


def infer(client: Client, model: str, size_bytes: int) -> float:
    (total,) = client.infer(model, {"n": np.array([size_bytes // 4], np.int64)})["sum"]
    return float(total)


@pytest.mark.parametrize("model", ["sums", "no_arena"])
def test_a_run_that_asks_for_more_is_refused_and_takes_nothing(
    server: RunningServer, client: Client, model: str
) -> None:
    assert infer(client, model, MIB) == 0
    before = peak(server)
    refused = client.refusal("ModelInfer", infer_request(model, {"n": np.array([1 << 34], np.int64)}))
    assert refused.status is grpc.StatusCode.UNAVAILABLE
    assert "Available memory" in refused.message
    assert peak(server) < before + ELSE
    assert infer(client, model, MIB) == 0


def test_what_small_runs_have_left_behind_is_given_to_a_large_one(client: Client) -> None:
    """Each is larger than what was kept of those before it, so that the arena is full of pieces."""
    for size in (5, 7, 11, 13):
        assert infer(client, "sums", size * MIB) == 0
    assert infer(client, "sums", 60 * MIB) == 0


def test_the_model_that_shrinks_the_arena_is_one() -> None:
    onnx.checker.check_model(onnx.load_from_string(IDENTITY), full_check=True)
