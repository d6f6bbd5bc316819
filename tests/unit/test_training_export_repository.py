"""A version is there whole or not at all, and fits the configuration that it shares with the others."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from google.protobuf import text_format

from proto import model_config_pb2 as pb
from tests import onnx_models
from training.export.repository import Interface, Port, config, next_version, write_version
from training.files import TrainingError

LABELS = ("a", "b")
TENSOR = Interface(
    Port("input", "TYPE_FP32", (1, 32, 32), "FORMAT_NCHW"), Port("probabilities", "TYPE_FP32", (2,))
)  # fmt: skip
PIXELS = Interface(Port("pixels", "TYPE_UINT8", (32, 32, 1), "FORMAT_NHWC"), TENSOR.output)
CONFIG = config("m", TENSOR, 1)


def write(
    repository: Path,
    version: int | None = None,
    labels: tuple[str, ...] = LABELS,
    card: str = "card",
    interface: Interface = TENSOR,
) -> Path:
    return write_version(
        repository, "m", version, {"model.onnx": b"graph", "card.json": b"{}"}, interface, CONFIG, labels, card
    )


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text(errors="replace")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_first_version_brings_the_models_folder(tmp_path: Path) -> None:
    assert write(tmp_path / "repository") == tmp_path / "repository" / "m" / "1"
    assert files(tmp_path / "repository") == {
        "m/1/card.json": "{}",
        "m/1/model.onnx": "graph",
        "m/README.md": "card",
        "m/config.pbtxt": CONFIG,
        "m/labels.txt": "a\nb\n",
    }


def test_next_version_is_one_more_than_the_highest_and_the_owners_config_stays(tmp_path: Path) -> None:
    write(tmp_path, version=9)
    tuned = CONFIG.replace("max_batch_size: 64", "max_batch_size: 8") + "# tuned by hand\n"
    (tmp_path / "m" / "config.pbtxt").write_text(tuned)
    assert write(tmp_path, card="newer card") == tmp_path / "m" / "10"
    assert files(tmp_path / "m") == {
        "9/card.json": "{}",
        "9/model.onnx": "graph",
        "10/card.json": "{}",
        "10/model.onnx": "graph",
        "README.md": "newer card",
        "config.pbtxt": tuned,
        "labels.txt": "a\nb\n",
    }


def test_versions_sort_as_numbers_and_other_folders_are_not_versions(tmp_path: Path) -> None:
    for name in ("2", "10", "old", ".11"):
        (tmp_path / name).mkdir()
    assert next_version(tmp_path) == 11


@pytest.mark.parametrize(
    ("version", "labels", "interface", "sentence"),
    [
        (1, LABELS, TENSOR, "exists. Choose another --version, or leave it out for 2"),
        (0, LABELS, TENSOR, "versions count from 1"),
        (None, ("a", "c"), TENSOR, "names other classes than this export. Choose another --name"),
        (
            None,
            LABELS,
            PIXELS,
            r"config\.pbtxt has the input input TYPE_FP32 \[1, 32, 32\]; this export has pixels TYPE_UINT8 \[32, 32",
        ),
        (None, LABELS, Interface(TENSOR.input, Port("logits", "TYPE_FP32", (2,))), "has the output probabilities"),
        (
            None,
            LABELS,
            Interface(Port("input", "TYPE_FP32", (1, -1, -1)), TENSOR.output),
            r"this export has input TYPE_FP32 \[1, -1, -1\]",
        ),
    ],
)
def test_a_refused_version_changes_nothing(
    tmp_path: Path, version: int | None, labels: tuple[str, ...], interface: Interface, sentence: str
) -> None:
    write(tmp_path)
    before = files(tmp_path)
    with pytest.raises(TrainingError, match=sentence):
        write(tmp_path, version, labels, "other card", interface)
    assert files(tmp_path) == before


def test_a_config_without_batching_has_the_batch_among_its_dims(tmp_path: Path) -> None:
    write(tmp_path)
    unbatched = CONFIG.replace("max_batch_size: 64", "max_batch_size: 0").replace("dims: [ ", "dims: [ -1, ")
    (tmp_path / "m" / "config.pbtxt").write_text(unbatched.replace("dynamic_batching { }", ""))
    assert write(tmp_path).name == "2"


def test_what_a_config_leaves_to_the_graph_is_read_from_the_newest_version(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "m" / "config.pbtxt").write_text('name: "m"')
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(
        onnx_models.identity("FP32", ("N", 1, 32, 32)).SerializeToString()
    )
    ends = Port("x", "TYPE_FP32", (1, 32, 32)), Port("y", "TYPE_FP32", (1, 32, 32))
    with pytest.raises(TrainingError, match=r"1/model\.onnx has the input x TYPE_FP32 \[1, 32, 32\]; this export"):
        write(tmp_path)
    assert write(tmp_path, interface=Interface(*ends)).name == "2"


def test_a_config_that_cannot_be_read_is_its_owners_to_mend(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "m" / "config.pbtxt").write_text("input [ {")
    with pytest.raises(TrainingError, match=r"config\.pbtxt cannot be read as a model's configuration: .* Mend it"):
        write(tmp_path)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", 'a"b', "a\nb"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrainingError, match="cannot be a model's name"):
        write_version(tmp_path, name, None, {}, TENSOR, "", LABELS, "")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    unwritable = "\udc80"  # a lone surrogate has no UTF-8: fails after model.onnx, config and labels were made
    with pytest.raises(UnicodeEncodeError):
        write(tmp_path, card=unwritable)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("calls", range(4))
def test_an_export_that_ends_between_two_renames_leaves_no_version_without_what_it_needs(
    calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(onnx_models.identity("FP32", ("N", 1)).SerializeToString())
    left = iter([os.rename] * calls)

    def rename(source: Path, target: Path) -> None:
        try:
            next(left)(source, target)
        except StopIteration:
            raise OSError(errno.EIO, "no more") from None

    monkeypatch.setattr(os, "rename", rename)
    ends = Interface(Port("x", "TYPE_FP32", (1,)), Port("y", "TYPE_FP32", (1,)))
    if calls < 3:
        with pytest.raises(TrainingError, match="m/2 cannot be put into place: no more"):
            write(tmp_path, interface=ends)
    else:
        write(tmp_path, interface=ends)
    made = {name for name in files(tmp_path / "m") if not name.startswith("1/")} - {"README.md"}
    renamed = ({"config.pbtxt"}, {"labels.txt"}, {"2/model.onnx", "2/card.json"})
    assert made == set().union(*renamed[:calls])
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_config_describes_the_graph() -> None:
    for interface in (TENSOR, PIXELS):
        message = text_format.Parse(config("m", interface, 1, {"image.resize": "32x32"}), pb.ModelConfig())
        given, answered = message.input[0], message.output[0]
        assert (given.name, list(given.dims)) == (interface.input.name, list(interface.input.dims))
        assert pb.DataType.Name(given.data_type) == interface.input.datatype
        assert pb.ModelInput.Format.Name(given.format) == interface.input.format
        assert (answered.name, list(answered.dims), answered.label_filename) == ("probabilities", [2], "labels.txt")
        assert (message.name, message.platform, message.max_batch_size) == ("m", "onnxruntime_onnx", 64)
        assert message.HasField("dynamic_batching")
        parameters = {key: value.string_value for key, value in message.parameters.items()}
        assert parameters == {"intra_op_thread_count": "1", "image.resize": "32x32"}
