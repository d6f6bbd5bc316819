"""A remote repository in a local folder: what is fetched, what is shown, and what is not. A real disk, no network."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from server.errors import LoadFailed
from server.remote import mirror as mirrors
from server.remote.cache import Cache
from server.remote.mirror import Mirror, Selection
from server.urls import RepositoryUrl
from tests.stores import PuppetStore

URL = RepositoryUrl("s3://key:secret@bucket/models")
ALL = Selection()


class Bench:
    """A store, and mirrors of it, one after another, in one cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = PuppetStore()
        self.store.put("m/config.pbtxt", "config")
        self.store.put("m/1/model.onnx", "one")
        self.start()

    def start(self) -> None:
        self.mirror = Mirror(URL, self.store, Cache(self.folder, URL))

    def restart(self) -> None:
        self.mirror.close()
        self.store.reads.clear()
        self.start()

    def shown(self) -> dict[str, bytes]:
        """What the rest of the server sees."""
        found = {}
        for folder, _, names in os.walk(self.mirror.root, followlinks=True):
            for name in names:
                path = Path(folder, name)
                found[str(path.relative_to(self.mirror.root))] = path.read_bytes()
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "cache")
    yield bench
    bench.mirror.close()


def test_the_first_time_everything_is_fetched(bench: Bench) -> None:
    bench.store.put("m/2/weights.bin", b"\0" * 100)
    assert bench.mirror.sync(ALL).problems == {}
    assert bench.shown() == bench.store.content
    assert (bench.mirror.fetched_files, bench.mirror.fetched_bytes) == (3, 109)


def test_a_large_file_comes_in_pieces(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "CHUNK_BYTES", 3)
    bench.store.put("m/1/model.onnx", "eight by")
    bench.store.put("m/1/empty", "")
    bench.mirror.sync(ALL)
    assert bench.shown() == bench.store.content


def test_with_a_filled_cache_nothing_is_fetched(bench: Bench) -> None:
    bench.mirror.sync(ALL)
    bench.restart()
    assert bench.mirror.sync(ALL).problems == {}
    assert bench.shown() == bench.store.content
    assert bench.store.reads == [] and bench.mirror.fetched_files == 0


