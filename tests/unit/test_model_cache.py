"""The cache of optimised graphs, with text files for models."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.backends.model_cache import MODEL, cache_key, open_through_cache
from server.errors import LoadFailed


class Opener:
    """Opens a source whose graph is `content`, and cached graphs that say 'good'."""

    def __init__(self, folder: Path, content: str = "good") -> None:
        self.folder = folder
        self.content = content
        self.saved: list[Path | None] = []
        self.meanwhile: Path | None = None

    def open(self) -> str:
        return open_through_cache(self.folder, "key", self.open_entry, self.open_and_save)

    def open_entry(self, path: Path) -> str:
        if path.read_text() != "good":
            raise LoadFailed(f"{path}: broken")
        return "from the cache"

    def open_and_save(self, path: Path | None) -> str:
        self.saved.append(path)
        if path is not None:
            path.write_text(self.content)
        if self.meanwhile is not None:
            self.meanwhile.mkdir()
            (self.meanwhile / MODEL).write_text("good")
        return "from the source"

    def entries(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


def test_the_second_start_opens_what_the_first_one_saved(tmp_path: Path) -> None:
    opener = Opener(tmp_path / "made" / "on the way")
    assert [opener.open(), opener.open()] == ["from the source", "from the cache"]
    assert opener.entries() == ["key"]
    assert len(opener.saved) == 1


def test_an_entry_that_cannot_be_opened_is_made_anew(tmp_path: Path) -> None:
    opener = Opener(tmp_path)
    opener.open()
    (tmp_path / "key" / MODEL).write_text("half")
    assert [opener.open(), opener.open()] == ["from the source", "from the cache"]


def test_of_two_that_write_the_same_entry_one_wins(tmp_path: Path) -> None:
    opener = Opener(tmp_path)
    opener.meanwhile = tmp_path / "key"
    assert opener.open() == "from the source"
    opener.meanwhile = None
    assert opener.open() == "from the cache"
    assert opener.entries() == ["key"]


def test_a_folder_that_cannot_be_written_costs_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    opener = Opener(tmp_path / "file")
    assert opener.open() == "from the source"
    assert opener.saved == [None]


def test_a_graph_that_cannot_be_saved_is_served_all_the_same(tmp_path: Path) -> None:
    def open_and_save(path: Path | None) -> str:
        if path is not None:
            raise LoadFailed("no room")
        return "from the source"

    assert open_through_cache(tmp_path, "key", Path.read_text, open_and_save) == "from the source"
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_opened_leaves_nothing_behind(tmp_path: Path) -> None:
    def open_and_save(_: Path | None) -> str:
        raise LoadFailed("not a model")

    with pytest.raises(LoadFailed, match="not a model"):
        open_through_cache(tmp_path, "key", Path.read_text, open_and_save)
    assert list(tmp_path.iterdir()) == []


def test_the_key_follows_contents_and_facts_and_not_folders(tmp_path: Path) -> None:
    for folder, text in (("a", "same"), ("b", "same"), ("c", "other")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.onnx").write_text(text)
    a, b, c = (tmp_path / folder / "model.onnx" for folder in "abc")
    assert cache_key([a], "1.32", None) == cache_key([b], "1.32", None)
    different = [
        cache_key([a], "1.32", None),
        cache_key([c], "1.32", None),
        cache_key([a], "1.33", None),
        cache_key([a], "1.32", 1),
        cache_key([a, a], "1.32", None),
    ]
    assert len(set(different)) == len(different)


def test_a_file_that_cannot_be_read_has_no_key(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="cannot be read"):
        cache_key([tmp_path / "none"])
