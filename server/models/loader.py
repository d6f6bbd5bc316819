"""Carries out the steps of the control plane: versions are loaded, take over from one another, and are drained.

Everything slow is done on threads, for a bounded number of versions at once; what changes the registry happens on the
event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from server import malloc
from server.backends.base import Backend
from server.backends.cores import available_cores
from server.cache.store import Store
from server.errors import ConfigInvalid, LoadFailed, LoadTimedOut
from server.models import stamps
from server.models.cached import CachedEnsemble, CachedVersion
from server.models.config import ModelConfig
from server.models.ensemble_model import EnsembleVersion
from server.models.ensemble_run import Members
from server.models.ensembles import Ensembles
from server.models.identity import content_identity, ensemble_identity, new_identity
from server.models.lifecycle import UNLOADED, State
from server.models.load_threads import LimitedLoad, LoadThreads
from server.models.model import LoadedVersion
from server.models.opening import Configuration, Opened, Opener, open_ensemble, read_configuration
from server.models.pictures import PictureDecoder
from server.models.recovery import Recovery
from server.models.registry import Registry
from server.models.repository import ModelFolder
from server.models.served import Served
from server.models.shortages import is_passing
from server.models.stamps import VersionStamp
from server.models.succession import Successions
from server.scheduling.budget import ByteBudget
from server.scheduling.clock import Clock
from server.scheduling.turns import Turns
from server.summaries import LatencySummaries

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Origin(NamedTuple):
    """What a version is loaded from."""

    folder: ModelFolder
    configuration: Configuration | None = None
    """None: what the model's file says when the version is loaded."""
    expected: VersionStamp | None = None
    """The files as they must be before and after they are read; None: as they are."""


class Tried(NamedTuple):
    """The files and the given configuration that a version was last loaded from, or failed to be."""

    stamp: VersionStamp
    given: str


