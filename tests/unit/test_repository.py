"""Model folders on a real, temporary disk."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from server.errors import ConfigInvalid, LoadFailed
from server.models.repository import (
    MAX_CONFIG_BYTES,
    MAX_LABEL_BYTES,
    ModelFolder,
    find,
    model_file,
    names,
    op_library,
    read_config,
    read_initial_state,
    read_labels,
    read_warmup_file,
    scan,
)


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    """A model with version 1 and nothing in it, beside a file that is not its own."""
    path = tmp_path / "repository" / "digits"
    (path / "1").mkdir(parents=True)
    (tmp_path / "secret").write_text("not yours")
    return ModelFolder("digits", path, (1,))


def make(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).mkdir(parents=True)
    return root


def test_scan_lists_models_by_name_with_versions_ascending(tmp_path: Path) -> None:
    one = make(tmp_path / "one", "zebra/1", "apple/10", "apple/9")
    two = make(tmp_path / "two", "mango")
    assert scan([one, two]).models == (
        ModelFolder("apple", one / "apple", (9, 10)),
        ModelFolder("mango", two / "mango", ()),
        ModelFolder("zebra", one / "zebra", (1,)),
    )


def test_scan_ignores_what_is_hidden_or_not_a_folder(tmp_path: Path) -> None:
    make(tmp_path, ".git/1", "a/1", "a/.2")
    (tmp_path / "README.md").touch()
    (tmp_path / "a" / "3").touch()
    assert scan([tmp_path]).models == (ModelFolder("a", tmp_path / "a", (1,)),)


@pytest.mark.parametrize("name", ["0", "01", "-1", "+1", "1.0", "v1", "１", "9223372036854775808", "labels"])
def test_scan_ignores_folders_that_are_not_positive_decimal_integers(tmp_path: Path, name: str) -> None:
    make(tmp_path, f"a/{name}")
    assert scan([tmp_path]).models[0].versions == ()


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=f"--model-repository {tmp_path / 'nowhere'}: does not exist"):
        scan([tmp_path, tmp_path / "nowhere"])


def test_a_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LoadFailed, match=r"^--model-repository .*file: cannot be listed: Not a directory"):
        scan([tmp_path / "file"])


def test_a_model_in_two_roots_is_a_problem_of_that_model_alone(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one", "a/1", "b/1"), make(tmp_path / "two", "a/1")
    found = scan([one, two])
    assert [model.name for model in found.models] == ["b"]
    assert found.problems == {"a": f"model 'a' is in more than one repository: {one} and {two}; keep one of them"}


def test_no_config_is_none(folder: ModelFolder) -> None:
    assert read_config(folder) is None


def test_a_config_is_read_as_text(folder: ModelFolder) -> None:
    (folder.path / "config.pbtxt").write_text("name: 'digits' # ✓", encoding="utf-8")
    assert read_config(folder) == "name: 'digits' # ✓"


def test_a_config_that_is_not_utf8_is_named(folder: ModelFolder) -> None:
    (folder.path / "config.pbtxt").write_bytes(b"name: \xff")
    with pytest.raises(ConfigInvalid, match=r"config\.pbtxt: byte 6 is not UTF-8"):
        read_config(folder)


def test_a_config_link_to_nowhere_is_not_taken_for_no_config(folder: ModelFolder) -> None:
    (folder.path / "config.pbtxt").symlink_to(folder.path / "gone")
    with pytest.raises(LoadFailed, match=r"config\.pbtxt: cannot be read: No such file"):
        read_config(folder)


def test_the_model_file_of_a_version(folder: ModelFolder) -> None:
    path = folder.path / "1" / "model.onnx"
    path.touch()
    assert model_file(folder, 1, "model.onnx") == path


def test_a_model_file_may_be_a_link_within_its_model(folder: ModelFolder) -> None:
    (folder.path / "shared.onnx").touch()
    (folder.path / "1" / "model.onnx").symlink_to("../shared.onnx")
    assert model_file(folder, 1, "model.onnx") == folder.path / "1" / "model.onnx"


def test_a_model_folder_may_itself_be_a_link(folder: ModelFolder, tmp_path: Path) -> None:
    (folder.path / "1" / "model.onnx").touch()
    (tmp_path / "link").symlink_to(folder.path)
    linked = ModelFolder("link", tmp_path / "link", (1,))
    assert model_file(linked, 1, "model.onnx").is_file()


def test_an_empty_version_folder_is_named(folder: ModelFolder) -> None:
    with pytest.raises(LoadFailed, match=f"{folder.path / '1'}: the version folder is empty; put model.onnx into it"):
        model_file(folder, 1, "model.onnx")


def test_a_version_that_is_gone_is_named(folder: ModelFolder) -> None:
    with pytest.raises(LoadFailed, match="version 7 of model 'digits' does not exist"):
        model_file(folder, 7, "model.onnx")


def test_a_missing_model_file_is_named_beside_what_is_there(folder: ModelFolder) -> None:
    (folder.path / "1" / "lenet.onnx").touch()
    with pytest.raises(LoadFailed, match=r"model\.onnx: no such file, the folder has: lenet\.onnx; rename it or set"):
        model_file(folder, 1, "model.onnx")


def test_a_folder_is_no_model_file(folder: ModelFolder) -> None:
    (folder.path / "1" / "model.onnx").mkdir()
    with pytest.raises(LoadFailed, match=r"model\.onnx: is no file, but a folder or a device; put the model"):
        model_file(folder, 1, "model.onnx")


@pytest.mark.parametrize("filename", ["../../../secret", "/etc/passwd", "link", "loop"])
def test_a_model_file_outside_of_the_model_is_refused(folder: ModelFolder, filename: str) -> None:
    (folder.path / "1" / "link").symlink_to(folder.path.parent.parent / "secret")
    (folder.path / "1" / "loop").symlink_to("loop")
    with pytest.raises(LoadFailed, match=r"outside of the model's folder|cannot be resolved|no such file"):
        model_file(folder, 1, filename)


def test_a_version_folder_that_links_elsewhere_is_refused(folder: ModelFolder, tmp_path: Path) -> None:
    make(tmp_path, "elsewhere")
    (tmp_path / "elsewhere" / "model.onnx").touch()
    (folder.path / "2").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LoadFailed, match="outside of the model's folder"):
        model_file(folder, 2, "model.onnx")


@pytest.mark.parametrize("text", ["zero\none\n\nthree\n", "zero\r\none\r\n\r\nthree", "\ufeffzero\none\n\nthree\n\n"])
def test_labels_keep_their_lines(folder: ModelFolder, text: str) -> None:
    (folder.path / "labels.txt").write_bytes(text.encode())
    assert read_labels(folder, "labels.txt") == ("zero", "one", "", "three")


def test_a_label_may_hold_any_character_but_a_line_feed(folder: ModelFolder) -> None:
    (folder.path / "labels.txt").write_text("a\u2028b\nc", encoding="utf-8")
    assert read_labels(folder, "labels.txt") == ("a\u2028b", "c")


def test_a_missing_label_file_is_named(folder: ModelFolder) -> None:
    with pytest.raises(LoadFailed, match=r"labels\.txt: no such label file; add it or remove label_filename"):
        read_labels(folder, "labels.txt")


def test_labels_outside_of_the_model_are_refused(folder: ModelFolder) -> None:
    with pytest.raises(LoadFailed, match="outside of the model's folder"):
        read_labels(folder, "../../secret")


def test_a_warm_up_input_is_read_from_its_folder(folder: ModelFolder) -> None:
    (folder.path / "warmup").mkdir()
    (folder.path / "warmup" / "row.bin").write_bytes(b"\0\1\xff")
    assert read_warmup_file(folder, "row.bin", 100) == b"\0\1\xff"


def test_a_warm_up_input_of_more_bytes_than_may_be_is_not_read(folder: ModelFolder) -> None:
    (folder.path / "warmup").mkdir()
    of_holes(folder.path / "warmup" / "row.bin")
    with pytest.raises(LoadFailed, match=rf"row.bin: has {TERABYTE} bytes, and 100 are read at most"):
        read_warmup_file(folder, "row.bin", 100)


def test_a_missing_warm_up_input_is_named(folder: ModelFolder) -> None:
    with pytest.raises(LoadFailed, match=r"warmup/row\.bin: no such file; add it, or use zero_data or random_data"):
        read_warmup_file(folder, "row.bin", 100)


@pytest.mark.parametrize("filename", ["../../../secret", "/etc/passwd", "link"])
def test_a_warm_up_input_outside_of_the_model_is_refused(folder: ModelFolder, filename: str) -> None:
    (folder.path / "warmup").mkdir()
    (folder.path / "warmup" / "link").symlink_to(folder.path.parent.parent / "secret")
    with pytest.raises(LoadFailed, match="outside of the model's folder"):
        read_warmup_file(folder, filename, 100)


def test_a_configuration_of_the_name_asked_for_counts_where_the_model_has_it(folder: ModelFolder) -> None:
    (folder.path / "config.pbtxt").write_text("# the usual")
    (folder.path / "configs").mkdir()
    (folder.path / "configs" / "h100.pbtxt").write_text("# for an H100")
    assert read_config(folder, "h100") == "# for an H100"
    assert read_config(folder, "a100") == "# the usual"
    assert read_config(folder) == "# the usual"


def test_one_model_is_found_by_its_name(tmp_path: Path) -> None:
    for path in ("a/m/1", "a/m/10", "b/n/1", "a/twin/1", "b/twin/1"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "a" / "file").touch()
    roots = [tmp_path / "a", tmp_path / "b", tmp_path / "nowhere"]
    assert find(roots, "m") == ModelFolder("m", tmp_path / "a" / "m", (1, 10))
    assert find(roots, "n") == ModelFolder("n", tmp_path / "b" / "n", (1,))
    assert find(roots, "file") is None
    assert find(roots, "o") is None
    with pytest.raises(LoadFailed, match=f"{tmp_path / 'a'} and {tmp_path / 'b'}; keep one of them"):
        find(roots, "twin")


@pytest.mark.parametrize("name", ["../digits", "digits/../digits", "/etc", "..", ".", "", "a\0b", "d" * 300])
def test_what_is_no_name_leads_nowhere(folder: ModelFolder, name: str) -> None:
    with pytest.raises(LoadFailed, match="is no name of a model"):
        find([folder.path.parent], name)


def test_names_are_listed_without_a_look_inside(tmp_path: Path) -> None:
    for path in ("a/m", "a/twin", "b/twin", "b/.hidden"):
        (tmp_path / path).mkdir(parents=True)
    roots = [tmp_path / "a", tmp_path / "b"]
    assert names(roots) == {"m": "", "twin": scan(roots).problems["twin"]}
    with pytest.raises(LoadFailed, match="nowhere"):
        names([tmp_path / "nowhere"])


def test_a_name_with_a_zero_byte_is_refused(folder: ModelFolder) -> None:
    (folder.path / "1" / "model.onnx").touch()
    with pytest.raises(LoadFailed, match="cannot be resolved"):
        read_labels(folder, "labels\0.txt")
    with pytest.raises(LoadFailed, match="cannot be resolved"):
        model_file(folder, 1, "model\0.onnx")


@pytest.mark.parametrize("piece", [b"\xef", b"\xef\xbb"])
def test_a_piece_of_a_byte_order_mark_is_no_text(folder: ModelFolder, piece: bytes) -> None:
    (folder.path / "labels.txt").write_bytes(piece)
    with pytest.raises(ConfigInvalid, match="is not UTF-8"):
        read_labels(folder, "labels.txt")


# --- what somebody may put in the place of a file ---

TERABYTE = 1 << 40


def of_holes(path: Path) -> None:
    """A file that announces more than any machine has memory, and takes nothing of the disk."""
    with path.open("wb") as file:
        file.truncate(TERABYTE)


def test_a_config_of_more_bytes_than_may_be_is_not_read(folder: ModelFolder) -> None:
    of_holes(folder.path / "config.pbtxt")
    with pytest.raises(LoadFailed, match=rf"config.pbtxt: has {TERABYTE} bytes, and {MAX_CONFIG_BYTES} are read"):
        read_config(folder)


def test_labels_of_more_bytes_than_may_be_are_not_read(folder: ModelFolder) -> None:
    of_holes(folder.path / "labels.txt")
    with pytest.raises(LoadFailed, match=rf"labels.txt: has {TERABYTE} bytes, and {MAX_LABEL_BYTES} are read"):
        read_labels(folder, "labels.txt")


def put_pipe(path: Path) -> None:
    os.mkfifo(path)


def put_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as listener:  # a socket's path must be short
        listener.bind(path.name)


@pytest.mark.parametrize("put", [put_pipe, put_socket, Path.mkdir], ids=["a pipe", "a socket", "a folder"])
@pytest.mark.parametrize(
    ("filename", "read"),
    [
        ("config.pbtxt", read_config),
        ("configs/a.pbtxt", lambda folder: read_config(folder, "a")),
        ("labels.txt", lambda folder: read_labels(folder, "labels.txt")),
        ("warmup/row.bin", lambda folder: read_warmup_file(folder, "row.bin", 100)),
        ("initial_state/row.bin", lambda folder: read_initial_state(folder, "row.bin", 100)),
        ("1/model.onnx", lambda folder: model_file(folder, 1, "model.onnx")),
        ("lib.so", lambda folder: op_library(folder, "lib.so")),
    ],
)
def test_what_is_no_file_is_refused_and_holds_nobody_up(
    folder: ModelFolder, filename: str, read: Callable[[ModelFolder], object], put: Callable[[Path], None]
) -> None:
    path = folder.path / filename
    path.parent.mkdir(exist_ok=True)
    put(path)
    with pytest.raises(LoadFailed, match=re.escape(f"{path}: ")):
        read(folder)


def test_a_config_outside_of_the_model_is_refused(folder: ModelFolder) -> None:
    (folder.path / "config.pbtxt").symlink_to(folder.path.parent.parent / "secret")
    with pytest.raises(LoadFailed, match="outside of the model's folder") as refused:
        read_config(folder)
    assert "not yours" not in str(refused.value)


def test_files_may_be_links_as_kubernetes_mounts_them(folder: ModelFolder) -> None:
    (folder.path / "..2026_01").mkdir()
    (folder.path / "..2026_01" / "config.pbtxt").write_text("max_batch_size: 8")
    (folder.path / "..data").symlink_to("..2026_01")
    (folder.path / "config.pbtxt").symlink_to("..data/config.pbtxt")
    assert read_config(folder) == "max_batch_size: 8"


@pytest.mark.parametrize("filename", ["a\0b", "l" * 300, "l" * 100_000, "/".join("l" * 3000)])
def test_a_name_that_no_file_can_have_is_refused_in_a_short_sentence(folder: ModelFolder, filename: str) -> None:
    for read in (read_labels, op_library):
        with pytest.raises(LoadFailed, match="digits/") as refused:
            read(folder, filename)
        assert len(str(refused.value)) < 2100


def test_of_a_version_folder_of_many_files_few_are_named(folder: ModelFolder) -> None:
    for i in range(1000):
        (folder.path / "1" / f"weights_{i:04}.bin").touch()
    with pytest.raises(LoadFailed, match=r"has: weights_0000.bin, .*weights_0009.bin, …; rename"):
        model_file(folder, 1, "model.onnx")
