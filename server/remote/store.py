"""Object stores, through fsspec: list, read a range, look again. fsspec is imported for the first URL and no sooner.

Messages of errors come from libraries that sign URLs: none leaves this file before it is redacted, and none is chained
to the library's own.
"""

from __future__ import annotations

import base64
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol

from server.errors import LoadFailed
from server.remote.objects import RemoteFile
from server.urls import RepositoryUrl

TAGS = ("generation", "ETag", "etag", "mtime", "LastModified", "last_modified", "Last-Modified", "modified", "created")
"""What says that the content of an object is another, the best first, as the stores' own libraries spell it."""

PACKAGES = {
    "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs",
    "http": "aiohttp", "https": "aiohttp",
}  # fmt: skip
"""What fsspec needs besides itself, by scheme, where the extra `remote` does not bring it."""

FOLDERS = ("file", "local", "http", "https", "ftp", "sftp", "ssh", "smb")
"""Schemes with folders, which can be missing or closed. On object stores a prefix without objects is just empty."""

_MD5 = re.compile(r"[0-9a-f]{32}")

_CHATTY = ("aiobotocore", "botocore", "s3fs", "fsspec", "gcsfs", "adlfs", "azure", "aiohttp", "google", "urllib3")
"""Their debug logs have signatures, tokens and whole requests."""


class Store(Protocol):
    """Where the files of a repository are. Methods raise `LoadFailed` where they fail, and block."""

    def list(self) -> list[RemoteFile]:
        """All files below the repository's root."""
        ...

    def read(self, file: RemoteFile, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`, which is at most the file's size."""
        ...

    def look_again(self, file: RemoteFile) -> RemoteFile:
        """The file as it is now. Its `md5` is sure to be one."""
        ...


class FsspecStore:
    """Any file system that fsspec knows, by URL."""

    def __init__(self, url: RepositoryUrl) -> None:
        """Raises `LoadFailed` where a package is missing or the URL is none."""
        self._url = url
        scheme = url.text.partition("://")[0].split("::")[-1]
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            import fsspec

            with self._explained("cannot be opened"):
                self._fs, root = fsspec.core.url_to_fs(
                    url.text, skip_instance_cache=True, use_listings_cache=False, **_options(scheme, fsspec)
                )
        except ImportError as error:
            packages = f"fsspec {PACKAGES[scheme]}" if scheme in PACKAGES else "'convoy[remote]'"
            raise LoadFailed(f"{url}: a package is missing ({error}); install it: pip install {packages}") from None
        self._root = str(root).rstrip("/")
        self._is_s3 = scheme in ("s3", "s3a")
        self._has_folders = scheme in FOLDERS

    def list(self) -> list[RemoteFile]:
        with self._explained("cannot be listed"):
            self._fs.invalidate_cache()
            found = self._walk() if self._has_folders else self._fs.find(self._root, detail=True)
            return [self._file(name, info) for name, info in found.items() if info.get("type") != "directory"]

    def _walk(self) -> dict[str, Mapping[str, Any]]:
        """As `find` of fsspec, which passes over what it cannot look into: all in there would be taken for removed."""
        found = {}
        folders = [self._root]
        while folders:
            folder = folders.pop()
            for info in self._fs.ls(folder, detail=True):
                name = info["name"].rstrip("/")
                if name == folder:
                    if info["type"] == "file":
                        raise NotADirectoryError("it is a file, no folder of models")
                elif info["type"] == "directory":
                    folders.append(name)
                else:
                    found[name] = info
        return found

    def read(self, file: RemoteFile, start: int, end: int) -> bytes:
        with self._explained(f"{file.path}: cannot be read"):
            return bytes(self._fs.cat_file(self._full(file), start=start, end=end))

    def look_again(self, file: RemoteFile) -> RemoteFile:
        with self._explained(f"{file.path}: cannot be looked at"):
            if self._is_s3:
                return self._head(file)
            self._fs.invalidate_cache()
            return self._file(self._full(file), self._fs.info(self._full(file)))

    def _head(self, file: RemoteFile) -> RemoteFile:
        """On S3, what kind of encryption there is decides whether an ETag is an MD5, and only HEAD tells."""
        bucket, key, _ = self._fs.split_path(self._full(file))
        head = self._fs.call_s3("head_object", Bucket=bucket, Key=key, **self._fs.req_kw)
        plain = head.get("ServerSideEncryption", "AES256") == "AES256" and "SSECustomerAlgorithm" not in head
        now = {"size": head["ContentLength"], "ETag": head["ETag"]}
        return _remote_file(file.path, now, etag_is_md5=plain)

    def _full(self, file: RemoteFile) -> str:
        return f"{self._root}/{file.path}"

    def _file(self, name: str, info: Mapping[str, Any]) -> RemoteFile:
        path = name.removeprefix(self._root).removeprefix("/")
        if info.get("size") is None or not any(info.get(tag) for tag in TAGS):
            info = {**info, **self._fs.info(name)}
        if info.get("size") is None or not any(info.get(tag) for tag in TAGS):
            raise LoadFailed(
                f"{self._url}: {path}: the store tells no size, or neither ETag, generation nor time, so that a change "
                "could not be seen; use a store that does"
            )
        return _remote_file(path, info, etag_is_md5=self._is_s3)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (LoadFailed, ImportError):
            raise
        except Exception as error:  # noqa: BLE001 -- whatever the library raises: its text may hold a signature
            reason = self._url.left_out_of(str(error)) or type(error).__name__
            raise LoadFailed(f"{self._url}: {what}: {reason}") from None


def _remote_file(path: str, info: Mapping[str, Any], *, etag_is_md5: bool) -> RemoteFile:
    found = next(info[tag] for tag in TAGS if info.get(tag))
    tag = str(found.timestamp() if isinstance(found, datetime) else found).strip('"')
    md5 = (tag if _MD5.fullmatch(tag) else "") if etag_is_md5 else _md5(info)
    return RemoteFile(path, int(info["size"]), tag, md5)


def _md5(info: Mapping[str, Any]) -> str:
    """What Azure or Google Cloud Storage say is the MD5."""
    settings = info.get("content_settings") or {}
    azure = settings.get("content_md5") if isinstance(settings, Mapping) else getattr(settings, "content_md5", None)
    if azure:
        return bytes(azure).hex()
    return base64.b64decode(info["md5Hash"]).hex() if info.get("md5Hash") else ""


def _options(scheme: str, fsspec: Any) -> dict[str, Any]:
    """What the server asks of a library: to give up on a store that does not answer within seconds, not minutes."""
    if scheme not in ("s3", "s3a"):
        return {}
    patience: dict[str, Any] = {"connect_timeout": 5, "read_timeout": 30}
    if not {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"} & os.environ.keys():
        patience["retries"] = {"mode": "standard", "total_max_attempts": 3}
    return {"config_kwargs": {**patience, **fsspec.config.conf.get("s3", {}).get("config_kwargs", {})}}
