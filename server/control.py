"""The control plane: what is on disk, what should serve, and the steps between. It never touches a request."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from server.backends.base import Backend, Session, SessionOptions
from server.backends.cores import available_cores
from server.errors import ConfigInvalid, LoadFailed
from server.models import config as model_config
from server.models import repository
from server.models.config import DeviceKind, LoadSettings, ModelConfig
from server.models.lifecycle import State
from server.models.model import LoadedVersion
from server.models.probe import working_probe
from server.models.recovery import Recovery
from server.models.registry import Registry
from server.models.repository import ModelFolder
from server.models.versions import Load, Unload, next_action, wanted_versions
from server.scheduling.budget import ByteBudget
from server.scheduling.clock import Clock

log = logging.getLogger(__name__)

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


class ControlPlane:
    """Loads and unloads versions, one step of `versions.next_action` at a time."""

    def __init__(self, settings: ControlSettings, registry: Registry, backend: Backend, clock: Clock) -> None:
        self._settings = settings
        self._registry = registry
        self._backend = backend
        self._clock = clock
        self._budget = ByteBudget(settings.max_queued_bytes)
        self._recovery = Recovery(registry, clock)

    async def load_all(self) -> None:
        """Bring every model that should serve to READY or UNAVAILABLE. Raises `LoadFailed` where a root is missing."""
        scan = await asyncio.to_thread(repository.scan, self._settings.roots)
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

    async def unload_all(self) -> None:
        """Drain and unload everything that serves."""
        await self._recovery.stop()
        await asyncio.gather(*(self._unload(loaded) for loaded in self._registry.loaded()))

    async def _load_model(self, folder: ModelFolder) -> None:
        try:
            settings = model_config.load_settings(_read_message(folder), folder.name, _source(folder))
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
            config, session = await asyncio.to_thread(self._open, folder, version, settings)
            probe = await asyncio.to_thread(working_probe, config, version, session, must_work=bool(trying_again))
            loaded = LoadedVersion(config, version, session, self._clock, time.monotonic() - started, self._budget)
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

    def _open(self, folder: ModelFolder, version: int, settings: LoadSettings) -> tuple[ModelConfig, Session]:
        """Read and check everything about a version. Runs on a thread of its own."""
        if settings.device_kind is DeviceKind.GPU or settings.gpus:
            raise ConfigInvalid(
                f"{_source(folder)}: field 'instance_group' asks for a GPU, and this server runs models on the CPU; "
                "use KIND_CPU, or KIND_AUTO without gpus"
            )
        path = repository.model_file(folder, version, settings.model_filename)
        session = self._backend.load(path, _session_options(settings))
        config = model_config.complete(
            _read_message(folder),
            folder_name=folder.name,
            source=_source(folder),
            inputs=session.inputs,
            outputs=session.outputs,
            labels=lambda filename: repository.read_labels(folder, filename),
            default_max_batch_size=self._settings.default_max_batch_size,
            autocomplete=self._settings.autocomplete,
        )
        return config, session

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


def _read_message(folder: ModelFolder) -> model_config.ConfigMessage:
    return model_config.parse(repository.read_config(folder) or "", _source(folder))


def _session_options(settings: LoadSettings) -> SessionOptions:
    """Threads share the cores evenly among a model's instances, unless its configuration says otherwise."""
    parameters = settings.parameters
    threads = int(parameters.get("intra_op_thread_count", "0")) or max(1, available_cores() // settings.instance_count)
    return SessionOptions(
        intra_op_threads=threads,
        inter_op_threads=int(parameters.get("inter_op_thread_count", "0")) or 1,
        parallel_operators=parameters.get("execution_mode", "0") == "1",
        memory_arena=parameters.get("enable_mem_arena", "1") == "1",
        memory_pattern=parameters.get("enable_mem_pattern", "1") == "1",
        graph_optimization_level=settings.graph_optimization_level,
    )