def test_with_a_filled_cache_the_store_may_be_away_at_start(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.mirror.sync(ALL)
    bench.restart()
    bench.store.down = "no route"
    with caplog.at_level(logging.WARNING):
        assert bench.mirror.sync(ALL).problems == {}
    assert "no route; serving what was fetched before" in caplog.text
    assert bench.shown() == bench.store.content
    with pytest.raises(LoadFailed, match="no route"):
        bench.mirror.sync(ALL)
    bench.store.down = ""
    bench.store.put("m/2/model.onnx", "two")
    bench.mirror.sync(ALL)
    bench.mirror.sync(ALL)
    assert bench.shown() == bench.store.content


def test_without_a_filled_cache_the_store_must_be_there_at_start(bench: Bench) -> None:
    bench.store.down = "no route"
    with pytest.raises(LoadFailed, match="no route"):
        bench.mirror.sync(ALL)


def test_later_a_change_is_taken_when_it_is_listed_the_same_twice(bench: Bench) -> None:
    bench.mirror.sync(ALL)
    before = bench.shown()
    bench.store.put("m/2/model.onnx", "two")
    bench.mirror.sync(ALL)
    assert bench.shown() == before
    bench.store.put("m/2/weights.bin", "more of two")
    bench.mirror.sync(ALL)
    assert bench.shown() == before
    bench.mirror.sync(ALL)
    assert bench.shown() == bench.store.content
    assert sorted(bench.store.reads) == ["m/1/model.onnx", "m/2/model.onnx", "m/2/weights.bin", "m/config.pbtxt"]


def test_a_model_goes_when_it_is_missing_twice(bench: Bench) -> None:
    bench.store.put("other/1/model.onnx", "x")
    bench.mirror.sync(ALL)
    for path in ("m/config.pbtxt", "m/1/model.onnx"):
        bench.store.remove(path)
    bench.mirror.sync(ALL)
    assert "m/1/model.onnx" in bench.shown()
    bench.mirror.sync(ALL)
    assert bench.shown() == bench.store.content


def test_what_nobody_shows_any_more_leaves_the_disk(bench: Bench) -> None:
    bench.mirror.sync(ALL)
    bench.store.put("m/1/model.onnx", "one, again")
    for _ in range(2):
        bench.mirror.sync(ALL)
    kept = [path.read_bytes() for path in bench.folder.rglob("files/*")]
    assert sorted(kept) == [b"config", b"one, again"]
    assert len(list(bench.folder.rglob("snapshots/*"))) == 1


def test_a_file_that_changes_while_it_is_read_is_not_shown_and_read_again(bench: Bench) -> None:
    bench.store.on_read = lambda path: bench.store.put(path, "two") if path == "m/1/model.onnx" else None
    assert "m/1/model.onnx: it changed while it was read" in bench.mirror.sync(ALL).problems["m"]
    assert bench.shown() == {}
    bench.store.on_read = lambda path: None
    for _ in range(2):
        assert "secret" not in str(bench.mirror.sync(ALL).problems)
    assert bench.shown() == bench.store.content


def test_a_short_read_is_not_shown(bench: Bench) -> None:
    bench.store.content["m/1/model.onnx"] = b"on"
    assert "2 bytes came instead of 3" in bench.mirror.sync(ALL).problems["m"]
    assert bench.shown() == {}


def test_content_that_is_not_what_the_store_says_is_not_shown_and_tried_again(bench: Bench) -> None:
    bench.store.content["m/1/model.onnx"] = b"oen"
    assert "its MD5 is" in bench.mirror.sync(ALL).problems["m"]
    assert bench.shown() == {}
    bench.store.content["m/1/model.onnx"] = b"one"
    assert bench.mirror.sync(ALL).problems == {}
    assert bench.shown() == bench.store.content


def test_a_tag_that_is_no_md5_is_taken_for_a_name_only(bench: Bench) -> None:
    bench.store.lie_about("m/1/model.onnx", md5="", tag="parts-2")
    assert bench.mirror.sync(ALL).problems == {}
    assert bench.shown() == bench.store.content


def sum_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_wrong_sum_is_refused_once_and_not_fetched_again(bench: Bench) -> None:
    bench.mirror.sync(ALL)
    before = bench.shown()
    bench.store.put("m/SHA256SUMS", f"{sum_of('config')}  config.pbtxt\n{sum_of('two')}  1/model.onnx\n")
    for _ in range(4):
        problems = bench.mirror.sync(ALL).problems
    assert f"m/1/model.onnx: its SHA-256 is {sum_of('one')}, not {sum_of('two')}; upload it again" in problems["m"]
    assert bench.shown() == before
    assert bench.store.reads.count("m/1/model.onnx") == 2
    bench.store.put("m/1/model.onnx", "two")
    for _ in range(2):
        problems = bench.mirror.sync(ALL).problems
    assert problems == {}
    assert bench.shown() == bench.store.content


def test_a_model_is_not_taken_before_all_files_with_a_sum_are_there(bench: Bench) -> None:
    bench.store.put("m/1/SHA256SUMS", f"{sum_of('one')}  model.onnx\n{sum_of('more')}  weights.bin\n")
    assert "there is a checksum for 1/weights.bin, and no such file (yet)" in bench.mirror.sync(ALL).problems["m"]
    assert bench.shown() == {}
    bench.store.put("m/1/weights.bin", "more")
    for _ in range(2):
        bench.mirror.sync(ALL)
    assert bench.shown() == bench.store.content


def test_a_failure_keeps_what_was_fetched_and_one_model_from_the_other(bench: Bench) -> None:
    def fail(path: str) -> None:
        if path == "m/2/model.onnx":
            raise LoadFailed("connection reset")

    bench.store.put("m/2/model.onnx", "two")
    bench.store.put("other/1/model.onnx", "x")
    bench.store.on_read = fail
    assert bench.mirror.sync(ALL).problems == {"m": "s3://…@bucket/models: connection reset"}
    assert bench.shown() == {"other/1/model.onnx": b"x"}
    bench.restart()
    bench.store.on_read = lambda path: None
    bench.mirror.sync(ALL)
    assert bench.shown() == bench.store.content
    assert bench.store.reads == ["m/2/model.onnx"]


def test_what_was_fetched_stays_while_a_model_has_not_settled(bench: Bench) -> None:
    def fail(path: str) -> None:
        if path == "m/2/weights.bin":
            raise LoadFailed("connection reset")

    bench.mirror.sync(ALL)
    bench.store.on_read = fail
    bench.store.put("m/2/model.onnx", "two")
    bench.store.put("m/2/weights.bin", "more of two")
    for _ in range(2):
        bench.mirror.sync(ALL)
    bench.store.put("m/2/labels.txt", "a")
    bench.store.on_read = lambda path: None
    for _ in range(2):
        bench.mirror.sync(ALL)
    assert bench.shown() == bench.store.content
    assert bench.store.reads.count("m/2/model.onnx") == 1


def test_what_a_killed_server_left_half_done_does_no_harm(bench: Bench) -> None:
    bench.mirror.sync(ALL)
    home = bench.mirror.root.parent
    (home / "files" / "abc.part").write_text("half")
    (home / "snapshots" / ".half" / "1").mkdir(parents=True)
    (home / "models" / ".m").symlink_to("nowhere")
    bench.restart()
    bench.store.put("m/1/model.onnx", "new")
    assert bench.mirror.sync(ALL).problems == {}
    assert bench.shown() == bench.store.content
    assert not (home / "files" / "abc.part").exists() and not (home / "snapshots" / ".half").exists()


def test_stopping_gives_up_what_is_being_fetched(bench: Bench) -> None:
    bench.mirror.stop()
    assert "given up, because the server stops" in bench.mirror.sync(ALL).problems["m"]


def test_a_full_disk_is_said_before_anything_is_fetched(bench: Bench) -> None:
    bench.store.lie_about("m/1/model.onnx", size=1 << 60)
    problem = bench.mirror.sync(ALL).problems["m"]
    assert f"{(1 << 60)} bytes are to be fetched" in problem and "--model-repository-cache-dir" in problem
    assert bench.store.reads == ["m/config.pbtxt"]


def test_only_models_that_are_asked_for_are_fetched(bench: Bench) -> None:
    bench.store.put("other/1/model.onnx", "x")
    synced = bench.mirror.sync(Selection(models=["m"]))
    assert synced.others == ("other",)
    assert "other/1/model.onnx" not in bench.store.reads


def test_the_configuration_decides_which_folders_are_fetched(bench: Bench) -> None:
    asked: list[object] = []

    def unneeded(name: str, config: str | None, folders: Collection[str]) -> list[str]:
        asked.append((name, config, folders))
        return ["1"]

    bench.store.put("m/2/model.onnx", "two")
    bench.mirror.sync(Selection(unneeded=unneeded))
    assert asked == [("m", "config", ("1", "2"))]
    assert set(bench.shown()) == {"m/config.pbtxt", "m/2/model.onnx"}
    assert bench.store.reads == ["m/config.pbtxt", "m/2/model.onnx"]


def test_two_servers_do_not_share_a_cache(bench: Bench) -> None:
    with pytest.raises(LoadFailed, match=r"another server has this cache of s3://…@bucket/models"):
        Cache(bench.folder, URL)


def test_a_temporary_cache_is_gone_after_the_stop(bench: Bench) -> None:
    mirror = Mirror(URL, bench.store, Cache(None, URL))
    mirror.sync(ALL)
    assert (mirror.root / "m" / "1" / "model.onnx").is_file()
    mirror.close()
    assert not mirror.root.parent.parent.exists()


def test_unchanged_files_keep_their_times(bench: Bench) -> None:
    bench.mirror.sync(ALL)
    before = os.stat(bench.mirror.root / "m" / "1" / "model.onnx")
    bench.store.put("m/2/model.onnx", "two")
    for _ in range(2):
        bench.mirror.sync(ALL)
    after = os.stat(bench.mirror.root / "m" / "1" / "model.onnx")
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
