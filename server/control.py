"""The control plane: what repositories hold, what should serve, and the steps between. It never touches a request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import ParamSpec, TypeVar

from server.backends.base import Backend
from server.backends.cores import available_cores
from server.errors import LoadFailed
from server.models import stamps
from server.models.config import LoadSettings, ModelConfig
from server.models.ensemble import load_order
from server.models.ensemble_model import EnsembleVersion
from server.models.ensemble_run import Members
from server.models.ensembles import Ensembles
from server.models.lifecycle import State, VersionStatus
from server.models.model import TINY_BATCH_SECONDS, LoadedVersion
from server.models.opening import Opener, open_ensemble, read_settings
from server.models.outlook import Outlook
from server.models.pictures import PictureDecoder
from server.models.probe import working_probe
from server.models.recovery import Recovery
from server.models.registry import ModelEntry, Registry
from server.models.repositories import Look, Repositories
from server.models.repository import ModelFolder
from server.models.served import Served
from server.models.stamps import ModelSnapshot, Stamp, VersionStamp
from server.models.versions import Forget, Load, Reload, Unload, next_action, wanted_versions
from server.remote.store import FsspecStore, Store
from server.scheduling.budget import ByteBudget
from server.scheduling.clock import Clock
from server.scheduling.naps import Nap
from server.scheduling.turns import Turns
from server.summaries import LatencySummaries
from server.urls import RepositoryUrl

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

ALL_MODELS = "*"


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """What decides which models are loaded, and how."""

    roots: tuple[Path, ...]
    load_models: tuple[str, ...] | None
    """Names to load, `ALL_MODELS` for every one; None loads every one too."""
    default_max_batch_size: int
    autocomplete: bool
    max_queued_bytes: int = 1 << 30
    """Bytes of requests that may wait, for all models together."""
    tiny_batch_seconds: float = TINY_BATCH_SECONDS
    """What takes less runs on the event loop's thread, unless it is on a GPU."""
    max_running_batches: int | None = None
    """Batches that may run at once on the CPU, of all models together; 0: no limit; None: as many as cores."""
    urls: tuple[RepositoryUrl, ...] = ()
    """Repositories at a distance, beside `roots`."""
    cache_dir: Path | None = None
    """Where those are mirrored; None: a temporary folder."""
    poll: bool = False
    """Whether repositories are followed after the start; then nothing is loaded whose files are just being written."""
    summaries: bool = False
    """Whether quantiles of the last minute's latencies are kept."""

    @property
    def everything(self) -> bool:
        """Whether all models are to be loaded."""
        return self.load_models is None or ALL_MODELS in self.load_models


