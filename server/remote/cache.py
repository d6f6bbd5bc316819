"""The folder that a remote repository is mirrored into.

    <cache>/<key of the URL>/lock
    .../files/<name>               whole and checked; <name>.part while it is being fetched
    .../snapshots/<model>.<name>/  hard links to files; never changed once it has its name
    .../models/<model>             a link to the snapshot to serve: what the rest of the server sees

Everything comes to its place by a rename of what is complete, so a process that dies at any point leaves nothing that
is half there under a name that counts. One server at a time has the folder.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from server.errors import LoadFailed
from server.remote.plan import Plan
from server.urls import RepositoryUrl

PART = ".part"
"""The end of the name of a file that is not complete."""

SPARE_BYTES = 64 << 20
"""What must stay free on the disk."""


class Cache:
    """One repository's place on this machine's disk."""

    def __init__(self, folder: Path | None, url: RepositoryUrl) -> None:
        """`folder` is shared by all repositories and kept; None is a new one that `close` removes.

        Raises `LoadFailed` where it cannot be made, or another server has it.
        """
        self._temporary: Path | None = None
        what = "the cache of the model repository" if folder is None else f"--model-repository-cache-dir {folder}"
        with _explained(what):
            if folder is None:
                folder = self._temporary = Path(tempfile.mkdtemp(prefix="convoy-repository-"))
            self._home = folder.absolute() / hashlib.sha256(url.text.encode()).hexdigest()[:16]
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                raise LoadFailed(
                    f"{self._home}: another server has this cache of {url}; each needs a --model-repository-cache-dir"
                ) from None
            self._files, self._snapshots, self.models = (
                self._home / name for name in ("files", "snapshots", "models")
            )  # fmt: skip
            for path in (self._files, self._snapshots, self.models):
                path.mkdir(exist_ok=True)

    def close(self) -> None:
        """Let another server have it; a temporary one is gone then."""
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
        os.close(self._lock)

    def pool(self) -> dict[str, int]:
        """Sizes of the files that are here, by name."""
        with _explained(self._files), os.scandir(self._files) as entries:
            return {entry.name: entry.stat().st_size for entry in entries}

    def names(self) -> dict[str, str]:
        """The name of the snapshot of every model that is here."""
        with _explained(self.models):
            return {
                path.name: os.readlink(path).rpartition("/")[2]
                for path in self.models.iterdir()
                if path.is_symlink() and not path.name.startswith(".")
            }

    def text(self, name: str) -> str:
        """A file of the pool. Raises `LoadFailed` where it is no text."""
        with _explained(self._files):
            return (self._files / name).read_text(encoding="utf-8-sig")

    def check_room(self, size: int) -> None:
        """Raises `LoadFailed` where the disk has no room for so many bytes more."""
        with _explained(self._files):
            free = shutil.disk_usage(self._files).free
        if size + SPARE_BYTES > free:
            raise LoadFailed(
                f"{self._files}: {size} bytes are to be fetched, {free} are free and {SPARE_BYTES} must stay so; "
                "free some, or move --model-repository-cache-dir"
            )

    @contextmanager
    def incoming(self, name: str) -> Iterator[BinaryIO]:
        """A new file of the pool, to be written. It has its name once the block ends without an error."""
        part = self._files / f"{name}{PART}"
        with _explained(part):
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.rename(part, self._files / name)

    def show(self, model: str, plan: Plan) -> None:
        """Make this snapshot, all of whose files are in the pool, the one to serve."""
        snapshot = self._snapshots / plan.snapshot
        with _explained(snapshot):
            if not snapshot.is_dir():
                building = Path(tempfile.mkdtemp(prefix=".", dir=self._snapshots))
                for piece in plan.pieces:
                    path = building / piece.path
                    path.parent.mkdir(parents=True, exist_ok=True)
                    os.link(self._files / piece.pool_name, path)
                os.rename(building, snapshot)
            link = self.models / f".{model}"
            link.unlink(missing_ok=True)
            link.symlink_to(f"../{self._snapshots.name}/{plan.snapshot}")
            os.rename(link, self.models / model)

    def hide(self, model: str) -> None:
        """This model is not to be served any more."""
        with _explained(self.models):
            (self.models / model).unlink(missing_ok=True)

    def collect(self, unused: Collection[str]) -> None:
        """Remove these files of the pool, and the snapshots that no model has. What cannot be removed stays."""
        current = set(self.names().values())
        for path in self._snapshots.iterdir():
            if path.name not in current:
                shutil.rmtree(path, ignore_errors=True)
        for name in unused:
            (self._files / name).unlink(missing_ok=True)

    def links(self) -> dict[str, int]:
        """How many names each file of the pool has on this disk, its own included."""
        with _explained(self._files), os.scandir(self._files) as entries:
            return {entry.name: entry.stat().st_nlink for entry in entries}


@contextmanager
def _explained(what: object) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise LoadFailed(f"{what}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise LoadFailed(f"{what}: {error.strerror or error}; check the permissions of this folder") from error
        raise LoadFailed(f"{what}: the disk is full; free some, or move --model-repository-cache-dir") from error
