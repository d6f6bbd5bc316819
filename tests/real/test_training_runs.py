"""`python -m training` as its users have it: a run, a kill in the middle of one, an export for ONNX Runtime."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from tests.tiny_training import leaves, torch_as_before
from training import digits
from training.__main__ import main

ROOT = Path(__file__).parents[2]
EPOCHS = 8
PNG = b"\x89PNG\r\n"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "training", *map(str, arguments)]


def run(*arguments: object) -> str:
    """In a process of its own."""
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def run_here(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """In this process, which has imported torch. One of its own does the same in `test_training_build.py`."""
    with torch_as_before():
        assert main([*map(str, arguments)]) == 0
    return capsys.readouterr().out


def train(folder: Path, *more: str) -> list[str]:
    return [
        "train",
        "lenet5",
        "--epochs",
        str(EPOCHS),
        "--seed",
        "5",
        "--device",
        "cpu",
        "--run-dir",
        str(folder),
        *more,
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert f"epoch {EPOCHS}/{EPOCHS}" in run(*train(folder))
    return folder


def weights(folder: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return checkpoint


def test_a_run_leaves_its_figures_and_pictures(finished: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == [
        "checkpoint.pt",
        "config.json",
        "confusion_matrix.png",
        "feature_maps.png",
        "filters.png",
        "learning_curve.png",
        "metrics.json",
    ]
    assert all(path.read_bytes().startswith(PNG) for path in finished.glob("*.png"))
    metrics = json.loads((finished / "metrics.json").read_text())
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == list(range(1, EPOCHS + 1))
    final = metrics["final"]
    assert final["held_out_accuracy"] == final["held_out_right"] / 360 == metrics["epochs"][-1]["held_out_accuracy"]
    assert final["parameters"] == 60_000
    assert final["held_out_accuracy"] > 0.8
    config = json.loads((finished / "config.json").read_text())
    assert (config["recipe"]["name"], config["seed"], config["epochs"]) == ("lenet5", 5, EPOCHS)


def test_evaluate_tells_what_the_run_told(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = json.loads((finished / "metrics.json").read_text())["final"]["held_out_right"]
    said = run_here(capsys, "evaluate", finished)
    assert f"{right} of 360 held-out examples right" in said
    assert sum(int(times) for times in re.findall(r"^(\d+) × ", said, re.MULTILINE)) == 360 - right


def test_a_killed_run_resumes_to_the_same_bits(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    with subprocess.Popen(command(*train(folder)), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("epoch 2/") for line in process.stdout)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert 2 <= len(weights(folder)["history"]) < EPOCHS
    assert not (folder / "metrics.json").exists()

    said = run(*train(folder, "--resume"))
    assert "epoch 1/" not in said
    resumed, undisturbed = weights(folder), weights(finished)
    for part in ("network", "optimizer"):
        assert leaves(resumed[part]) == leaves(undisturbed[part])
    assert torch.equal(resumed["generator"], undisturbed["generator"])
    assert [epoch["loss"] for epoch in resumed["history"]] == [epoch["loss"] for epoch in undisturbed["history"]]


def test_export_writes_a_model_that_answers_as_the_run_did(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--repository", tmp_path / "repository", "--name", "mine", "--version", "3")
    said = run_here(capsys, "export", finished, *where)
    worst = re.search(r"worst difference (\S+) \(batch \d+, \w+ inputs\)", said)
    assert worst is not None
    assert float(worst[1]) <= 1e-5
    model = tmp_path / "repository" / "mine"
    assert sorted(os.listdir(tmp_path / "repository")) == ["mine"]
    assert sorted(os.listdir(model)) == ["3", "README.md", "config.pbtxt", "labels.txt"]

    held_out = digits.held_out_digits()
    inputs = digits.to_input(held_out.images)
    session = onnxruntime.InferenceSession(model / "3" / "model.onnx", providers=["CPUExecutionProvider"])
    together = session.run(["probabilities"], {"input": inputs})[0]
    alone = np.concatenate([session.run(["probabilities"], {"input": one[np.newaxis]})[0] for one in inputs])
    assert together.shape == (360, 10)
    assert np.abs(together - alone).max() <= 1e-5
    right = json.loads((finished / "metrics.json").read_text())["final"]["held_out_right"]
    assert (together.argmax(axis=1) == held_out.labels).sum() == right
