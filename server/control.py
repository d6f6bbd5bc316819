"""The control plane: what repositories hold, what should serve, and the steps between. It never touches a request.

What is wanted of a model comes from one of three sides: the start, a look at the repositories, a caller. Whichever it
is, it takes its turn at that model (`intents`), and what has begun is not left half-way because nobody waits any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from server.backends.base import Backend
from server.backends.cores import available_cores
from server.cache.store import Store as AnswerStore
from server.errors import LoadFailed, NotFound, NotReady, QueueFull, ShuttingDown, Unavailable
from server.memory_budget import MemoryBudget
from server.models import overrides, stamps
from server.models.ensemble import load_order
from server.models.intents import Intents
from server.models.loader import Loader
from server.models.opening import Configuration
from server.models.outlook import Outlook
from server.models.overrides import Override, Overrides
from server.models.registry import Registry
from server.models.repositories import Look, Repositories
from server.models.stamps import ModelSnapshot
from server.models.steps import Steps
from server.models.tiny_batches import TINY_BATCH_SECONDS
from server.remote.store import FsspecStore, Store
from server.scheduling.budget import ByteBudget
from server.scheduling.clock import Clock
from server.scheduling.naps import Nap
from server.scheduling.turns import Turns
from server.urls import RepositoryUrl

log = logging.getLogger(__name__)

ALL_MODELS = "*"

MAX_REQUESTED = 256
"""Loads and unloads that callers may have asked for and that are not done."""

NOT_EXPLICIT = "explicit model load / unload is not allowed if polling is enabled"
"""Triton's sentence, which it says whenever models are not loaded on request."""


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
    memory: MemoryBudget = field(default_factory=MemoryBudget)
    """Bytes that requests and answers may hold altogether."""
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
    on_request: bool = False
    """Whether models are loaded and unloaded as callers ask for it."""
    config_name: str = ""
    """The configuration to take where a model has it, `configs/<name>.pbtxt`; "" for config.pbtxt."""
    load_threads: int = 1
    """Versions that are loaded at once."""
    load_retries: int = 0
    """How often a load is tried again that failed."""
    run_timeout_ms: int = 0
    """How long a run may take of a model that does not say; 0: as long as it likes."""
    load_timeout_secs: float = 0.0
    """How long a load may take; 0: as long as it likes."""

    @property
    def everything(self) -> bool:
        """Whether all models are to be loaded."""
        return self.load_models is None or ALL_MODELS in self.load_models