class ControlPlane:
    """Loads and unloads versions, one step of `versions.next_action` at a time."""

    def __init__(
        self,
        settings: ControlSettings,
        registry: Registry,
        backend: Backend,
        clock: Clock,
        open_store: Callable[[RepositoryUrl], Store] = FsspecStore,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._backend = backend
        self._opener = Opener(
            backend, default_max_batch_size=settings.default_max_batch_size, autocomplete=settings.autocomplete
        )
        self._clock = clock
        self._budget = ByteBudget(settings.max_queued_bytes)
        self._recovery = Recovery(registry, clock)
        self.ensembles = Ensembles(registry, self._make_ensemble)
        limit = settings.max_running_batches
        self.turns = Turns(available_cores() if limit is None else limit or inf)
        """Of all models on the CPU. Another device has turns of its own."""
        # One thread, which starts with the first model, before anyone is served: the event loop waits while one starts.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._decoder: PictureDecoder | None = None
        names = None if settings.everything else settings.load_models
        self._outlook = Outlook(Repositories(settings.roots, settings.urls, settings.cache_dir, names, open_store))
        self._nap = Nap(clock)
        self._polling: asyncio.Task[None] | None = None
        self._read: dict[str, tuple[Path, Stamp, LoadSettings | LoadFailed]] = {}
        """What the configuration of a model said, and which files it was read from."""
        self._tried: dict[tuple[str, int], VersionStamp] = {}
        """The files that a version was last loaded from, or failed to be."""

    @property
    def unseen_repositories(self) -> int:
        """How many could not be looked at the last time that they were to be followed."""
        return len(self._outlook.unseen)

    async def load_all(self) -> None:
        """Bring every model that should serve to READY or UNAVAILABLE. Raises `LoadFailed` where a root is missing."""
        look = await self._outlook.first()
        chosen = self._settings.load_models or ()
        there = sorted({*look.models, *look.problems, *look.others})
        if not there:
            places = ", ".join(map(str, (*self._settings.roots, *self._settings.urls)))
            log.warning("there is no model in %s: nothing can be served from there", places)
        wanted = await self._with_members(look, [n for n in there if self._settings.everything or n in chosen])
        for name in wanted:
            await self._bring(name, look.models.get(name), look.problems.get(name, ""))
        for name in there:
            if name not in wanted and name not in look.problems:
                self._registry.entry(name)
        for name in chosen:
            if name != ALL_MODELS and not self._registry.has(name):
                self._note(name, f"no repository has a model '{name}'")

    def follow(self, seconds: float) -> None:
        """From now on, look every so many seconds at what has become of the repositories, and follow."""
        self._polling = asyncio.get_running_loop().create_task(self._poll_every(seconds))

    async def _poll_every(self, seconds: float) -> None:
        while await self._nap.sleep(seconds):
            try:
                await self.poll()
            except Exception:  # a bug: what serves goes on, and so do the next looks
                log.exception("following the model repositories raised")

    async def poll(self) -> None:
        """Look at the repositories, and follow what they settled on. Where they cannot be seen, nothing changes."""
        look = await self._outlook.again({e.name: frozenset(e.loaded) | e.recovering for e in self._registry})
        if look is None:
            return
        known = [entry.name for entry in self._registry]
        for name in await self._with_members(look, sorted({*known, *look.models, *look.problems})):
            if not self._nap.ended:
                await self._bring(name, look.models.get(name), look.problems.get(name, ""), beside=True)

    def give_up_loads(self) -> None:
        """Load nothing more, and do not finish what is being loaded."""
        self._nap.end()
        self._outlook.give_up()
        self._backend.give_up_loads()

    async def unload_all(self) -> None:
        """Drain and unload everything that serves."""
        self.give_up_loads()
        if self._polling is not None:
            await self._polling
        await self._recovery.stop()
        await self.ensembles.stop()
        await asyncio.gather(*(self._unload(loaded) for loaded in self._registry.loaded()))
        if self._decoder is not None:
            await self._decoder.close()
            self._decoder = None
        self._outlook.close()

    async def _off_the_loop(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._loader, partial(function, *arguments, **named))

    async def _bring(self, name: str, snapshot: ModelSnapshot | None, problem: str, *, beside: bool = False) -> None:
        """Take the steps from what serves to what the repository has: `snapshot`, None where the model is gone.

        `problem` is why it is not as it should be. `beside`: the server serves already, and what comes and fails does
        not make it less ready.
        """
        if beside and not self._registry.has(name):
            self._registry.entry(name).newcomer = True
        settings: LoadSettings | None = None
        wanted: tuple[int, ...] = ()
        if snapshot is not None:
            try:
                settings = await self._settings_of(snapshot)
            except LoadFailed as error:
                problem = problem or str(error)
            else:
                wanted = wanted_versions(settings.version_policy, snapshot.folder.versions)
                problem = problem or ("" if wanted else _nothing_wanted(snapshot.folder, settings))
        self._note(name, problem)
        if settings is None and problem:
            return  # what cannot be understood changes nothing that serves
        entry = self._registry.entry(name)
        for version in entry.recovering.difference(wanted):
            await self._recovery.give_up(name, version)
        stale = {
            version for version in wanted if snapshot and self._tried.get((name, version)) != snapshot.stamp(version)
        }
        while not self._nap.ended and (action := next_action(_statuses(entry), wanted, stale)):
            stale.discard(action.version)
            if beside and entry.loaded and not isinstance(action, Reload):
                entry.beside.add(action.version)
            match action:
                case Load(version):
                    assert snapshot is not None and settings is not None, "it is wanted"
                    await self._load(snapshot.folder, version, settings, self._expected(snapshot, version))
                case Reload(version):
                    assert snapshot is not None and settings is not None, "it is wanted"
                    await self._reload(snapshot, version, settings)
                case Unload(version):
                    await self._recovery.give_up(name, version)
                    await self._unload(entry.loaded[version])
                    log.info("model '%s' version %d is unloaded", name, version)
                case Forget(version):
                    await self.ensembles.give_up(name, version)
                    self._tried.pop((name, version), None)
                    self._registry.forget(name, version)
        if snapshot is None and not entry.statuses:
            self._read.pop(name, None)
            self._registry.forget(name)

    async def _with_members(self, look: Look, names: Sequence[str]) -> list[str]:
        """These models, and those that the ensembles among them are made of, which come before them."""
        needs: dict[str, tuple[str, ...]] = {}
        left = list(names)
        while left:
            name = left.pop()
            if name not in needs:
                needs[name] = await self._step_models(look.models.get(name))
                left += [model for model in needs[name] if model in look.models or model in look.problems]
        return load_order(needs)

    async def _step_models(self, snapshot: ModelSnapshot | None) -> tuple[str, ...]:
        """The models that one is made of; none where it is no ensemble, or cannot be understood."""
        if snapshot is None:
            return ()
        try:
            ensemble = (await self._settings_of(snapshot)).ensemble
        except LoadFailed:
            return ()
        return ensemble.models if ensemble is not None else ()

    async def _settings_of(self, snapshot: ModelSnapshot) -> LoadSettings:
        """The configuration, read once for the same files. Raises `LoadFailed`."""
        folder = snapshot.folder
        path, shared, settings = self._read.get(folder.name, (None, None, LoadFailed()))
        if (path, shared) != (folder.path, snapshot.shared):
            try:
                settings = await self._off_the_loop(read_settings, folder)
            except LoadFailed as error:
                settings = error
            self._read[folder.name] = folder.path, snapshot.shared, settings
        if isinstance(settings, LoadFailed):
            raise settings
        return settings

    def _expected(self, snapshot: ModelSnapshot, version: int) -> VersionStamp | None:
        return snapshot.stamp(version) if self._settings.poll else None

    async def _load(
        self,
        folder: ModelFolder,
        version: int,
        settings: LoadSettings | None = None,
        expected: VersionStamp | None = None,
        trying_again: str = "",
    ) -> bool:
        """Load a version, or load it again; the reason of a failure ends with `trying_again`. Returns success."""
        await self.ensembles.give_up(folder.name, version)
        self._registry.set_state(folder.name, version, State.LOADING)
        try:
            loaded = await self._open(folder, version, settings, expected, must_work=bool(trying_again))
        except LoadFailed as error:
            reason = f"{error}; {trying_again}" if trying_again else str(error)
            self._registry.set_state(folder.name, version, State.UNAVAILABLE, reason)
            log.error("model '%s' version %d is UNAVAILABLE: %s", folder.name, version, reason)
            return False
        self._registry.set_ready(folder.name, loaded)
        log.info("model '%s' version %d is READY after %.2f s", folder.name, version, loaded.load_seconds)
        return True

    async def _reload(self, snapshot: ModelSnapshot, version: int, settings: LoadSettings) -> None:
        """Load a version that serves beside itself, let the new one take over, and drain the old one."""
        name = snapshot.folder.name
        self._registry.begin_reload(name, version)
        try:
            fresh = await self._open(snapshot.folder, version, settings, self._expected(snapshot, version))
        except LoadFailed as error:
            reason = f"its files have changed and cannot be loaded; what was loaded before serves on: {error}"
            self._registry.reload_failed(name, version, reason)
            log.error("model '%s' version %d: %s", name, version, reason)
            return
        old = self._registry.take_over(name, fresh)
        if old is None:  # its session went bad meanwhile: `recovery` loads it again, from the new files
            old = fresh
        else:
            if not isinstance(fresh, EnsembleVersion):  # though it may have been one
                await self.ensembles.give_up(name, version)
            log.info("model '%s' version %d is loaded anew after %.2f s", name, version, fresh.load_seconds)
        await old.drain()

    async def _open(
        self,
        folder: ModelFolder,
        version: int,
        settings: LoadSettings | None,
        expected: VersionStamp | None,
        *,
        must_work: bool = False,
    ) -> Served:
        """A version that is ready to serve. Raises `LoadFailed`, also where its files are not those `expected`, before
        or after."""
        try:
            if expected is None:
                self._tried[folder.name, version] = await self._off_the_loop(_stamp, folder, version)
            else:
                self._tried[folder.name, version] = expected
                await self._off_the_loop(_check_unchanged, folder, version, expected)
            if settings is None:
                settings = await self._off_the_loop(read_settings, folder)
            if settings.ensemble is not None:
                config = await self._off_the_loop(open_ensemble, folder)
                return self.ensembles.open(config, version)
            return await self._open_model(folder, version, settings, expected, must_work)
        except LoadFailed:
            raise
        except Exception as error:  # a bug, or a backend's surprise: this version fails, the others serve
            log.exception("loading model '%s' version %d raised", folder.name, version)
            raise LoadFailed(f"unexpected {type(error).__name__}: {error}") from error

    async def _open_model(
        self, folder: ModelFolder, version: int, settings: LoadSettings, expected: VersionStamp | None, must_work: bool
    ) -> LoadedVersion:
        """A version of a model with a file of its own. Raises as `_open`, and whatever the backend raises."""
        started = time.monotonic()
        opened = await self._off_the_loop(self._opener.open, folder, version, settings)
        if expected is not None:
            await self._off_the_loop(_check_unchanged, folder, version, expected)
        probe = await self._off_the_loop(
            working_probe, opened.config, version, opened.sessions[0], opened.costs, must_work=must_work
        )
        loaded = LoadedVersion(
            opened.config,
            version,
            opened.sessions,
            self._clock,
            time.monotonic() - started,
            self._budget,
            # Turns share the cores out: instances on a GPU do not stand in line for them.
            None if opened.on_gpu else self.turns,
            # On a GPU the thread only waits, so nothing is won by running there, and the event loop would wait too.
            tiny_batch_seconds=0.0 if opened.on_gpu else self._settings.tiny_batch_seconds,
            costs=opened.costs,
            decoder=self._picture_decoder() if opened.config.preprocessing is not None else None,
            summaries=self._latency_summaries(),
        )
        if probe is not None:
            self._recovery.watch(loaded, probe, partial(self._load, folder, version, None, None))
        return loaded

    def _make_ensemble(self, config: ModelConfig, version: int, members: Members) -> EnsembleVersion:
        return EnsembleVersion(config, version, members, self._clock, self._budget, self._latency_summaries())

    def _latency_summaries(self) -> LatencySummaries | None:
        return LatencySummaries() if self._settings.summaries else None

    def _picture_decoder(self) -> PictureDecoder:
        """One for all models, from when the first one takes pictures. It leaves a core to the event loop."""
        if self._decoder is None:
            from server.pictures.decode import decode  # needs Pillow: `_open` has seen to it

            self._decoder = PictureDecoder(decode, max(1, available_cores() - 1), self._clock, self._budget)
        return self._decoder

    async def _unload(self, loaded: Served) -> None:
        name = loaded.config.name
        await self.ensembles.give_up(name, loaded.version)
        self._registry.set_state(name, loaded.version, State.DRAINING)
        await loaded.drain()
        self._registry.set_state(name, loaded.version, State.UNAVAILABLE, "unloaded")

    def _note(self, name: str, problem: str) -> None:
        """Remember what is wrong with a model, "" for nothing, and tell it once."""
        if problem == (self._registry.entry(name).problem if self._registry.has(name) else ""):
            return
        self._registry.set_problem(name, problem)
        if not problem:
            return
        if self._registry.entry(name).loaded:
            log.error("model '%s' serves on as it is: %s", name, problem)
        else:
            log.error("model '%s' is UNAVAILABLE: %s", name, problem)


def _statuses(entry: ModelEntry) -> Sequence[VersionStatus]:
    """What became of each version; those that `recovery` is about are being loaded."""
    busy = {v for v in entry.recovering if entry.statuses[v].state is not State.READY}
    return [replace(s, state=State.LOADING) if s.version in busy else s for s in entry.statuses.values()]


def _nothing_wanted(folder: ModelFolder, settings: LoadSettings) -> str:
    what = f"none of its versions {list(folder.versions)} is wanted" if folder.versions else "it has no version"
    content = f"with {settings.model_filename}" if settings.ensemble is None else "which may be empty"
    return f"{folder.path}: {what}; add a folder '1' {content}"


def _stamp(folder: ModelFolder, version: int) -> VersionStamp:
    return stamps.take(replace(folder, versions=(version,))).stamp(version)


def _check_unchanged(folder: ModelFolder, version: int, expected: VersionStamp) -> None:
    if _stamp(folder, version) != expected:
        raise LoadFailed(
            f"{folder.path}: the files of version {version} are changing; they are loaded once they are still"
        )