class Loader:
    """Loads and unloads the versions of one registry."""

    def __init__(
        self,
        registry: Registry,
        backend: Backend,
        clock: Clock,
        *,
        default_max_batch_size: int,
        autocomplete: bool,
        config_name: str,
        threads: int,
        retries: int,
        budget: ByteBudget,
        tiny_batch_seconds: float,
        summaries: bool,
        run_timeout_ms: int,
        load_timeout_secs: float,
        turns: Turns,
        store: Store | None,
    ) -> None:
        """`threads` versions are loaded at once, each within `load_timeout_secs` (0: as long as it likes); a load that
        fails is tried `retries` times more. `run_timeout_ms`: see `Opener`."""
        self._registry = registry
        self._opener = Opener(
            backend,
            default_max_batch_size=default_max_batch_size,
            autocomplete=autocomplete,
            run_timeout_ms=run_timeout_ms,
        )
        self._clock = clock
        self._config_name = config_name
        self._retries = retries
        self._budget = budget
        self._tiny_batch_seconds = tiny_batch_seconds
        self._summaries = summaries
        self._turns = turns
        self._store = store
        self._threads = LoadThreads(threads, clock, load_timeout_secs)
        self._slots = asyncio.Semaphore(threads)
        self._decoder: PictureDecoder | None = None
        self._given_up = False
        self.recovery = Recovery(registry, clock)
        self.ensembles = Ensembles(registry, self._make_ensemble)
        self.successions = Successions(clock)
        self.tried: dict[tuple[str, int], Tried] = {}
        self.folders: dict[tuple[str, int], Path] = {}
        """Where the versions that serve, or are about to serve again, were loaded from."""

    def start_threads(self) -> None:
        """See `LoadThreads.start`."""
        self._threads.start()

    @property
    def left_behind(self) -> int:
        """Loads that hang: their threads will not end."""
        return self._threads.left_behind

    async def run(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What a function returns that blocks: it runs on one of the threads."""
        return await self._threads.read(function, *arguments, **named)

    def give_up(self) -> None:
        """Load nothing more, and do not finish what is being loaded."""
        self._given_up = True
        self._threads.give_up()

    async def close(self) -> None:
        """Release what the versions shared. After the last one has been unloaded."""
        self._threads.close()
        if self._decoder is not None:
            await self._decoder.close()
            self._decoder = None

    async def load(self, origin: Origin, version: int, trying_again: str = "") -> str:
        """Load a version, or load it again; the reason of a failure ends with `trying_again`. Returns the reason, ""
        where it is READY."""
        name = origin.folder.name
        await self.ensembles.give_up(name, version)
        self._registry.set_state(name, version, State.LOADING)
        try:
            loaded = await self._open(origin, version, must_work=bool(trying_again))
        except LoadFailed as error:
            reason = f"{error}; {trying_again}" if trying_again else str(error)
            self._registry.set_state(name, version, State.UNAVAILABLE, reason)
            log.error("model '%s' version %d is UNAVAILABLE: %s", name, version, reason)
            self._note_failure(name, version, error)
            return reason
        self._registry.set_ready(name, loaded)
        self.folders[name, version] = origin.folder.path
        log.info("model '%s' version %d is READY after %.2f s", name, version, loaded.load_seconds)
        return ""

    async def reload(self, origin: Origin, version: int) -> str:
        """Load a version that serves beside itself, let the new one take over, and drain the old one; where that has
        sequences, nobody waits for it. Returns why it failed, "" where it did not."""
        name = origin.folder.name
        self._registry.begin_reload(name, version)
        try:
            fresh = await self._open(origin, version)
        except LoadFailed as error:
            reason = f"what was to take over cannot be loaded; what was loaded before serves on: {error}"
            self._registry.reload_failed(name, version, reason)
            log.error("model '%s' version %d: %s", name, version, reason)
            self._note_failure(name, version, error)
            return str(error)
        old = self._registry.take_over(name, fresh)
        if old is not None:
            self.successions.begin(old, fresh)
        if old is None:  # its session went bad meanwhile: `recovery` loads it again, from the new files
            old = fresh
        else:
            self.folders[name, version] = origin.folder.path
            if not isinstance(fresh, EnsembleVersion):  # though it may have been one
                await self.ensembles.give_up(name, version)
            log.info("model '%s' version %d is loaded anew after %.2f s", name, version, fresh.load_seconds)
        if self.successions.lasts(old):
            self.successions.let_go(old, self._drain_replaced(old))
        else:
            await old.drain()
        return ""

    async def _drain_replaced(self, old: Served) -> None:
        await old.drain()
        log.info("model '%s' version %d, which was replaced, is gone", old.config.name, old.version)

    async def unload(self, loaded: Served) -> None:
        """Answer what a version was asked, and let it and its memory go. Where sequences go on, nobody waits, and it
        is forgotten then."""
        name, version = loaded.config.name, loaded.version
        await self.ensembles.give_up(name, version)
        await self.successions.end_before(loaded)
        self._registry.set_state(name, version, State.DRAINING)
        if self.successions.lasts(loaded):
            self.folders.pop((name, version), None)
            self.successions.let_go(loaded, self._drain_and_forget(loaded))
        else:
            await self._drain(loaded)

    async def _drain_and_forget(self, loaded: Served) -> None:
        await self._drain(loaded)
        self.forget(loaded.config.name, loaded.version)

    async def _drain(self, loaded: Served) -> None:
        name, version = loaded.config.name, loaded.version
        await loaded.drain()
        if not self._given_up:
            await self.run(malloc.give_back_freed_memory)
        self._registry.set_state(name, version, State.UNAVAILABLE, UNLOADED)
        self.folders.pop((name, version), None)
        log.info("model '%s' version %d is unloaded", name, version)

    async def give_up_recovery(self, name: str, version: int) -> None:
        """Do not load a version again that went bad. Returns when nothing is in progress for it."""
        await self.recovery.give_up(name, version)
        if version not in self._registry.entry(name).loaded:
            self.folders.pop((name, version), None)

    def forget(self, name: str, version: int) -> None:
        """Keep nothing of a version that does not serve."""
        self.tried.pop((name, version), None)
        self.ensembles.forget(name, version)
        self._registry.forget(name, version)

    async def _open(self, origin: Origin, version: int, *, must_work: bool = False) -> Served:
        """A version that is ready to serve. Raises `LoadFailed`, also where its files are not those expected, before or
        after."""
        name = origin.folder.name
        async with self._slots:
            started = time.monotonic()
            try:
                model = await self._open_with_retries(origin, version, must_work)
                if isinstance(model, ModelConfig):
                    return self.ensembles.open(model, version)
                make = await self._kind_of(model.config, origin.folder, version)
                loaded = make(
                    model.config,
                    version,
                    model.sessions,
                    self._clock,
                    time.monotonic() - started,
                    self._budget,
                    # Turns share the cores out: instances on a GPU do not stand in line for them.
                    None if model.on_gpu else self._turns,
                    # On a GPU the thread only waits: nothing is won there, and the event loop would wait too.
                    tiny_batch_seconds=0.0 if model.on_gpu else self._tiny_batch_seconds,
                    costs=model.costs,
                    decoder=self._picture_decoder() if model.config.preprocessing is not None else None,
                    summaries=self._latency_summaries(),
                    statistics=self._registry.statistics(name, version),
                    run_limit=self._opener.run_limit(model.config),
                )
                loaded.card = model.card
            except LoadFailed:
                raise
            except Exception as error:  # a bug, or a backend's surprise: this version fails, the others serve
                if is_passing(error):
                    raise LoadFailed(f"the machine is short of something: {error}") from error
                log.exception("loading model '%s' version %d raised", name, version)
                raise LoadFailed(f"unexpected {type(error).__name__}: {error}") from error
        again = Origin(origin.folder, _as_given(origin.configuration))
        self.recovery.watch(loaded, model.probe, partial(self._recover, again, version))
        return loaded

    def _note_failure(self, name: str, version: int, error: LoadFailed) -> None:
        """The same files are not tried again when repositories are looked at next, unless they were not to blame."""
        if is_passing(error):
            self.tried.pop((name, version), None)

    async def _open_with_retries(self, origin: Origin, version: int, must_work: bool) -> ModelConfig | Opened:
        for retry in range(1, self._retries + 1):
            try:
                return await self._open_once(origin, version, must_work)
            except (ConfigInvalid, LoadTimedOut):
                raise
            except LoadFailed as error:
                if self._given_up:
                    raise
                log.warning(
                    "model '%s' version %d: %s; trying again, for the %d. time of %d",
                    origin.folder.name, version, error, retry, self._retries,
                )  # fmt: skip
        return await self._open_once(origin, version, must_work)

    async def _open_once(self, origin: Origin, version: int, must_work: bool) -> ModelConfig | Opened:
        with malloc.loading(), self._threads.load(f"model '{origin.folder.name}' version {version}") as load:
            return await self._open_in(load, origin, version, must_work)

    async def _open_in(self, load: LimitedLoad, origin: Origin, version: int, must_work: bool) -> ModelConfig | Opened:
        """A model; the configuration of an ensemble, which has nothing to open."""
        folder, configuration, expected = origin
        key, given = (folder.name, version), configuration.given if configuration else ""
        if expected is None:
            self.tried[key] = Tried(await load.run(_stamp, folder, version), given)
        else:
            self.tried[key] = Tried(expected, given)
            await load.run(_check_unchanged, folder, version, expected)
        if configuration is None:
            configuration = await load.run(read_configuration, folder, self._config_name)
        if configuration.settings.ensemble is not None:
            return await load.run(open_ensemble, folder, configuration)
        opened = await load.run(self._opener.open, folder, version, configuration, must_work, load.attempt)
        if expected is not None:
            await load.run(_check_unchanged, folder, version, expected)
        return opened

    async def _kind_of(self, config: ModelConfig, folder: ModelFolder, version: int) -> Callable[..., LoadedVersion]:
        """What makes a version of this configuration: with a response cache, or without."""
        if not config.response_cache:
            return LoadedVersion
        store = self._store
        if store is None:
            _warn_of_no_cache(config)
            return LoadedVersion
        # What serves must not answer from what another load has computed. Servers that share a store share no numbers.
        if store.is_shared:
            identity = await self.run(content_identity, config, folder, version)
            await self.run(_check_unchanged, folder, version, self.tried[config.name, version].stamp)
        else:
            identity = new_identity(config, version)
        return partial(CachedVersion, store=store, identity=identity)

    async def _recover(self, origin: Origin, version: int, trying_again: str) -> bool:
        return not await self.load(origin, version, trying_again)

    def _make_ensemble(self, config: ModelConfig, version: int, members: Members) -> EnsembleVersion:
        statistics = self._registry.statistics(config.name, version)
        make: Callable[..., EnsembleVersion] = EnsembleVersion
        if config.response_cache and self._store is not None:
            make = partial(CachedEnsemble, store=self._store, identify=partial(self._identify, config, version))
        elif config.response_cache:
            _warn_of_no_cache(config)
        return make(config, version, members, self._clock, self._budget, self._latency_summaries(), statistics)

    def _identify(self, config: ModelConfig, version: int, members: Members) -> bytes:
        """What tells an ensemble on these models from anything else: from one on others, above all."""
        models = [member.identity for member in members.by_step if isinstance(member, CachedVersion)]
        # Of a model without a cache, and of an ensemble, no content is known.
        if self._store is not None and self._store.is_shared and len(models) == len(members.by_step):
            return ensemble_identity(config, version, models)
        return new_identity(config, version)

    def _latency_summaries(self) -> LatencySummaries | None:
        return LatencySummaries() if self._summaries else None

    def _picture_decoder(self) -> PictureDecoder:
        """One for all models, from when the first one takes pictures. It leaves a core to the event loop."""
        if self._decoder is None:
            from server.pictures.decode import decode  # needs Pillow: `_open` has seen to it

            self._decoder = PictureDecoder(decode, max(1, available_cores() - 1), self._clock, self._budget)
        return self._decoder


def _warn_of_no_cache(config: ModelConfig) -> None:
    log.warning(
        "model '%s' has response_cache, and the server has no cache: its answers are not kept; "
        "--cache-config local,size=BYTES",
        config.name,
    )


def _as_given(configuration: Configuration | None) -> Configuration | None:
    """A configuration that came with a load holds for as long as the version serves; one from a file is read again."""
    return configuration if configuration is not None and configuration.given else None


def _stamp(folder: ModelFolder, version: int) -> VersionStamp:
    return stamps.take(replace(folder, versions=(version,))).stamp(version)


def _check_unchanged(folder: ModelFolder, version: int, expected: VersionStamp) -> None:
    if _stamp(folder, version) != expected:
        raise LoadFailed(
            f"{folder.path}: the files of version {version} are changing; they can be loaded once they are still"
        )
