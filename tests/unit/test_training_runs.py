"""Recipes, run folders, the schedule and the distortion: what makes a run repeatable, and what it says if it cannot."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_training import torch_as_before
from training import recipes, runs
from training.__main__ import main
from training.data import DATA_SETS, distort
from training.files import TrainingError, write_atomically
from training.losses import LOSSES
from training.optim import OPTIMIZERS, SCHEDULES
from training.recipes import RECIPES, Affine
from training.train import choose_device, confusion_matrix, require_compiler, set_aside

PLAN = runs.Plan(RECIPES["lenet5"], seed=0, epochs=2, device="cpu")


def checkpoint(plan: runs.Plan = PLAN) -> runs.Checkpoint:
    history = [runs.Epoch(1, 0.5, 0.25, 1e-3, 0.1)]
    return runs.Checkpoint(plan, history, {"weight": torch.tensor([1.5])}, {"state": {}}, torch.get_rng_state())


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=str)
def test_each_recipe_names_rows_that_exist(recipe: recipes.Recipe) -> None:
    assert recipe.data in DATA_SETS and recipe.loss in LOSSES
    assert recipe.optimizer in OPTIMIZERS and recipe.schedule in SCHEDULES
    assert recipes.from_dict(dataclasses.asdict(recipe)) == recipe


def test_the_command_line_starts_without_torch() -> None:
    script = "import sys, training.__main__ as m; m.parser(); print({'torch', 'numpy'} & set(sys.modules))"
    started = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert started.stdout == "set()\n"


def test_list_names_each_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == list(RECIPES)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["train", "lenet6"],
            f"There is no recipe named 'lenet6'. There are: {', '.join(RECIPES)}.",
        ),
        (["train", "lenet5", "--epochs", "0"], "--epochs 0: at least 1 is needed."),
        (["train", "lenet5", "--early-stop", "-1"], "--early-stop -1: a number of epochs is needed, or 0 for never."),
        (["train", "lenet5", "--data-dir", "here"], "The data set digits is built in. Leave out --data-dir"),
        (["train", "lenet5", "--resume", "--run-dir", "nowhere"], "Nothing to resume: no checkpoint.pt in nowhere."),
        (["evaluate", "nowhere"], "nowhere is neither a run folder with a checkpoint.pt nor a recipe."),
        (["export", "lenet5"], "Train first: python -m training train lenet5"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with torch_as_before():
        assert main(arguments) == 1
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = checkpoint()
    runs.save(tmp_path, saved)
    loaded = runs.load(tmp_path)
    assert (loaded.plan, loaded.history, loaded.network) == (saved.plan, saved.history, saved.network)
    assert torch.equal(loaded.generator, saved.generator)


def test_a_run_goes_on_only_with_the_plan_it_was_started_with(tmp_path: Path) -> None:
    runs.save(tmp_path, checkpoint())
    runs.resume(tmp_path, PLAN)
    with pytest.raises(TrainingError, match="started with seed 0, not 1; epochs 2, not 3"):
        runs.resume(tmp_path, dataclasses.replace(PLAN, seed=1, epochs=3))
    with pytest.raises(TrainingError, match="started with recipe lenet5, not lenet5_modern; network"):
        runs.resume(tmp_path, dataclasses.replace(PLAN, recipe=RECIPES["lenet5_modern"]))


def test_a_new_run_does_not_overwrite_an_old_one(tmp_path: Path) -> None:
    runs.save(tmp_path, checkpoint())
    with pytest.raises(TrainingError, match=r"already holds a run\. Go on with --resume"):
        runs.start(tmp_path, PLAN)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt cannot be read as a checkpoint"):
        runs.load(tmp_path)


def test_a_file_where_a_folder_must_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(b"in the way")
    with pytest.raises(TrainingError, match=r"run/config\.json cannot be written: (File exists|Not a directory)\.$"):
        runs.start(tmp_path / "run", PLAN)


@pytest.mark.parametrize("seed", ["-1", str(2**63), "one"])
def test_a_seed_that_no_generator_takes_is_misspelt(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "lenet5", f"--seed={seed}"])
    assert "argument --seed: " in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no file of torch.save", pickle.dumps(Path("anything"), protocol=2)])
def test_what_is_no_checkpoint_is_named_and_not_executed(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt cannot be read as a checkpoint of this version: [^\n]+$"):
        runs.load(tmp_path)


def test_what_a_killed_write_left_does_not_disturb_the_next(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    (tmp_path / ".file.partial").write_bytes(b"half of a much longer")
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"file": b"new"}


def epochs(*validation_losses: float | None) -> list[runs.Epoch]:
    return [runs.Epoch(number, 0.5, 0.5, 1e-3, 0.1, loss) for number, loss in enumerate(validation_losses, 1)]


def test_a_run_without_patience_is_over_after_its_epochs() -> None:
    assert not runs.is_over(PLAN, epochs(None))
    assert runs.is_over(PLAN, epochs(None, None))


def test_patience_ends_after_so_many_epochs_without_a_better_loss() -> None:
    plan = dataclasses.replace(PLAN, epochs=9, patience=2)
    assert not runs.is_over(plan, [])
    assert not runs.is_over(plan, epochs(0.5, 0.4, 0.4))
    assert runs.is_over(plan, epochs(0.5, 0.4, 0.4, 0.6))
    assert runs.best_epoch(epochs(0.5, 0.4, 0.4, 0.6)) == 2
    assert not runs.is_over(plan, epochs(0.5, 0.4, 0.4, 0.3))


def test_what_is_set_aside_is_a_tenth_of_each_class_and_never_learned_from() -> None:
    labels = torch.arange(1000) % 10
    learn, validate = set_aside(labels, dataclasses.replace(PLAN, patience=1))
    assert sorted([*learn.tolist(), *validate.tolist()]) == list(range(1000))
    assert torch.bincount(labels[validate]).tolist() == [10] * 10
    assert not torch.equal(set_aside(labels, dataclasses.replace(PLAN, patience=1, seed=1))[1], validate)
    everything, nothing = set_aside(labels, PLAN)
    assert torch.equal(everything, torch.arange(1000)) and len(nothing) == 0


def test_a_run_may_go_on_with_its_data_elsewhere_but_not_in_another_precision(tmp_path: Path) -> None:
    runs.save(tmp_path, checkpoint(dataclasses.replace(PLAN, data_dir="/here")))
    runs.resume(tmp_path, dataclasses.replace(PLAN, data_dir="/there"))
    with pytest.raises(TrainingError, match="started with precision float32, not bfloat16; processes 1, not 2"):
        runs.resume(tmp_path, dataclasses.replace(PLAN, precision="bfloat16", processes=2))


def test_a_checkpoint_of_before_there_were_options_is_read(tmp_path: Path) -> None:
    runs.save(tmp_path, checkpoint())
    plain = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del plain["scaler"], plain["best"], plain["classes"], plain["history"][0]["validation_loss"]
    for option in ("patience", "precision", "compile", "processes", "data_dir"):
        del plain["plan"][option]
    for field in ("seed", "optimizer", "schedule", "milestones", "label_smoothing", "clip_norm", "patience"):
        del plain["plan"]["recipe"][field]
    torch.save(plain, tmp_path / "checkpoint.pt")
    assert runs.resume(tmp_path, PLAN).plan == PLAN


def test_data_of_other_classes_than_the_run_learnt_is_refused(tmp_path: Path) -> None:
    learnt = dataclasses.replace(checkpoint(), classes=("boat", "plane"))
    runs.save(tmp_path, learnt)
    runs.refuse_other_classes(tmp_path, runs.load(tmp_path), ("boat", "plane"))
    with pytest.raises(TrainingError, match="learnt the classes boat, plane, and the data has plane, zebra"):
        runs.refuse_other_classes(tmp_path, runs.load(tmp_path), ("plane", "zebra"))


def test_the_command_of_a_plan_has_what_differs_from_the_recipe() -> None:
    assert runs.command(PLAN) == "python -m training train lenet5 --seed 0 --epochs 2"
    other = runs.Plan(
        RECIPES["lenet5"], 1, 3, "cpu", patience=4, precision="bfloat16", compile=True, processes=2, data_dir="/mine"
    )
    assert runs.command(other) == (
        "torchrun --nproc-per-node 2 -m training train lenet5 --seed 1 --epochs 3 --early-stop 4 --precision bfloat16 "
        "--compile --data-dir DIR"
    )


def test_no_distortion_changes_nothing_and_paper_moves_in_as_paper() -> None:
    images = torch.full((4, 1, 32, 32), -0.1)
    images[:, :, 10:20, 10:20] = 1.175
    assert torch.allclose(distort(images, Affine(0, 0, 0, 0), -0.1), images, atol=1e-4)
    moved = distort(images, Affine(rotation=45, scale=0, shift=8, shear=0), -0.1)
    assert torch.allclose(moved[:, :, 0, 0], torch.tensor(-0.1)) and not torch.allclose(moved, images, atol=0.1)


def test_distortion_shifts_by_whole_pixels_where_it_says_so() -> None:
    images = torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    shift_x = (torch.rand(6, 64) * 2 - 1)[3]
    torch.manual_seed(0)
    moved = distort(images, Affine(rotation=0, scale=0, shift=1 / shift_x.abs().max().item(), shear=0), 0.0)
    one_pixel = int(shift_x.abs().argmax())
    columns = images[one_pixel, 0].roll(-1 if shift_x[one_pixel] > 0 else 1, dims=1)[:, 1:-1]
    blurred_in_height = moved[one_pixel, 0].mean(dim=0)[1:-1]
    assert torch.allclose(blurred_in_height, columns.mean(dim=0), atol=0.05)


def test_confusion_counts_truth_by_row() -> None:
    confusion = confusion_matrix(torch.tensor([0, 2, 2, 1]), torch.tensor([0, 1, 2, 1]), 3)
    assert np.array_equal(confusion, [[1, 0, 0], [0, 1, 1], [0, 0, 1]])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_said_to_be_missing() -> None:
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    with pytest.raises(TrainingError, match="sees no CUDA device"):
        choose_device("cuda")


def test_a_compiler_that_is_not_there_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(TrainingError, match=r"there is no C\+\+ compiler"):
        require_compiler("cpu")
