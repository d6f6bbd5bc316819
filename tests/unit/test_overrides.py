"""Files that come along with a load: which names are taken, where they go, and that nothing remains of them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from server.errors import InvalidRequest, LoadFailed
from server.models import overrides
from server.models.overrides import MAX_FILES, Overrides, check_files


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


GOOD = ["1/model.onnx", "labels.txt", "warmup/row.bin", "1/deep/er/weights.bin", "12/model v2 (é).onnx", "_/x"]
BAD = {
    "up": ("../x", "must stay within model directory"),
    "up and down": ("1/../../x", "must stay within model directory"),
    "within": ("1/../x", "must stay within model directory"),
    "absolute": ("/etc/passwd", "must stay within model directory"),
    "nothing": ("", "must not be empty or begin with a dot"),
    "an empty part": ("1//model.onnx", "must not be empty or begin with a dot"),
    "a folder": ("1/", "must not be empty or begin with a dot"),
    "a dot": ("./x", "must not be empty or begin with a dot"),
    "hidden": ("1/.x", "must not be empty or begin with a dot"),
    "a backslash": ("1\\..\\x", "backslashes or unprintable characters"),
    "a zero": ("1/x\0y", "backslashes or unprintable characters"),
    "a line": ("1/x\ny", "backslashes or unprintable characters"),
    "too long": ("1/" + "é" * 128, "longer than 255 bytes"),
    "too deep": ("/".join("123456789"), "more than 8 parts"),
    "the configuration": ("config.pbtxt", "what the parameter 'config' says"),
    "another configuration": ("configs/h100.pbtxt", "what the parameter 'config' says"),
}


@pytest.mark.parametrize("path", GOOD)
def test_a_file_is_kept_below_the_models_folder(place: Path, path: str) -> None:
    kept = Overrides()
    folder = kept.write("m", {path: b"content"})
    assert (folder.path / path).read_bytes() == b"content"
    assert folder.path.is_relative_to(place) and folder.name == "m"
    assert folder.path.parents[1].stat().st_mode & 0o777 == 0o700, "nobody else may read it"
    kept.close()
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(("path", "reason"), BAD.values(), ids=BAD)
def test_a_name_that_may_lead_elsewhere_is_refused_before_anything_is_written(
    place: Path, path: str, reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        Overrides().write("m", {"1/model.onnx": b"", path: b""})
    assert str(caught.value).startswith("Invalid file parameter 'file:")
    assert list(place.iterdir()) == []


def test_a_file_cannot_be_the_folder_of_another() -> None:
    with pytest.raises(InvalidRequest, match="'file:1/a': it is the folder of another file"):
        check_files({"1/a": b"", "1/a/b": b""})


def test_no_more_files_are_taken_than_a_model_has() -> None:
    check_files({str(number): b"" for number in range(MAX_FILES)})
    with pytest.raises(InvalidRequest, match="1001 file parameters came"):
        check_files({str(number): b"" for number in range(MAX_FILES + 1)})


def test_each_load_has_a_folder_of_its_own_which_goes_when_it_is_not_in_use(place: Path) -> None:
    kept = Overrides()
    first, second, other = (kept.write(name, {"1/model.onnx": b""}).path for name in ("m", "m", "n"))
    kept.keep_only("m", {second})
    assert [path.exists() for path in (first, second, other)] == [False, True, True]
    kept.keep_only("m", ())
    kept.keep_only("m", ())
    assert [path.exists() for path in (second, other)] == [False, True]
    kept.close()
    assert list(place.iterdir()) == []


def test_the_disk_is_not_filled_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = overrides.SPARE_BYTES + 10
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    kept = Overrides()
    kept.write("m", {"1/model.onnx": b"0123456789"})
    with pytest.raises(LoadFailed, match=f"{free} bytes are free, 11 are needed"):
        kept.write("m", {"1/model.onnx": b"0123456789", "labels.txt": b"x"})
    assert len(list(place.glob("*/*"))) == 1


def test_what_cannot_be_written_leaves_nothing_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_bytes(path: Path, content: bytes) -> int:
        if path.name == "labels.txt":
            raise OSError(28, "No space left on device")
        return honest(path, content)

    honest = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(LoadFailed, match="the files of model 'm' cannot be kept: No space left on device"):
        Overrides().write("m", {"1/model.onnx": b"x", "labels.txt": b"y"})
    assert list(place.glob("*/*")) == []


def test_a_place_that_cannot_be_had_is_a_reason(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place / "nowhere"))
    with pytest.raises(LoadFailed, match="there is no place for files that come with a load"):
        Overrides().write("m", {"1/model.onnx": b"x"})
