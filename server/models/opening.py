"""Opening a version: everything about it is read, checked and measured, on the caller's thread."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from server.backends.base import Backend, Session
from server.backends.cores import available_cores
from server.errors import ConfigInvalid
from server.models import config as model_config
from server.models import repository
from server.models.config import DeviceKind, LoadSettings, ModelConfig
from server.models.config_fields import FieldInvalid
from server.models.placement import place
from server.models.repository import ModelFolder
from server.models.runtime import session_options
from server.models.warmup import warm_up
from server.scheduling.costs import CostTable


class Opened(NamedTuple):
    """A version that could be opened."""

    config: ModelConfig
    sessions: Sequence[Session]
    """One for each instance."""
    on_gpu: bool
    costs: CostTable


class Opener:
    """Opens versions for one backend."""

    def __init__(self, backend: Backend, *, default_max_batch_size: int, autocomplete: bool) -> None:
        self._backend = backend
        self._default_max_batch_size = default_max_batch_size
        self._autocomplete = autocomplete

    def open(self, folder: ModelFolder, version: int, settings: LoadSettings) -> Opened:
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
            initial_state=partial(repository.read_initial_state, folder),
            default_max_batch_size=self._default_max_batch_size,
            autocomplete=self._autocomplete,
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


def read_settings(folder: ModelFolder) -> LoadSettings:
    """What a model's configuration says before any model file is opened. Raises `LoadFailed`."""
    return model_config.load_settings(_read_message(folder), folder.name, _source(folder))
