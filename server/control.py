"""The control plane: what is on disk, what should serve, and the steps between. It never touches a request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from server.backends.base import Backend, Session
from server.backends.cores import available_cores
from server.errors import ConfigInvalid, LoadFailed
from server.models import config as model_config
from server.models import repository
from server.models.config import DeviceKind, LoadSettings, ModelConfig
from server.models.config_fields import FieldInvalid
from server.models.lifecycle import State
from server.models.model import TINY_BATCH_SECONDS, LoadedVersion
from server.models.pictures import PictureDecoder
from server.models.placement import place
from server.models.probe import working_probe
from server.models.recovery import Recovery
from server.models.registry import Registry
from server.models.repository import ModelFolder
from server.models.runtime import session_options
from server.models.versions import Load, Unload, next_action, wanted_versions
from server.models.warmup import warm_up
from server.scheduling.budget import ByteBudget
from server.scheduling.clock import Clock
from server.scheduling.costs import CostTable
from server.scheduling.turns import Turns
from server.summaries import LatencySummaries

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
    summaries: bool = False
    """Whether quantiles of the last minute's latencies are kept."""


class Opened(NamedTuple):
    """A version that could be opened."""

    config: ModelConfig
    sessions: Sequence[Session]
    """One for each instance."""
    on_gpu: bool
    costs: CostTable


