"""Recipes with pre-training, and the experiment, as their users have them."""

from __future__ import annotations

import dataclasses
import io
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

from tests.tiny_training import torch_as_before
from training import export, nets, runs
from training.data import DATA_SETS
from training.files import TrainingError
from training.pretraining import PRETRAINING
from training.recipes import RECIPES, Recipe
from training.train import train

ROOT = Path(__file__).parents[2]


def seeing_few(patch: pytest.MonkeyPatch, name: str) -> None:
    """Let a data set have 64 pictures to learn from."""
    data_set = DATA_SETS[name]
    whole = data_set.load()
    few = dataclasses.replace(whole, images=whole.images[:64], labels=whole.labels[:64])
    patch.setitem(DATA_SETS, name, dataclasses.replace(data_set, read=lambda: few))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    seeing_few(monkeypatch, "digits")
    for name, row in PRETRAINING.items():
        short = dataclasses.replace(row, schedule=dataclasses.replace(row.schedule, epochs=2))
        monkeypatch.setitem(PRETRAINING, name, short)


@pytest.mark.parametrize(
    "recipe", [recipe for recipe in RECIPES.values() if recipe.pretraining in PRETRAINING], ids=lambda r: r.name
)
def test_pretraining_comes_before_the_first_epoch_and_not_again_when_a_run_goes_on(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = runs.Plan(recipe, seed=0, epochs=2, device="cpu")
    train(plan, tmp_path, resume=False)
    said = capsys.readouterr().out
    assert re.findall(r"layer (\d) of 3: reconstruction error", said) == ["1", "2", "3"]
    assert said.index("layer 3 of 3") < said.index("epoch 1/2") < said.index("epoch 2/2")
    train(plan, tmp_path, resume=True)
    assert "reconstruction error" not in capsys.readouterr().out


def test_a_pretrained_network_is_exported_like_any_other(tmp_path: Path) -> None:
    train(runs.Plan(RECIPES["dbn_digits"], seed=0, epochs=1, device="cpu"), tmp_path / "run", resume=False)
    folder = export.export_run(tmp_path / "run", tmp_path / "repository", None, None)
    assert folder == tmp_path / "repository" / "dbn_digits" / "1"
    assert (folder / "model.onnx").stat().st_size < 600_000
    assert "after pre-training `dbn`" in (folder.parent / "README.md").read_text()


@pytest.fixture(scope="module")
def neocognitron(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run of a neocognitron that saw 64 digits, and what was said in it."""
    said = io.StringIO()
    folder = tmp_path_factory.mktemp("neocognitron")
    with pytest.MonkeyPatch.context() as patch, torch_as_before(), redirect_stdout(said):
        seeing_few(patch, "digits16")
        train(runs.Plan(RECIPES["neocognitron_digits"], seed=0, epochs=5, device="cpu"), folder, resume=False)
    return folder, said.getvalue()


def test_a_neocognitron_learns_without_labels_and_its_last_layer_with_them(neocognitron: tuple[Path, str]) -> None:
    folder, said = neocognitron
    found = dict(re.findall(r"layer (s\d): (\d+) of 24 planes found a feature in 64", said))
    assert set(found) == {"s1", "s2"} and all(int(planes) > 12 for planes in found.values())
    assert said.index("layer s2") < said.index("learned without labels") < said.index("epoch 1/5")
    with torch_as_before():
        torch.manual_seed(0)
        untaught = nets.build("neocognitron_classifier", 10).state_dict()
    taught = runs.load(folder).network
    assert [key for key in untaught if torch.equal(untaught[key], taught[key])] == []
    losses = [float(loss) for loss in re.findall(r"loss (\S+)", said)]
    assert losses[-1] < 0.8 * losses[0]


def test_a_taught_neocognitron_is_exported_like_any_other(neocognitron: tuple[Path, str], tmp_path: Path) -> None:
    folder = export.export_run(neocognitron[0], tmp_path, None, None)
    assert folder == tmp_path / "neocognitron_digits" / "1"
    assert "1, 16, 16" in (folder.parent / "config.pbtxt").read_text()
    assert "after pre-training `neocognitron`" in (folder.parent / "README.md").read_text()


def test_a_run_without_pretraining_does_not_go_on_as_one_with_it(tmp_path: Path) -> None:
    plain = dataclasses.replace(RECIPES["dbn_digits"], pretraining=None)
    runs.save(
        tmp_path,
        runs.Checkpoint(runs.Plan(plain, 0, 2, "cpu"), [], {}, {}, torch.get_rng_state()),
    )
    with pytest.raises(TrainingError, match="started with pretraining None, not dbn"):
        runs.resume(tmp_path, runs.Plan(RECIPES["dbn_digits"], 0, 2, "cpu"))


def test_the_experiment_in_a_few_seconds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training", "experiment", "depth", "--quick", "--run-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and done.stderr == ""
    assert f"{tmp_path}/report.md: 24 networks" in done.stdout
    assert "| labels | layers | parameters | plain | scaled | dbn | sdae |" in (tmp_path / "report.md").read_text()