class ControlPlane:
    """Loads and unloads models, one step of `versions.next_action` at a time."""

    def __init__(
        self,
        settings: ControlSettings,
        registry: Registry,
        backend: Backend,
        clock: Clock,
        open_store: Callable[[RepositoryUrl], Store] = FsspecStore,
        answers: AnswerStore | None = None,
    ) -> None:
        """`answers` None: there is no response cache."""
        self._settings = settings
        self._registry = registry
        limit = settings.max_running_batches
        self.turns = Turns(available_cores() if limit is None else limit or inf)
        """Of all models on the CPU. Another device has turns of its own."""
        self._loader = Loader(
            registry,
            backend,
            clock,
            default_max_batch_size=settings.default_max_batch_size,
            autocomplete=settings.autocomplete,
            config_name=settings.config_name,
            threads=settings.load_threads,
            retries=settings.load_retries,
            budget=ByteBudget(settings.max_queued_bytes, settings.memory),
            tiny_batch_seconds=settings.tiny_batch_seconds,
            summaries=settings.summaries,
            run_timeout_ms=settings.run_timeout_ms,
            load_timeout_secs=settings.load_timeout_secs,
            turns=self.turns,
            store=answers,
        )
        self._steps = Steps(registry, self._loader, config_name=settings.config_name, cautious=settings.poll)
        names = None if settings.everything else settings.load_models
        self._outlook = Outlook(
            Repositories(settings.roots, settings.urls, settings.cache_dir, names, open_store, settings.config_name)
        )
        self._overrides = Overrides()
        self._intents = Intents()
        self._asked: set[str] = set()
        """Models that were asked for by name, or all: those that only came with an ensemble may go with it."""
        self._started = False
        self._nap = Nap(clock)
        self._polling: asyncio.Task[None] | None = None
        self._requested: set[asyncio.Task[None]] = set()
        """What callers have asked for, and is not done."""
        self._brought = ByteBudget(settings.max_queued_bytes)
        """What came along with those, in bytes."""

    @property
    def unseen_repositories(self) -> int:
        """How many could not be looked at the last time that they were to be followed."""
        return len(self._outlook.unseen)

    @property
    def left_behind(self) -> int:
        """Loads that hang: their threads will not end."""
        return self._loader.left_behind

    async def load_all(self) -> None:
        """Bring every model that should serve to READY or UNAVAILABLE. Raises `LoadFailed` where a root is missing."""
        self._loader.start_threads()
        look = await self._outlook.first()
        chosen = self._settings.load_models or ()
        there = sorted({*look.models, *look.problems, *look.others})
        if not there:
            places = ", ".join(map(str, (*self._settings.roots, *self._settings.urls)))
            log.warning("there is no model in %s: nothing can be served from there", places)
        wanted = [name for name in there if self._settings.everything or name in chosen]
        for name in there:
            if name in wanted or name not in look.problems:
                self._registry.entry(name)
        for name in chosen:
            if name != ALL_MODELS and name not in there:
                self._steps.note(name, f"no repository has a model '{name}'")
        self._asked.update(wanted)
        await self._bring_all(look, wanted)
        self._started = True

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
        await self._bring_all(look, sorted({*known, *look.models, *look.problems}), beside=True)

    async def load(self, name: str, override: Override | None = None) -> None:
        """Make a model serve what its repository has now, or what comes along; where nothing is new, nothing happens.

        Goes on where the caller stops waiting. Raises `Unavailable` where models are not loaded on request, or not now,
        `NotFound`, `InvalidRequest`, and `LoadFailed` with the reason; what served before serves on then.
        """
        self._check_on_request()
        overrides.check_model_name(name)
        self._brought.take(0 if override is None else override.size)
        await self._carry_out(self._load_on_request(name, override))
        self._asked.add(name)

    async def unload(self, name: str, *, with_dependents: bool = False) -> None:
        """Let a model answer what it was asked, and serve no more. Nothing happens where it does not serve anyway.

        Goes on where the caller stops waiting. Raises `Unavailable` where models are not unloaded on request, or not
        now.
        """
        self._check_on_request()
        names = [name]
        if with_dependents:
            names += self._loader.ensembles.dependents(name, self._asked)
        await self._carry_out(self._unload_on_request(names))

    async def index(self) -> dict[str, str]:
        """The models that the repositories have now, and why they could not be loaded: "" mostly."""
        try:
            return await self._outlook.names()
        except LoadFailed as error:
            log.warning("a model repository cannot be listed: %s", error)
            return {}

    def give_up_loads(self) -> None:
        """Load nothing more, and do not finish what is being loaded."""
        self._nap.end()
        self._steps.give_up()
        self._outlook.give_up()
        self._loader.give_up()

    async def unload_all(self) -> None:
        """Drain and unload everything that serves."""
        self.give_up_loads()
        if self._polling is not None:
            await self._polling
        await self._loader.recovery.stop()
        await self._loader.ensembles.stop()
        if self._requested:
            await asyncio.wait(self._requested)
        await self._loader.successions.stop()
        await asyncio.gather(*(self._loader.unload(loaded) for loaded in self._registry.loaded()))
        await self._loader.close()
        self._outlook.close()
        self._overrides.close()

    def _check_on_request(self) -> None:
        if not self._settings.on_request:
            raise Unavailable(NOT_EXPLICIT)
        if self._nap.ended:
            raise ShuttingDown("Server exiting")
        if not self._started:
            raise NotReady("Server not ready")
        if len(self._requested) == MAX_REQUESTED:
            raise QueueFull(f"{MAX_REQUESTED} loads and unloads are in progress, and no more are taken now")

    async def _carry_out(self, steps: Coroutine[Any, Any, None]) -> None:
        """Do what a caller asks for, all of it even where the caller leaves."""
        task = asyncio.get_running_loop().create_task(steps)
        self._requested.add(task)
        task.add_done_callback(self._requested.discard)
        task.add_done_callback(_heard)
        try:
            await asyncio.shield(task)
        except LoadFailed as error:
            if self._nap.ended:
                raise ShuttingDown(str(error)) from error
            raise

    async def _load_on_request(self, name: str, override: Override | None) -> None:
        try:
            await self._load_with_members(name, override, frozenset())
        finally:
            self._brought.give_back(0 if override is None else override.size)

    async def _load_with_members(self, name: str, override: Override | None, on_the_way: frozenset[str]) -> None:
        """Load a model on request; and before it, where it is an ensemble, those of its models that do not serve.

        Those `on_the_way` are being loaded already, for it: no turn waits for another."""
        missing = await self._load_in_turn(name, override)
        if not missing:
            return
        for model in missing:
            if model not in on_the_way:
                try:
                    await self._load_with_members(model, None, on_the_way | {name})
                except (LoadFailed, NotFound) as error:
                    log.warning("model '%s', which '%s' is made of: %s", model, name, error)
        await self._load_in_turn(name, override, as_it_is=True)

    async def _load_in_turn(self, name: str, override: Override | None, *, as_it_is: bool = False) -> Sequence[str]:
        """Load a model; unless it is made of others that do not serve, which are returned then. With `as_it_is`, it
        is loaded all the same."""
        async with self._intents.turn(name):
            if self._nap.ended:
                raise ShuttingDown("Server exiting")
            configuration: Configuration | None = None
            if override is not None:
                configuration = await self._loader.run(overrides.configuration, name, override)
                models = configuration.models
            if override is not None and override.files:
                folder = await self._loader.run(self._overrides.write, name, override.files)
                snapshot = await self._loader.run(stamps.take, folder)
            else:
                snapshot = await self._outlook.one(name, {e.name: frozenset(e.loaded) for e in self._registry})
            if configuration is None:
                models = await self._steps.models_of(snapshot)
            missing = [model for model in models if not self._registry.serves(model)]
            if missing and not as_it_is:
                return missing
            try:
                problem = await self._steps.take(name, snapshot, "", configuration, beside=True, on_request=True)
            finally:
                await self._tidy(name)
            if self._nap.ended:
                raise ShuttingDown("Server exiting")
            if problem:
                raise LoadFailed(f"load failed for model '{name}': {problem}")
        return ()

    async def _unload_on_request(self, names: Sequence[str]) -> None:
        for name in names:
            async with self._intents.turn(name):
                if not self._registry.has(name):
                    continue
                entry = self._registry.entry(name)
                for version in tuple(entry.statuses):
                    await self._loader.give_up_recovery(name, version)
                    await self._loader.ensembles.give_up(name, version)
                self._asked.discard(name)
                self._registry.retire(name)
                await asyncio.gather(*(self._loader.unload(loaded) for loaded in tuple(entry.loaded.values())))
                await self._tidy(name)

    async def _tidy(self, name: str) -> None:
        """Keep no file of a load that nothing serves from, and nothing of a model that is in no repository then."""
        in_use = {path for (model, _), path in self._loader.folders.items() if model == name}
        await self._loader.run(self._overrides.keep_only, name, in_use)
        if self._outlook.knows(name) or in_use or not self._registry.has(name):
            return
        for version in tuple(self._registry.entry(name).statuses):
            self._loader.forget(name, version)
        self._registry.forget(name)

    async def _bring_all(self, look: Look, names: Sequence[str], *, beside: bool = False) -> None:
        """Take the steps of these models, and of those that the ensembles among them are made of: models first, side by
        side, and then ensembles, each after what it is made of."""
        needs: dict[str, tuple[str, ...]] = {}
        left = list(names)
        while left:
            name = left.pop()
            if name not in needs:
                needs[name] = await self._steps.models_of(look.models.get(name))
                left += [model for model in needs[name] if model in look.models or model in look.problems]

        async def bring(name: str) -> None:
            await self._bring(name, look.models.get(name), look.problems.get(name, ""), beside=beside)

        await asyncio.gather(*(bring(name) for name in sorted(needs) if not needs[name]))
        for name in load_order(needs):
            if needs[name]:
                await bring(name)

    async def _bring(self, name: str, snapshot: ModelSnapshot | None, problem: str, *, beside: bool = False) -> None:
        """Take the steps of one model, in turn."""
        async with self._intents.turn(name):
            if not self._nap.ended:
                await self._steps.take(name, snapshot, problem, beside=beside)


def _heard(task: asyncio.Task[None]) -> None:
    """Nobody may wait for it any more: what it raises is no surprise then."""
    if not task.cancelled():
        task.exception()
