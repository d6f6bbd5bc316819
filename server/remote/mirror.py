"""A remote repository in a local folder: one `sync` after another makes the folder what the store lists.

Rules of this file:
- A model changes as a whole or not at all: whatever goes wrong is that model's problem, and what was here stays.
- From the second time on, a model is taken only as two listings in a row have it: an upload may be in progress.
- What was fetched and checked is never fetched again, whatever becomes of the rest.
All methods block, and run on one thread, `stop` excepted.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from server.errors import ChecksumWrong, LoadFailed
from server.remote.cache import Cache
from server.remote.checksums import expected_sums, is_sums, missing
from server.remote.objects import Listing, RemoteModel, sort_out
from server.remote.plan import Piece, Plan, plan, unused
from server.remote.store import Store
from server.urls import RepositoryUrl

log = logging.getLogger(__name__)

CHUNK_BYTES = 8 << 20
CONNECTIONS = 4
"""Files that are fetched at once; so many chunks are in memory."""

CONFIG = "config.pbtxt"


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a repository is wanted here."""

    models: Collection[str] | None = None
    """Names; None is every one."""
    unneeded: Callable[[str, str | None, Collection[str]], Collection[str]] = lambda name, config, folders: ()
    """Model, text of its configuration and its folders → those that need not be fetched."""
    configs: Sequence[str] = (CONFIG,)
    """Paths of a model's configuration, the one to go by first."""

    def wants(self, name: str) -> bool:
        return self.models is None or name in self.models


@dataclass(frozen=True, slots=True)
class Synced:
    """How a `sync` went."""

    problems: Mapping[str, str] = field(default_factory=dict)
    """Model name → why it is not here, or not as the store has it."""
    others: tuple[str, ...] = ()
    """Models of the store that are not wanted here."""


