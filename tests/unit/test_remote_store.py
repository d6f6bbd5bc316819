"""Stores through fsspec: those that need no network. What S3 does, `tests/real/test_repositories.py` sees."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import _registry
from fsspec.spec import AbstractFileSystem

from server.errors import LoadFailed
from server.remote.objects import RemoteFile
from server.remote.store import FsspecStore
from server.urls import RepositoryUrl

MD5 = hashlib.md5(b"one", usedforsecurity=False)


class Told(AbstractFileSystem):
    """A store of one file, which says of it what a test wants."""

    protocol = "told"
    info_of_file: dict[str, Any] = {}

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "type": "file", "size": 3, **self.info_of_file}

    def find(self, path: str, **_: Any) -> dict[str, dict[str, Any]]:
        return {f"{path}/m/1/model.onnx": self.info(f"{path}/m/1/model.onnx")}

    def cat_file(self, path: str, **_: Any) -> bytes:
        raise OSError("GET https://host/path?X-Amz-Signature=secret failed")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> type[Told]:
    fsspec.register_implementation("told", Told, clobber=True)
    monkeypatch.setattr(Told, "info_of_file", {"etag": "x"})
    return Told


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_files_are_listed_with_sizes_and_read_in_ranges(scheme: str, tmp_path: Path) -> None:
    root = f"{scheme}://{tmp_path}/models"
    fs, path = fsspec.core.url_to_fs(root)
    for name, content in (("m/1/model.onnx", b"0123456789"), ("m/config.pbtxt", b"")):
        fs.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{path}/{name}", content)
    store = FsspecStore(RepositoryUrl(root))
    files = {file.path: file for file in store.list()}
    assert {name: file.size for name, file in files.items()} == {"m/1/model.onnx": 10, "m/config.pbtxt": 0}
    assert store.read(files["m/1/model.onnx"], 3, 7) == b"3456"
    assert store.look_again(files["m/1/model.onnx"]) == files["m/1/model.onnx"]
    fs.pipe_file(f"{path}/m/1/model.onnx", b"another one")
    assert store.look_again(files["m/1/model.onnx"]) != files["m/1/model.onnx"]
    fs.rm(path, recursive=True)


@pytest.mark.parametrize(
    ("more", "tag", "md5"),
    [
        (
            {"generation": "7", "etag": "x", "md5Hash": "9a6c5rjw/3pRzD3rY3JQtg=="},
            "7",
            "f5ae9ce6b8f0ff7a51cc3deb637250b6",
        ),
        ({"etag": '"0x8D"', "content_settings": {"content_md5": bytearray(MD5.digest())}}, "0x8D", MD5.hexdigest()),
        ({"etag": '"0x8D"', "content_settings": {"content_md5": None}}, "0x8D", ""),
        ({"ETag": f'"{MD5.hexdigest()}"'}, MD5.hexdigest(), ""),
    ],
    ids=["Google", "Azure", "Azure without a sum", "an ETag that is not from S3"],
)
def test_what_a_store_says_of_a_file_is_understood(
    told: type[Told], more: dict[str, object], tag: str, md5: str
) -> None:
    told.info_of_file = more
    assert FsspecStore(RepositoryUrl("told://models")).list() == [RemoteFile("m/1/model.onnx", 3, tag, md5)]


class Bucket(Told):
    """S3, as far as HEAD tells of encryption."""

    protocol = "s3a"
    head: dict[str, str] = {}
    req_kw: dict[str, str] = {}

    def split_path(self, path: str) -> tuple[str, str, None]:
        return "bucket", path, None

    def call_s3(self, method: str, **_: object) -> dict[str, object]:
        assert method == "head_object"
        return {"ContentLength": 3, "ETag": f'"{MD5.hexdigest()}"', **self.head}


@pytest.mark.parametrize(
    ("head", "is_md5"),
    [
        ({}, True),
        ({"ServerSideEncryption": "AES256"}, True),
        ({"ServerSideEncryption": "aws:kms"}, False),
        ({"SSECustomerAlgorithm": "AES256"}, False),
    ],
)
def test_an_etag_is_no_sum_where_a_key_of_the_owners_encrypts(
    monkeypatch: pytest.MonkeyPatch, head: dict[str, str], is_md5: bool
) -> None:
    monkeypatch.setitem(_registry, "s3a", Bucket)
    monkeypatch.setattr(Bucket, "head", head)
    now = FsspecStore(RepositoryUrl("s3a://bucket/models")).look_again(RemoteFile("m/1/model.onnx", 3, "old"))
    assert now == RemoteFile("m/1/model.onnx", 3, MD5.hexdigest(), MD5.hexdigest() if is_md5 else "")


def test_a_store_that_tells_no_change_is_refused(told: type[Told]) -> None:
    told.info_of_file = {}
    with pytest.raises(LoadFailed, match=r"m/1/model\.onnx: the store tells no size, or neither ETag"):
        FsspecStore(RepositoryUrl("told://models")).list()


def test_errors_of_a_library_come_without_their_signatures(told: type[Told]) -> None:
    store = FsspecStore(RepositoryUrl("told://models"))
    with pytest.raises(LoadFailed) as caught:
        store.read(store.list()[0], 0, 3)
    message = "told://models: m/1/model.onnx: cannot be read: GET https://host/path?… failed"
    assert str(caught.value) == message
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("scheme", "package", "install"),
    [("s3", "s3fs", "'convoy[remote]'"), ("gs", "gcsfs", "fsspec gcsfs"), ("abfs", "adlfs", "fsspec adlfs")],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, scheme: str, package: str, install: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(_registry, scheme, raising=False)  # what was imported before is not asked for again
    with pytest.raises(LoadFailed, match=re.escape(f"install it: pip install {install}")):
        FsspecStore(RepositoryUrl(f"{scheme}://bucket/models"))


def test_without_fsspec_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(LoadFailed, match=re.escape("a package is missing")):
        FsspecStore(RepositoryUrl("s3://bucket/models"))


def test_a_folder_that_is_missing_is_not_an_empty_one(tmp_path: Path) -> None:
    store = FsspecStore(RepositoryUrl(f"file://{tmp_path}/models"))
    with pytest.raises(LoadFailed, match=r"models: cannot be listed: .*No such file"):
        store.list()
    (tmp_path / "models").mkdir()
    assert store.list() == []
    (tmp_path / "models").rmdir()
    (tmp_path / "models").write_text("no folder")
    with pytest.raises(LoadFailed, match="models: cannot be listed: it is a file"):
        store.list()


def test_a_folder_that_cannot_be_looked_into_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ls(self: LocalFileSystem, path: str, *arguments: Any, **named: Any) -> Any:
        if path.endswith("closed"):
            raise PermissionError(f"no right to look into {path}")
        return honest(self, path, *arguments, **named)

    honest = LocalFileSystem.ls
    monkeypatch.setattr(LocalFileSystem, "ls", ls)
    for name in ("open", "closed"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.onnx").write_text("a model")
    with pytest.raises(LoadFailed, match=r"cannot be listed: no right to look into .*closed"):
        FsspecStore(RepositoryUrl(f"file://{tmp_path}")).list()


def test_a_scheme_that_nobody_knows_is_named() -> None:
    with pytest.raises(LoadFailed, match="warp://models: cannot be opened: Protocol not known: warp"):
        FsspecStore(RepositoryUrl("warp://models"))
