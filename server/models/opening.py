"""Opening a version: everything about it is read, checked and measured, on the caller's thread.

Several may be opened at once, and one is measured at a time: what one run takes should not depend on another model's.
So nobody waits for his turn very long.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from server.backends.base import Backend, Session
from server.backends.cores import available_cores
from server.backends.loading import LoadAttempt, LoadTurns
from server.errors import ConfigInvalid
from server.models import config as model_config
from server.models import repository
from server.models.cards import Card, read_card
from server.models.config import DeviceKind, LoadSettings, ModelConfig
from server.models.config_fields import FieldInvalid
from server.models.placement import place
from server.models.probe import Probe, working_probe
from server.models.repository import ModelFolder
from server.models.runtime import session_options
from server.models.warmup import warm_up
from server.scheduling.costs import CostTable

log = logging.getLogger(__name__)

MEASURING_SECONDS = 60.0
"""A load waits so long for its turn to be measured; then it is measured beside another one."""

FIRST_RUNS_FACTOR = 10
"""So many times as long as a run may take later, it may take on the CPU while a version is loaded: the first of a size
finds its memory."""


class Configuration(NamedTuple):
    """What a model is configured to be, before any model file is opened."""

    message: model_config.ConfigMessage
    settings: LoadSettings
    source: str
    """Names it in errors."""
    given: str = ""
    """Tells it from others where it came with the request to load; "" for a file, which may be another one later."""

    @property
    def models(self) -> tuple[str, ...]:
        """Those that it is made of; () where it is no ensemble."""
        return () if self.settings.ensemble is None else self.settings.ensemble.models


class Opened(NamedTuple):
    """A version that could be opened."""

    config: ModelConfig
    sessions: Sequence[Session]
    """One for each instance."""
    on_gpu: bool
    costs: CostTable
    probe: Probe | None
    """Tells whether the version works; None where nothing is known that must."""
    card: Card


class Opener:
    """Opens versions for one backend."""

    def __init__(
        self, backend: Backend, *, default_max_batch_size: int, autocomplete: bool, run_timeout_ms: int = 0
    ) -> None:
        """`run_timeout_ms` is how long a run may take of a model that does not say; 0: as long as it likes."""
        self._backend = backend
        self._default_max_batch_size = default_max_batch_size
        self._autocomplete = autocomplete
        self._run_timeout_ms = run_timeout_ms
        self._measuring = LoadTurns()

    def run_limit(self, config: ModelConfig) -> float:
        """Seconds that a run of this model may take; 0: as many as it likes."""
        return (self._run_timeout_ms if config.run_timeout_ms is None else config.run_timeout_ms) / 1000

    def open(
        self, folder: ModelFolder, version: int, configuration: Configuration, must_work: bool, attempt: LoadAttempt
    ) -> Opened:
        """Read and check everything about a version, and measure it; where it `must_work`, because it did before, a run
        of zeros that fails is an error. Runs on a thread of its own. Raises `LoadFailed`, also where it is interrupted.
        """
        message, settings, source, _ = configuration
        try:
            placement = place(settings, self._backend.devices())
        except FieldInvalid as error:
            raise ConfigInvalid(f"{source}: {error}") from error
        path = repository.model_file(folder, version, settings.model_filename)
        sessions = self._sessions(folder, path, settings, placement, attempt)
        on_gpu = placement[0] is not None
        config = model_config.complete(
            message,
            folder_name=folder.name,
            source=source,
            inputs=sessions[0].inputs,
            outputs=sessions[0].outputs,
            labels=lambda filename: repository.read_labels(folder, filename),
            initial_state=partial(repository.read_initial_state, folder),
            default_max_batch_size=self._default_max_batch_size,
            autocomplete=self._autocomplete,
            auto_kind=DeviceKind.GPU if on_gpu else DeviceKind.CPU,
        )
        if config.preprocessing is not None:
            _import_pillow(source)
        read_file = partial(repository.read_warmup_file, folder)
        # Instances may share a session: each that there is gets warm, and the first one is measured for all.
        distinct = tuple(dict.fromkeys(sessions))

        def interrupt() -> None:
            for session in distinct:
                session.interrupt()

        # On a GPU a first run may take minutes: there it has the load's own limit.
        limit = 0.0 if on_gpu else FIRST_RUNS_FACTOR * self.run_limit(config)
        with attempt.interruptible(interrupt), self._measuring.turn(attempt, MEASURING_SECONDS) as alone:
            if not alone:
                log.warning(
                    "model '%s' version %d is measured beside another one, which has been at it for more than %.0f s",
                    config.name, version, MEASURING_SECONDS,
                )  # fmt: skip
            with attempt.limited_runs(limit):
                tables = [warm_up(config, version, each, source, read_file, attempt.next_run) for each in distinct]
                attempt.next_run()
                probe = working_probe(config, version, sessions[0], tables[0], must_work=must_work)
        return Opened(config, sessions, on_gpu, tables[0], probe, read_card(folder, version))

    def _sessions(
        self,
        folder: ModelFolder,
        path: Path,
        settings: LoadSettings,
        placement: Sequence[int | None],
        attempt: LoadAttempt,
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
            opened = [self._backend.load(path, options, attempt)]
            while not settings.share_session and len(opened) < placement.count(device):
                opened.append(self._backend.load(path, options, attempt))
            sessions += [opened[i % len(opened)].for_instance() for i in range(placement.count(device))]
        return sessions


def open_ensemble(folder: ModelFolder, configuration: Configuration) -> ModelConfig:
    """The configuration of an ensemble, checked as far as it can be without its models. Raises `LoadFailed`."""
    return model_config.complete_ensemble(
        configuration.message,
        folder_name=folder.name,
        source=configuration.source,
        labels=lambda filename: repository.read_labels(folder, filename),
    )


def _import_pillow(source: str) -> None:
    """Load what decodes pictures: here, since it takes a while. Raises `ConfigInvalid` where it is missing."""
    try:
        import server.pictures.decode  # noqa: F401
    except ImportError as error:
        raise ConfigInvalid(
            f"{source}: the image.* parameters need Pillow ({error}); install it: pip install pillow"
        ) from error


def read_configuration(folder: ModelFolder, config_name: str = "") -> Configuration:
    """The model's configuration file, that of this name where it has it. Raises `LoadFailed`."""
    source = str(repository.config_path(folder, config_name))
    message = model_config.parse(repository.read_config(folder, config_name) or "", source)
    return Configuration(message, model_config.load_settings(message, folder.name, source), source)