class ControlPlane:
    """Loads and unloads versions, one step of `versions.next_action` at a time."""

    def __init__(self, settings: ControlSettings, registry: Registry, backend: Backend, clock: Clock) -> None:
        self._settings = settings
        self._registry = registry
        self._backend = backend
        self._clock = clock
        self._budget = ByteBudget(settings.max_queued_bytes)
        self._recovery = Recovery(registry, clock)
        limit = settings.max_running_batches
        self.turns = Turns(available_cores() if limit is None else limit or inf)
        """Of all models on the CPU. Another device has turns of its own."""
        # One thread, which starts with the first scan, before anyone is served: the event loop waits while one starts.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._decoder: PictureDecoder | None = None

    async def load_all(self) -> None:
        """Bring every model that should serve to READY or UNAVAILABLE. Raises `LoadFailed` where a root is missing."""
        scan = await self._off_the_loop(repository.scan, self._settings.roots)
        chosen = self._settings.load_models
        everything = chosen is None or ALL_MODELS in chosen
        for name, problem in scan.problems.items():
            if everything or name in (chosen or ()):
                self._refuse(name, problem)
        found = {folder.name: folder for folder in scan.models}
        for name in chosen or ():
            if name != ALL_MODELS and name not in found and name not in scan.problems:
                self._refuse(name, f"no repository has a model '{name}'")
        for name, folder in found.items():
            if everything or name in (chosen or ()):
                await self._load_model(folder)
            else:
                self._registry.entry(name)

    def give_up_loads(self) -> None:
        """Load nothing more, and do not finish what is being loaded."""
        self._backend.give_up_loads()

    async def unload_all(self) -> None:
        """Drain and unload everything that serves."""
        await self._recovery.stop()
        await asyncio.gather(*(self._unload(loaded) for loaded in self._registry.loaded()))
        if self._decoder is not None:
            await self._decoder.close()
            self._decoder = None

    async def _off_the_loop(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._loader, partial(function, *arguments, **named))

    async def _load_model(self, folder: ModelFolder) -> None:
        try:
            settings = await self._off_the_loop(_read_settings, folder)
        except LoadFailed as error:
            self._refuse(folder.name, str(error))
            return
        wanted = wanted_versions(settings.version_policy, folder.versions)
        if not wanted:
            what = f"none of its versions {list(folder.versions)} is wanted" if folder.versions else "it has no version"
            self._refuse(folder.name, f"{folder.path}: {what}; add a folder '1' with {settings.model_filename}")
            return
        entry = self._registry.entry(folder.name)
        while action := next_action(tuple(entry.statuses.values()), wanted):
            match action:
                case Load(version):
                    await self._load(folder, version, settings)
                case Unload(version):
                    await self._unload(entry.loaded[version])

    async def _load(self, folder: ModelFolder, version: int, settings: LoadSettings, trying_again: str = "") -> bool:
        """Load a version, or load it again; the reason of a failure ends with `trying_again`. Returns success."""
        started = time.monotonic()
        self._registry.set_state(folder.name, version, State.LOADING)
        try:
            opened = await self._off_the_loop(self._open, folder, version, settings)
            probe = await self._off_the_loop(
                working_probe, opened.config, version, opened.sessions[0], opened.costs, must_work=bool(trying_again)
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
                summaries=LatencySummaries() if self._settings.summaries else None,
            )
        except LoadFailed as error:
            reason = str(error)
        except Exception as error:  # a bug, or a backend's surprise: this version fails, the others serve
            log.exception("loading model '%s' version %d raised", folder.name, version)
            reason = f"unexpected {type(error).__name__}: {error}"
        else:
            if probe is not None:
                self._recovery.watch(loaded, probe, partial(self._load, folder, version, settings))
            self._registry.set_ready(folder.name, loaded)
            log.info("model '%s' version %d is READY after %.2f s", folder.name, version, loaded.load_seconds)
            return True
        reason = f"{reason}; {trying_again}" if trying_again else reason
        self._registry.set_state(folder.name, version, State.UNAVAILABLE, reason)
        log.error("model '%s' version %d is UNAVAILABLE: %s", folder.name, version, reason)
        return False

    def _open(self, folder: ModelFolder, version: int, settings: LoadSettings) -> Opened:
        """Read and check everything about a version, and measure it. Runs on a thread of its own."""
        try:
            placement = place(settings, self._backend.devices())
        except FieldInvalid as error:
            raise ConfigInvalid(f"{_source(folder)}: {error}") from error
        path = repository.model_file(folder, version, settings.model_filename)
        sessions = self._sessions(folder, path, settings, placement)
        on_gpu = placement[0] is not None
        config = model_config.complete(
            _read_message(folder),
            folder_name=folder.name,
            source=_source(folder),
            inputs=sessions[0].inputs,
            outputs=sessions[0].outputs,
            labels=lambda filename: repository.read_labels(folder, filename),
            default_max_batch_size=self._settings.default_max_batch_size,
            autocomplete=self._settings.autocomplete,
            auto_kind=DeviceKind.GPU if on_gpu else DeviceKind.CPU,
        )
        if config.preprocessing is not None:
            _import_pillow(_source(folder))
        read_file = partial(repository.read_warmup_file, folder)
        # Instances may share a session: each that there is gets warm, and the first one is measured for all.
        tables = [warm_up(config, version, each, _source(folder), read_file) for each in dict.fromkeys(sessions)]
        return Opened(config, sessions, on_gpu, tables[0])

    def _sessions(
        self, folder: ModelFolder, path: Path, settings: LoadSettings, placement: Sequence[int | None]
    ) -> list[Session]:
        """A session for each instance, on its device; instances of one device share one, unless they should not."""
        sessions: list[Session] = []
        for device in dict.fromkeys(placement):
            options = session_options(
                settings,
                device=device,
                instances=len(placement),
                cores=available_cores(),
                folder=folder.path,
                op_library=lambda filename: repository.op_library(folder, filename),
            )
            opened = [self._backend.load(path, options)]
            while not settings.share_session and len(opened) < placement.count(device):
                opened.append(self._backend.load(path, options))
            sessions += [opened[i % len(opened)].for_instance() for i in range(placement.count(device))]
        return sessions

    def _picture_decoder(self) -> PictureDecoder:
        """One for all models, from when the first one takes pictures. It leaves a core to the event loop."""
        if self._decoder is None:
            from server.pictures.decode import decode  # needs Pillow: `_open` has seen to it

            self._decoder = PictureDecoder(decode, max(1, available_cores() - 1), self._clock, self._budget)
        return self._decoder

    async def _unload(self, loaded: LoadedVersion) -> None:
        name = loaded.config.name
        self._registry.set_state(name, loaded.version, State.DRAINING)
        await loaded.drain()
        self._registry.set_state(name, loaded.version, State.UNAVAILABLE, "unloaded")

    def _refuse(self, name: str, problem: str) -> None:
        self._registry.set_problem(name, problem)
        log.error("model '%s' is UNAVAILABLE: %s", name, problem)


def _source(folder: ModelFolder) -> str:
    return str(folder.path / repository.CONFIG_FILENAME)


def _import_pillow(source: str) -> None:
    """Load what decodes pictures: here, since it takes a while. Raises `ConfigInvalid` where it is missing."""
    try:
        import server.pictures.decode  # noqa: F401
    except ImportError as error:
        raise ConfigInvalid(
            f"{source}: the image.* parameters need Pillow ({error}); install it: pip install pillow"
        ) from error


def _read_message(folder: ModelFolder) -> model_config.ConfigMessage:
    return model_config.parse(repository.read_config(folder) or "", _source(folder))


def _read_settings(folder: ModelFolder) -> LoadSettings:
    return model_config.load_settings(_read_message(folder), folder.name, _source(folder))
