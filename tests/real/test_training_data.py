"""Published files from the command line: trained on, evaluated, exported; and what is said without them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests import tiny_data_sets
from tests.tiny_training import torch_as_before
from training import losses, nets, optim
from training.__main__ import main
from training.data import DATA_SETS
from training.recipes import RECIPES

PLOTS = {"confusion_matrix.png", "feature_maps.png", "filters.png", "learning_curve.png"}


def run(*arguments: object) -> int:
    with torch_as_before():
        return main([*map(str, arguments)])


@pytest.mark.parametrize("recipe", sorted(tiny_data_sets.WRITERS.keys() - {"mnist"}))
def test_a_recipe_is_trained_and_evaluated_on_files_as_published(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_and_evaluate(recipe, tmp_path, capsys)
    assert {path.name for path in (tmp_path / "run").glob("*.png")} == PLOTS


def test_a_run_on_published_files_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_and_evaluate("mnist", tmp_path, capsys)
    assert run("export", tmp_path / "run", "--repository", tmp_path / "models", "--data-dir", tmp_path / "data") == 0
    card = (tmp_path / "models" / "mnist" / "README.md").read_text()
    assert "python -m training train mnist --seed 0 --epochs 1 --data-dir DIR" in card


@pytest.mark.parametrize("recipe", ["imagenet_resnet50", "imagenet_alexnet", "imagenet_vgg16"])
def test_a_recipe_for_imagenet_makes_a_step_of_its_pictures_but_for_the_numbers(recipe: str, tmp_path: Path) -> None:
    row = RECIPES[recipe]
    data = DATA_SETS[row.data].open(tiny_data_sets.write("folder224", tmp_path / "data"))
    order = torch.tensor([0, len(data.labels) - 1])
    with torch_as_before():
        torch.manual_seed(0)
        images, labels = next(iter(data.batches(order, 2, row.augmentation, 0.0)))
        with torch.device("meta"):  # shapes only: with numbers it is a matter of seconds and of 2 GB
            network = nets.build(row.network, len(data.names)).train()
    optimizer = optim.optimizer(row, network)
    scores = network(images.to("meta"))
    losses.loss(row)(scores, labels.to("meta")).backward()
    optimizer.step()
    assert images.shape == (2, 3, 224, 224) and labels.tolist() == [0, 1] and images.std() > 0.1
    assert scores.shape == (2, 2)
    assert all("momentum_buffer" in optimizer.state[parameter] for parameter in network.parameters())


def test_a_folder_whose_classes_have_changed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_and_evaluate("folder32", tmp_path, capsys)
    data_dir, run_dir = tmp_path / "data", tmp_path / "run"
    (data_dir / "boat").rename(data_dir / "zebra")
    again = ("train", "folder32", "--epochs", 1, "--device", "cpu", "--data-dir", data_dir, "--run-dir", run_dir)
    for command in (("evaluate", run_dir), ("export", run_dir), (*again, "--resume")):
        assert run(*command) == 1
        assert "learnt the classes boat, plane, and the data has plane, zebra" in capsys.readouterr().err


def test_a_recipe_of_published_files_says_that_it_needs_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "mnist", "--run-dir", tmp_path / "run") == 1
    assert "mnist32 is read from a folder: --data-dir DIR" in capsys.readouterr().err


def train_and_evaluate(recipe: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One epoch into `folder/run`; evaluation says what training said."""
    data_dir, run_dir = tiny_data_sets.write(recipe, folder / "data"), folder / "run"
    assert run("train", recipe, "--epochs", 1, "--device", "cpu", "--run-dir", run_dir, "--data-dir", data_dir) == 0
    trained = re.search(r"\d+ of \d+ held-out examples right", capsys.readouterr().out)
    assert run("evaluate", run_dir) == 0
    assert trained is not None and trained[0] in capsys.readouterr().out
