"""Published files from the command line: trained on, evaluated, exported; and what is said without them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import tiny_data_sets
from tests.tiny_training import torch_as_before
from training.__main__ import main

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
