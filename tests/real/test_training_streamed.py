"""The loop on pictures that are read batch by batch: how many workers read them, or a break, changes no bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.tiny_training import RECIPE, Broken, breaking_at, states, torch_as_before
from tests.unit.test_training_folder import SMALL_CROPS, picture
from training import runs
from training.data import DATA_SETS, Streamed
from training.data.sets import IMAGENET
from training.losses import LOSSES
from training.runs import Plan
from training.train import train

STREAMED = dataclasses.replace(
    RECIPE,
    network="convnetjs_cifar10",
    data="streamed",
    loss="breaking",
    augmentation=SMALL_CROPS,
    batch_size=4,
)


def folder_of_pictures(folder: Path) -> Path:
    for side, count in (("train", 5), ("val", 2)):
        for label, name in enumerate(("boat", "plane")):
            for number in range(count):
                picture(folder / side / name / f"{number}.png", 100 * len(side) + 10 * label + number)
    return folder


# An epoch asks for four losses: three batches of the nine that are not set aside, and the one that is.
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_on_streamed_pictures_resumes_to_the_same_bits(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_with(workers: int, name: str, break_at: int, *, resume: bool = False) -> None:
        row = dataclasses.replace(
            DATA_SETS["folder224"], read_folder=lambda folder: Streamed(folder, 32, IMAGENET, workers=workers)
        )
        monkeypatch.setitem(DATA_SETS, "streamed", row)
        monkeypatch.setitem(LOSSES, "breaking", breaking_at(break_at))
        with torch_as_before():
            train(plan, tmp_path / name, resume=resume)

    data_dir = folder_of_pictures(tmp_path / "pictures")
    plan = Plan(STREAMED, seed=0, epochs=2, device="cpu", patience=2, data_dir=str(data_dir))
    train_with(0, "undisturbed", 0)
    with pytest.raises(Broken):
        train_with(workers, "broken", 6)
    assert len(runs.load(tmp_path / "broken").history) == 1
    train_with(workers, "broken", 0, resume=True)
    assert states(tmp_path / "broken") == states(tmp_path / "undisturbed")
