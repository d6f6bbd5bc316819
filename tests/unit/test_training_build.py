"""When a run counts as exported: any doubt means that it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.__main__ import main
from training.build import exported, remember


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose export is version 1 of `model`."""
    folder = tmp_path / "run"
    put(folder / "checkpoint.pt", "weights")
    put(tmp_path / "model" / "1" / "model.onnx", "graph")
    remember(folder, tmp_path / "model" / "1")
    return folder


def put(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_an_export_that_nothing_happened_to_is_the_run_s(run: Path, tmp_path: Path) -> None:
    assert exported(run, tmp_path / "model") == tmp_path / "model" / "1"


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("run/checkpoint.pt", "weights of another training"),
        ("model/1/model.onnx", "somebody else's graph"),
        ("model/2/model.onnx", "graph"),
        ("run/exported.json", "{"),
    ],
)
def test_a_change_of_either_end_or_a_newer_version_makes_it_another(
    run: Path, tmp_path: Path, path: str, content: str
) -> None:
    put(tmp_path / path, content)
    assert exported(run, tmp_path / "model") is None


def test_a_name_that_no_model_can_have_is_refused_before_there_is_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "lenet5", "--name", "my/model", "--run-dir", str(tmp_path / "run")]) == 1
    assert "'my/model' cannot be a model's name" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_is_gone_elsewhere_or_never_was_is_not_exported(run: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "1" / "model.onnx", "graph")
    assert exported(run, tmp_path / "elsewhere") is None
    (tmp_path / "model" / "1" / "model.onnx").unlink()
    assert exported(run, tmp_path / "model") is None
    (run / "exported.json").unlink()
    assert exported(run, tmp_path / "elsewhere") is None
    assert exported(run, tmp_path / "nowhere") is None
