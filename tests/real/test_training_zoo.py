"""Networks of each family, exported with random weights as the command does it, served, and asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
import pytest

from tests.real.clients import Client
from tests.real.conftest import start
from training import nets
from training.weights import export_weights

NETWORKS = ("neocognitron", "lstm_rows", "letters26", "convnetjs_cifar10", "resnet20", "resnet18")
"""Big ones are for `python -m training check-zoo`: see training/LOG.md."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    for name in NETWORKS:
        # Refuses if ONNX Runtime and torch differ by more than 1e-4 of the answer.
        export_weights(name, None, seed=0, labels=None, repository=folder, name=None, version=None)
    return folder


@pytest.fixture(scope="module")
def client(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    server = start(tmp_path_factory.mktemp("server"), model_repository=repository)
    try:
        with grpc.insecure_channel(server.grpc_address) as channel:
            yield Client(channel)
    finally:
        assert server.terminate() == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_an_exported_network_is_served_as_onnx_runtime_computes_it(name: str, repository: Path, client: Client) -> None:
    x = np.random.default_rng(0).random((3, *nets.NETWORKS[name].input_shape), dtype=np.float32)
    session = onnxruntime.InferenceSession(repository / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    answer = client.infer(name, {"input": x})["probabilities"]
    assert answer.shape == (3, nets.NETWORKS[name].classes)
    np.testing.assert_allclose(answer, session.run(None, {"input": x})[0], rtol=0, atol=1e-5)
