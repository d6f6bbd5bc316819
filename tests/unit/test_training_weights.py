"""Checkpoints from elsewhere: which are taken, and what is said of those that are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from training import nets, weights
from training.__main__ import main
from training.files import TrainingError

NAME = "convnetjs_cifar10"


@pytest.fixture
def donor() -> nn.Module:
    torch.manual_seed(1)
    return nets.build(NAME).eval()


def saved(folder: Path, content: Any) -> Path:
    path = folder / "weights.pth"
    torch.save(content, path)
    return path


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items())


def test_a_state_dict_is_taken_alone_or_inside_a_training_checkpoint(tmp_path: Path, donor: nn.Module) -> None:
    state = donor.state_dict()
    parallel = {f"module.{key}": value for key, value in state.items()}
    for content in (state, {"epoch": 90, "state_dict": parallel, "best_acc1": 0.7}, {"model": state, "args": [1]}):
        network = nets.build(NAME)
        assert not same(network, donor)
        weights.load(network, saved(tmp_path, content), NAME)
        assert same(network, donor)


def test_batch_norm_of_old_checkpoints_has_no_counters(tmp_path: Path) -> None:
    torch.manual_seed(1)
    donor, network = nets.build("resnet20"), nets.build("resnet20")
    old = {key: value for key, value in donor.state_dict().items() if not key.endswith("num_batches_tracked")}
    weights.load(network, saved(tmp_path, old), "resnet20")
    assert same(network, donor)


def test_a_mismatch_names_the_keys_and_changes_nothing(tmp_path: Path, donor: nn.Module) -> None:
    state = dict(donor.state_dict())
    state["fully.weight"] = state.pop("fc.weight")
    state["conv1.weight"] = torch.zeros(8, 3, 5, 5)
    network = nets.build(NAME)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(TrainingError) as refusal:
        weights.load(network, saved(tmp_path, state), NAME)
    assert str(refusal.value) == (
        f"{tmp_path / 'weights.pth'} does not fit {NAME}. Keys missing: fc.weight; unexpected: fully.weight; "
        "of another shape: conv1.weight is (8, 3, 5, 5), not (16, 3, 5, 5). Nothing was written. "
        "If it was trained for other classes, name them with --labels."
    )
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_long_list_of_keys_is_cut(tmp_path: Path, donor: nn.Module) -> None:
    with pytest.raises(
        TrainingError, match=r"missing: bn1\.weight, bn1\.bias, bn1\.running_mean and 91 more; unexpected"
    ):
        weights.load(nets.build("resnet20"), saved(tmp_path, donor.state_dict()), "resnet20")


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {"state_dict": {"a": 1}}])
def test_a_file_without_weights_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(TrainingError, match="holds no state_dict"):
        weights.read(saved(tmp_path, content))


def test_a_whole_network_is_not_executed(tmp_path: Path, donor: nn.Module) -> None:
    with pytest.raises(TrainingError, match=r"which is not executed here: .*Save network\.state_dict\(\) alone"):
        weights.read(saved(tmp_path, donor))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_a_broken_file_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"broken\.pth"):
        weights.read(path)


def test_a_missing_file_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"gone\.pth cannot be read: No such file"):
        weights.read(tmp_path / "gone.pth")


@pytest.mark.parametrize("text", ["", "cat\n\ndog\n"])
def test_labels_need_a_name_on_each_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels").write_text(text)
    with pytest.raises(TrainingError, match="one class a line"):
        weights.read_labels(tmp_path / "labels")


def test_a_checkpoint_for_other_classes_is_exported_with_its_labels(tmp_path: Path) -> None:
    torch.manual_seed(2)
    donor = nets.build(NAME, classes=3).eval()
    (tmp_path / "labels").write_text("cat\ndog\nboat\n")
    path = saved(tmp_path, donor.state_dict())
    arguments = ["export", NAME, "--weights", str(path), "--labels", str(tmp_path / "labels"), "--name", "pets"]
    assert main([*arguments, "--repository", str(tmp_path / "repository")]) == 0
    model = tmp_path / "repository" / "pets"
    assert (model / "labels.txt").read_text() == "cat\ndog\nboat\n"
    assert "dims: [ 3 ]" in (model / "config.pbtxt").read_text()
    assert "SHA-256" in (model / "README.md").read_text()
    session = onnxruntime.InferenceSession(model / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = donor(x).softmax(dim=1).numpy()
    np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["resnet51", "--random-weights"], "no network named 'resnet51'"),
        (["lenet5", "--seed", "3"], "--seed is of --random-weights"),
        (["lenet5", "--labels", "names"], "--labels goes with"),
        (["lenet5", "--random-weights", "--data-dir", "files"], "--data-dir is a run's"),
        (["lenet5", "--pictures", "digits"], "--pictures goes with"),
        (["lenet5", "--random-weights", "--pictures", "imagenet"], "--pictures imagenet: there is no data set"),
        (["lenet5", "--random-weights", "--int8"], "--int8 needs data"),
        (["lenet5", "--max-accuracy-drop", "0.1"], "--max-accuracy-drop goes with --fp16 or --int8"),
        (["lenet5", "--random-weights", "--fp16", "--max-accuracy-drop", "0.1"], "--max-accuracy-drop is a run's"),
        (["lenet5", "--opset", "99"], "--opset 99: 18 to 23 can be written"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *arguments]) == 1
    assert sentence in capsys.readouterr().err


def test_random_residual_networks_answer_in_range_and_not_by_rounding() -> None:
    torch.manual_seed(0)
    network = nets.build("resnet110")
    weights.settle(network, (3, 32, 32))
    network.eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        single, exact = network(x), network.double()(x.double())
    assert 0.01 < exact.abs().max() < 100
    assert (single - exact).abs().max() < 1e-4 * exact.abs().max()