class Mirror:
    """One remote repository, mirrored."""

    def __init__(self, url: RepositoryUrl, store: Store, cache: Cache) -> None:
        self._url = url
        self._store = store
        self._cache = cache
        self._stopped = threading.Event()
        self._started = False
        self._before: Listing | None = None
        self._refused: dict[str, str] = {}
        """Snapshot → why it must not be served. It is not fetched again."""
        self.fetched_files = 0
        self.fetched_bytes = 0

    @property
    def root(self) -> Path:
        """The folder of models."""
        return self._cache.models

    def stop(self) -> None:
        """Give up what is in progress. From any thread."""
        self._stopped.set()

    def close(self) -> None:
        """Give the cache back."""
        self._cache.close()

    def sync(self, selection: Selection) -> Synced:
        """Make the folder what the store lists. Raises `LoadFailed` where it cannot be listed; nothing changes then.

        The first time, a folder that was filled before is good enough where the store cannot be listed.
        """
        first, self._started = not self._started, True
        try:
            listing = sort_out(self._store.list())
        except LoadFailed as error:
            if first and self._cache.names():
                log.warning("%s; serving what was fetched before", error)
                return Synced()
            raise
        if self._before is None or listing.ignored != self._before.ignored:
            for problem in listing.ignored:
                log.warning("%s: %s", self._url, problem)
        wanted = {name: model for name, model in listing.models.items() if selection.wants(name)}
        problems = {
            name: f"{self._url}: {problem}" for name, problem in listing.problems.items() if selection.wants(name)
        }
        if first and not listing.models:
            log.warning("%s: there is no model", self._url)
        settled = [name for name, model in wanted.items() if first or self._settled(model)]
        needed: set[str] = set()
        for name, model in wanted.items():
            if name in settled:
                try:
                    self._bring(model, selection, needed)
                except LoadFailed as error:
                    problems[name] = f"{self._url}: {error}"
        for name in self._cache.names().keys() - wanted.keys() - problems.keys():
            if first or self._is_gone(name):
                self._cache.hide(name)
        self._before = listing
        self._cache.collect(())
        if len(settled) == len(wanted):  # else it may be that files of the others were fetched already
            self._cache.collect(unused(self._cache.links(), needed))
        return Synced(problems, tuple(sorted(listing.models.keys() - wanted.keys())))

    def _settled(self, model: RemoteModel) -> bool:
        return self._before is not None and self._before.models.get(model.name) == model

    def _is_gone(self, name: str) -> bool:
        """Whether a model that is not listed now was not the last time, either."""
        return self._before is not None and name not in {**self._before.models, **self._before.problems}

    def _bring(self, model: RemoteModel, selection: Selection, needed: set[str]) -> None:
        """Fetch what is missing of a model, check it, and show it. `needed` gets the names of its files."""
        planned = self._plan(model, selection, needed)
        needed.update(piece.pool_name for piece in planned.pieces)
        if self._cache.names().get(model.name) == planned.snapshot:
            return
        if planned.snapshot in self._refused:
            raise LoadFailed(self._refused[planned.snapshot])
        self._cache.check_room(planned.fetch_bytes)
        try:
            self._fetch(planned.fetch)
        except ChecksumWrong as error:
            self._refused[planned.snapshot] = str(error)
            raise
        self._cache.show(model.name, planned)
        log.info(
            "model '%s' of %s is here: %d of its %d files fetched, %d bytes",
            model.name, self._url, len(planned.fetch), len(planned.pieces), planned.fetch_bytes,
        )  # fmt: skip

    def _plan(self, model: RemoteModel, selection: Selection, needed: set[str]) -> Plan:
        """What says what is wanted, and what it must be, is fetched first."""
        sums = self._sums(model, [path for path in model.files if is_sums(path) and "/" not in path], needed)
        path = next((path for path in selection.configs if path in model.files), None)
        config = None if path is None else self._text(model, path, sums, needed)
        left_out = selection.unneeded(model.name, config, model.folders)
        more = [path for path in model.files if is_sums(path) and path.split("/")[0] not in left_out]
        sums = self._sums(model, more, needed)
        if absent := missing(sums, model.files.keys(), left_out):
            raise LoadFailed(f"model '{model.name}': there is a checksum for {absent[0]}, and no such file (yet)")
        return plan(model, left_out, sums, self._cache.pool())

    def _sums(self, model: RemoteModel, paths: Iterable[str], needed: set[str]) -> dict[str, str]:
        return expected_sums({path: self._text(model, path, {}, needed) for path in paths})

    def _text(self, model: RemoteModel, path: str, sums: Mapping[str, str], needed: set[str]) -> str:
        piece = Piece(path, model.files[path], sums.get(path, ""))
        needed.add(piece.pool_name)
        if self._cache.pool().get(piece.pool_name) != piece.file.size:
            self._fetch([piece])
        return self._cache.text(piece.pool_name)

    def _fetch(self, pieces: Collection[Piece]) -> None:
        """Bring these files into the pool, some at once. Raises `LoadFailed` for the first that fails."""
        pieces = {piece.pool_name: piece for piece in pieces}.values()
        in_parallel([partial(self._fetch_one, piece) for piece in pieces], CONNECTIONS)
        self.fetched_files += len(pieces)
        self.fetched_bytes += sum(piece.file.size for piece in pieces)

    def _fetch_one(self, piece: Piece) -> None:
        file = piece.file
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        with self._cache.incoming(piece.pool_name) as incoming:
            for start in range(0, file.size, CHUNK_BYTES):
                if self._stopped.is_set():
                    raise LoadFailed(f"{file.path}: given up, because the server stops")
                end = min(start + CHUNK_BYTES, file.size)
                data = self._store.read(file, start, end)
                if len(data) != end - start:
                    raise LoadFailed(f"{file.path}: {len(data)} bytes came instead of {end - start}; it is tried again")
                incoming.write(data)
                md5.update(data)
                sha256.update(data)
            now = self._store.look_again(file)
            if (now.size, now.tag) != (file.size, file.tag):
                raise LoadFailed(f"{file.path}: it changed while it was read; it is tried again")
            if piece.sha256 and sha256.hexdigest() != piece.sha256:
                raise ChecksumWrong(
                    f"{file.path}: its SHA-256 is {sha256.hexdigest()}, not {piece.sha256}; upload it again"
                )
            if now.md5 and not piece.sha256 and md5.hexdigest() != now.md5:
                raise LoadFailed(
                    f"{file.path}: its MD5 is {md5.hexdigest()}, the store says {now.md5}; it is tried again"
                )


def in_parallel(jobs: Iterable[Callable[[], None]], workers: int) -> None:
    """Run jobs on a few threads that nobody waits for when the process ends. Raises the first error, once all that have
    begun are done; others do not begin."""
    waiting, errors = deque(jobs), list[BaseException]()

    def work() -> None:
        while not errors:
            try:
                job = waiting.popleft()
            except IndexError:
                return
            try:
                job()
            except BaseException as error:  # noqa: BLE001 -- whoever waits for the jobs raises it
                errors.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(waiting)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
