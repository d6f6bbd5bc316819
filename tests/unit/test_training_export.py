"""Export: one dynamic graph, refused when it disagrees with torch, and never half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from training import export
from training.files import TrainingError
from training.nets import lenet5

LABELS = ("a", "b")


@pytest.fixture(scope="module")
def model() -> export.Probabilities:
    torch.manual_seed(0)
    return export.Probabilities(lenet5.build("lenet5")).eval()


@pytest.fixture(scope="module")
def graph(model: export.Probabilities) -> bytes:
    return export.to_onnx(model, torch.zeros(2, 1, 32, 32))


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def write(repository: Path, version: int | None = None, labels: tuple[str, ...] = LABELS, card: str = "card") -> Path:
    return export.write_version(repository, "m", version, b"graph", 'name: "m"\n', labels, card)


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_graph_names_its_ends_and_leaves_the_batch_open(graph: bytes) -> None:
    proto = onnx.load_from_string(graph)
    ends = {end.name: end.type.tensor_type.shape.dim for end in (*proto.graph.input, *proto.graph.output)}
    assert {name: [dim.dim_param or dim.dim_value for dim in dims] for name, dims in ends.items()} == {
        "input": ["batch", 1, 32, 32],
        "probabilities": ["batch", 10],
    }


def test_the_graph_is_folded_and_carries_nothing_of_the_machine_that_made_it(graph: bytes) -> None:
    operators = {node.op_type for node in onnx.load_from_string(graph).graph.node}
    assert not operators & {"ScatterND", "ScatterElements", "ConstantOfShape", "Constant"}
    assert len(graph) < 300_000
    assert str(Path(__file__).parents[2]).encode() not in graph and b"stack_trace" not in graph


def test_onnx_runtime_agrees_at_each_batch_size_on_random_and_real_inputs(
    graph: bytes, model: export.Probabilities, pictures: torch.Tensor
) -> None:
    differences = export.compare(graph, model, pictures)
    assert [(d.batch, d.inputs) for d in differences] == [(b, kind) for b in (1, 7, 64) for kind in ("random", "real")]
    export.refuse_disagreement("m", differences)


def test_another_network_than_the_exported_one_is_refused(graph: bytes, pictures: torch.Tensor) -> None:
    torch.manual_seed(1)
    another = export.Probabilities(lenet5.build("lenet5")).eval()
    with pytest.raises(
        TrainingError, match=r"m is not exported: ONNX Runtime and torch differ by .*batch 1, .*1e-05 is allowed"
    ):
        export.refuse_disagreement("m", export.compare(graph, another, pictures))


def test_a_difference_on_real_inputs_alone_is_refused(
    graph: bytes, model: export.Probabilities, pictures: torch.Tensor
) -> None:
    def wrong_on_the_first_picture(images: torch.Tensor) -> torch.Tensor:
        return model(images) + 2e-5 * torch.equal(images[0], pictures[0])

    differences = export.compare(graph, wrong_on_the_first_picture, pictures)
    with pytest.raises(TrainingError, match="real inputs") as refusal:
        export.refuse_disagreement("m", differences)
    assert "random" not in str(refusal.value)


def test_nan_is_refused() -> None:
    with pytest.raises(TrainingError, match="nan"):
        export.refuse_disagreement("m", [export.Difference(float("nan"), 1, "real"), export.Difference(0.0, 7, "real")])


def test_first_version_brings_the_models_folder(tmp_path: Path) -> None:
    assert write(tmp_path / "repository") == tmp_path / "repository" / "m" / "1"
    assert files(tmp_path / "repository") == {
        "m/1/model.onnx": "graph",
        "m/README.md": "card",
        "m/config.pbtxt": 'name: "m"\n',
        "m/labels.txt": "a\nb\n",
    }


def test_next_version_is_one_more_than_the_highest_and_the_owners_config_stays(tmp_path: Path) -> None:
    write(tmp_path, version=9)
    (tmp_path / "m" / "config.pbtxt").write_text("tuned by hand")
    assert write(tmp_path, card="newer card") == tmp_path / "m" / "10"
    assert files(tmp_path / "m") == {
        "9/model.onnx": "graph",
        "10/model.onnx": "graph",
        "README.md": "newer card",
        "config.pbtxt": "tuned by hand",
        "labels.txt": "a\nb\n",
    }


def test_versions_sort_as_numbers_and_other_folders_are_not_versions(tmp_path: Path) -> None:
    for name in ("2", "10", "old", ".11"):
        (tmp_path / name).mkdir()
    assert export.next_version(tmp_path) == 11


@pytest.mark.parametrize(
    ("version", "labels", "sentence"),
    [
        (1, LABELS, "exists. Choose another --version, or leave it out for 2"),
        (0, LABELS, "versions count from 1"),
        (None, ("a", "c"), "names other classes than this run. Choose another --name"),
    ],
)
def test_a_refused_version_changes_nothing(
    tmp_path: Path, version: int | None, labels: tuple[str, ...], sentence: str
) -> None:
    write(tmp_path)
    before = files(tmp_path)
    with pytest.raises(TrainingError, match=sentence):
        write(tmp_path, version, labels, card="other card")
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["", ".hidden", "a/b"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrainingError, match="cannot be a model's name"):
        export.write_version(tmp_path, name, None, b"", "", LABELS, "")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    unwritable = "\udc80"  # a lone surrogate has no UTF-8: fails after model.onnx, config and labels were made
    with pytest.raises(UnicodeEncodeError):
        write(tmp_path, card=unwritable)
    assert list(tmp_path.iterdir()) == []


def test_config_describes_the_graph() -> None:
    text = export.config("m", (1, 32, 32), (10,), 1, {"image.resize": "32x32"})
    for line in (
        'name: "m"',
        'platform: "onnxruntime_onnx"',
        "max_batch_size: 64",
        "dims: [ 1, 32, 32 ]",
        "dims: [ 10 ]",
        "dynamic_batching { }",
        'value { string_value: "1" }',
        "format: FORMAT_NCHW",
        'key: "image.resize"',
        'value { string_value: "32x32" }',
    ):
        assert line in text


def test_probabilities_add_up_and_keep_the_order_of_the_scores(
    model: export.Probabilities, pictures: torch.Tensor
) -> None:
    with torch.no_grad():
        probabilities, scores = model(pictures), model.network(pictures)
    assert np.allclose(probabilities.sum(dim=1), 1, atol=1e-6)
    assert torch.equal(probabilities.argmax(dim=1), scores.argmax(dim=1))
