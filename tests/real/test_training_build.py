"""One command from files to answers: `tools/model.py`, which is `make model`, with CIFAR-10 as tiny as it can be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
import pytest

from tests import tiny_data_sets
from tests.real.clients import Client
from tests.real.conftest import ROOT, START_SECONDS, STOP_SECONDS
from tests.real.waiting import wait_until
from tests.tiny_training import torch_as_before
from training.__main__ import main

RECIPE = "convnetjs_cifar10"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `data`, and once the command has run `run` and `models`."""
    path = tmp_path_factory.mktemp("build")
    tiny_data_sets.write(RECIPE, path / "data")
    return path


def arguments(folder: Path) -> list[str]:
    where = [f"--data-dir={folder / 'data'}", f"--run-dir={folder / 'run'}", f"--repository={folder / 'models'}"]
    return [RECIPE, "--epochs=1", "--device=cpu", *where]


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[str]:
    """The gRPC address of what the command has made and serves."""
    ports_file, log = folder / "ports.json", folder / "log"
    loopback = [f"--{server}-address=127.0.0.1" for server in ("grpc", "http", "metrics")]
    free = [f"--{server}-port=0" for server in ("grpc", "http", "metrics")]
    command = [sys.executable, "tools/model.py", *arguments(folder), "--", *loopback, *free]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, f"--ports-file={ports_file}"], cwd=ROOT, stdout=output, stderr=output)
    try:
        wait_until(lambda: ports_file.exists() or process.poll() is not None, 3 * START_SECONDS)
        assert process.poll() is None, log.read_text()
        yield f"127.0.0.1:{json.loads(ports_file.read_text())['grpc']}"
        process.terminate()
        assert process.wait(STOP_SECONDS) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def build_again(folder: Path) -> None:
    with torch_as_before():
        assert main(["build", *arguments(folder)]) == 0


def test_the_model_is_trained_evaluated_exported_and_answers_over_grpc(served: str, folder: Path) -> None:
    said = (folder / "log").read_text()
    assert said.index("epoch 1/1") < said.index("of 10 held-out examples right") < said.index("ONNX Runtime agrees")
    images = np.random.default_rng(0).random((3, 3, 32, 32), np.float32)
    with grpc.insecure_channel(served) as channel:
        answer = Client(channel).infer(RECIPE, {"input": images})["probabilities"]
    session = onnxruntime.InferenceSession(
        folder / "models" / RECIPE / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    np.testing.assert_allclose(answer, session.run(None, {"input": images})[0], rtol=0, atol=1e-5)
    assert (folder / "models" / RECIPE / "labels.txt").read_text().split()[0] == "airplane"


def test_what_is_done_is_not_done_again(served: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "run" / "metrics.json").unlink()  # as if it was killed while it wrote its results
    build_again(folder)
    said = capsys.readouterr().out
    assert "epoch 1/1" not in said and "exported already" in said
    assert (folder / "run" / "metrics.json").exists()
    build_again(folder)
    assert "trained already" in capsys.readouterr().out
    assert sorted(path.name for path in (folder / "models" / RECIPE).iterdir() if path.is_dir()) == ["1"]


def test_another_plan_than_the_run_has_is_refused(
    served: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with torch_as_before():
        assert main(["build", *arguments(folder), "--seed=1"]) == 1
    assert "was started with seed 0, not 1" in capsys.readouterr().err


def test_what_fails_before_there_is_a_model_is_not_served() -> None:
    command = [sys.executable, "tools/model.py", "lenet6"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert done.stderr.startswith("training: There is no recipe named 'lenet6'.")
