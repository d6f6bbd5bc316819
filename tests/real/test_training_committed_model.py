"""The model that `make serve` serves does what its card says. ONNX Runtime and numpy alone, as where it is served."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnxruntime

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "model_repository" / "lenet5"


def test_the_card_tells_the_truth_and_it_is_good_enough() -> None:
    with np.load(ROOT / "examples" / "digits_held_out.npz") as file:
        pixels = file["upscale"] @ file["images"].astype(np.float32) @ file["upscale"].T
        inputs = (pixels * file["scale"] + file["offset"]).reshape(-1, 1, 32, 32)
        labels = file["labels"]
    session = onnxruntime.InferenceSession(MODEL / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    right = int((session.run(["probabilities"], {"input": inputs})[0].argmax(axis=1) == labels).sum())
    card = (MODEL / "README.md").read_text()
    said = re.search(r"held-out accuracy \| ([\d.]+)% \((\d+) of (\d+)\)", card)
    assert said is not None
    assert (int(said[2]), int(said[3])) == (right, len(labels))
    assert float(said[1]) == round(100 * right / len(labels), 2) >= 98.5
    assert "60,000 trainable parameters" in card


def test_the_folder_holds_what_a_server_needs() -> None:
    files = sorted(str(path.relative_to(MODEL)) for path in MODEL.rglob("*") if path.is_file())
    assert files == ["1/model.onnx", "README.md", "config.pbtxt", "labels.txt"]
    assert (MODEL / "labels.txt").read_text().split() == [str(digit) for digit in range(10)]
    assert (MODEL / "1" / "model.onnx").stat().st_size < 300_000
