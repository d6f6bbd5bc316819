"""The model card: one set of facts, as JSON and as text."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from training.export.card import Agreement, Card, DataNote, Exported, File, Score, Timing, Training, read_card
from training.export.card_text import describe_mistakes, render
from training.export.measure import Latency
from training.export.repository import Port
from training.files import TrainingError

CARD = Card(
    name="m",
    version=3,
    task="Signs → letters.",
    network="lenet5",
    parameters=60_000,
    labels=("a", "b"),
    training=Training("lenet5", 7, 20, "cpu"),
    weights="",
    accuracy=Score(3, 4),
    float32_accuracy=Score(4, 4),
    confusion=((2, 0), (1, 1)),
    agreement=(Agreement("float32", 1.5e-6, 64, "random", 1e-5),),
    calibration_pictures=512,
    file=File(20_000, "int8", 20, 60_000),
    exported=Exported("2026-01-02", {"torch": "2.13.0"}),
    input=Port("input", "TYPE_FP32", (1, 32, 32), "FORMAT_NCHW"),
    output=Port("probabilities", "TYPE_FP32", (2,)),
    preparation="Dark on light.",
    latency=Timing("1 thread of a machine", "1.32.0", "2026-01-02", {"int8": (Latency(1, 0.05), Latency(8, 0.31))}),
    data=DataNote("Where from.", "Free.", "Half and half."),
    again=("python -m training train lenet5", "python -m training export runs/lenet5 --int8"),
)
ELSEWHERE = dataclasses.replace(
    CARD,
    labels=(),
    training=None,
    weights="`file.pth`",
    accuracy=None,
    float32_accuracy=None,
    confusion=None,
    calibration_pictures=None,
    file=File(60_000, "float32", 20, 60_000),
    data=None,
)


@pytest.mark.parametrize("card", [CARD, ELSEWHERE])
def test_json_keeps_every_fact(card: Card) -> None:
    assert Card.from_json(card.to_json()) == card


def test_json_has_a_line_for_each_fact() -> None:
    lines = CARD.to_json().decode().splitlines()
    assert len(lines) == len(dataclasses.fields(Card)) + 2
    assert '"task": "Signs → letters.",' in lines
    assert json.loads(CARD.to_json())["latency"]["medians"] == {
        "int8": [{"batch": 1, "milliseconds": 0.05}, {"batch": 8, "milliseconds": 0.31}]
    }


def test_the_text_says_what_is_known() -> None:
    text = render(CARD)
    for said in (
        "| held-out accuracy | 75.00% (3 of 4), of this ONNX file in ONNX Runtime; 100.00% (4 of 4) in float32 |",
        "| ONNX Runtime against torch | worst difference 1.5e-06 (batch 64, random inputs), as a part of",
        "| calibration | on 512 pictures of the training data, undistorted |",
        "| training | recipe `lenet5`, seed 7, 20 epochs, on cpu |",
        "| file | version 3, 20 kB in int8 (60 kB in float32), opset 20 |",
        "`input` float32 (batch, 1, 32, 32) → `probabilities` float32 (batch, 2), in the order of `labels.txt`.",
        "| int8, ms | 0.05 | 0.31 |",
    ):
        assert said in text


def test_a_card_leaves_out_what_it_has_nothing_to_say_on() -> None:
    text = render(ELSEWHERE)
    for unsaid in ("accuracy", "calibration", "| training", "## Mistakes", "in float32)", "Licence"):
        assert unsaid not in text
    for said in ("| weights | `file.pth` |", "no data came with the weights", "in the order of the weights"):
        assert said in text


def test_the_card_names_what_is_confused_most() -> None:
    confusion = np.diag([10, 10, 10, 10])
    for truth, answer, times in ((0, 1, 4), (1, 0, 1), (2, 0, 2), (2, 1, 1), (2, 3, 1), (3, 0, 1)):
        confusion[truth, answer] += times
        confusion[truth, truth] -= times
    said = describe_mistakes(confusion.tolist(), ("a", "b", "c", "d"))
    assert "recognised: a 60.0% (6 of 10), c 60.0% (6 of 10), b 90.0% (9 of 10)." in said
    assert said.count("\n- ") == 6 and "- 4 × a taken for b\n- 2 × c taken for a\n" in said
    assert said.endswith("- and 1 other kinds")
    assert describe_mistakes([[3, 0], [0, 3]], ("a", "b")) == ""


@pytest.mark.parametrize(("text", "sentence"), [(None, "cannot be read: No such file"), ("{}", "is no card as export")])
def test_what_is_no_card_is_named(text: str | None, sentence: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "card.json").write_text(text)
    with pytest.raises(TrainingError, match=f"card.json {sentence}"):
        read_card(tmp_path)
