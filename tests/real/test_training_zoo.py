"""Networks of each family, exported with random weights as the command does it, served, and asked."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
import pytest

from tests.real.clients import Client
from tests.real.conftest import ROOT, start
from tools.serve_zoo import Served
from training import nets
from training.weights import export_weights

NETWORKS = ("neocognitron", "lstm_rows", "resnet18")
"""Families that no other test serves. Big ones are for `python -m training check-zoo` and `tools/serve_zoo.py`: see
training/LOG.md.
"""


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


def test_the_tool_that_serves_them_all_serves_one() -> None:
    command = [sys.executable, "tools/serve_zoo.py", "letters26"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=280
    )
    assert (done.returncode, done.stderr) == (0, "")
    name, size, _, apart, *_, peak_gb = done.stdout.splitlines()[-1].strip("| ").split(" | ")
    assert (name, size) == ("letters26", "1×28×28")
    assert float(apart) <= 1e-5 and 0.01 < float(peak_gb) < 1


def test_a_network_that_answers_otherwise_or_takes_too_much_memory_falls_short() -> None:
    good = Served("vgg19", graph_mb=575, apart=1e-6, ready_s=1, answer_ms=1, peak_gb=2)
    assert good.shortcoming() is None
    for lacking in (replace(good, apart=2e-4), replace(good, apart=math.nan), replace(good, peak_gb=8.1)):
        assert lacking.shortcoming() is not None
