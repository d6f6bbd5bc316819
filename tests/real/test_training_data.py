"""Published files from the command line: trained on, evaluated, exported; and what is said without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_training_idx import write_mnist
from training.__main__ import main


def test_a_recipe_on_published_files_is_trained_evaluated_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir, run, repository = tmp_path / "mnist", tmp_path / "run", tmp_path / "repository"
    data_dir.mkdir()
    write_mnist(data_dir)
    arguments = ["--data-dir", str(data_dir)]
    assert main(["train", "mnist", "--epochs", "1", "--device", "cpu", "--run-dir", str(run), *arguments]) == 0
    assert "of 20 held-out examples right" in capsys.readouterr().out
    assert main(["evaluate", str(run)]) == 0
    assert main(["export", str(run), "--repository", str(repository), *arguments]) == 0
    card = (repository / "mnist" / "README.md").read_text()
    assert "python -m training train mnist --seed 0 --epochs 1 --data-dir DIR" in card
    assert main(["train", "mnist", "--run-dir", str(tmp_path / "other")]) == 1
    assert "mnist32 is read from a folder: --data-dir DIR" in capsys.readouterr().err
