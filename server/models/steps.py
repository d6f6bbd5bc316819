"""The steps from what serves to what should: of one model, one action of `versions.next_action` after another."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from server.errors import LoadFailed
from server.models.config import LoadSettings
from server.models.lifecycle import State, VersionStatus
from server.models.loader import Loader, Origin, Tried
from server.models.opening import Configuration, read_configuration
from server.models.registry import ModelEntry, Registry
from server.models.repository import ModelFolder
from server.models.served import Served
from server.models.shortages import is_passing
from server.models.stamps import ModelSnapshot, Stamp
from server.models.versions import Forget, Load, Reload, Unload, next_action, wanted_versions

log = logging.getLogger(__name__)


class Steps:
    """Takes them, for models that nobody else takes steps for meanwhile."""

    def __init__(self, registry: Registry, loader: Loader, *, config_name: str, cautious: bool) -> None:
        """`config_name` is the configuration to take where a model has it. `cautious`: files may be being written."""
        self._registry = registry
        self._loader = loader
        self._config_name = config_name
        self._cautious = cautious
        self._given_up = False
        self._read: dict[str, tuple[Path, Stamp, Configuration | LoadFailed]] = {}
        """What the configuration of a model said, and which files it was read from."""

    def give_up(self) -> None:
        """Take no further step."""
        self._given_up = True

    async def take(
        self,
        name: str,
        snapshot: ModelSnapshot | None,
        problem: str,
        configuration: Configuration | None = None,
        *,
        beside: bool = False,
        on_request: bool = False,
    ) -> str:
        """Go from what serves to what the repository has: `snapshot`, None where the model is gone. Returns what went
        wrong, "" for nothing.

        `problem` is why it is not as it should be, `configuration` one that came along. `beside`: the server serves
        already, and what comes and fails does not make it less ready. `on_request`: what failed before is tried again,
        and what cannot be had takes nothing down.
        """
        if beside and _is_newcomer(self._registry.entry(name)):
            self._registry.entry(name).newcomer = True
        wanted: tuple[int, ...] = ()
        if snapshot is not None:
            try:
                configuration = configuration or await self.configuration_of(snapshot)
            except LoadFailed as error:
                problem = problem or str(error)
            else:
                wanted = wanted_versions(configuration.settings.version_policy, snapshot.folder.versions)
                problem = problem or ("" if wanted else _nothing_wanted(snapshot.folder, configuration.settings))
        self.note(name, problem)
        if problem and (configuration is None or on_request):
            return problem  # what cannot be understood changes nothing that serves
        entry = self._registry.entry(name)
        for version in entry.recovering.difference(() if on_request else wanted):
            await self._loader.give_up_recovery(name, version)
        for version in wanted:
            if version in entry.statuses and entry.statuses[version].state is State.DRAINING:
                await self._loader.successions.end_of(name, version)
        stale = self._stale(entry, snapshot, configuration, wanted, again=on_request)
        failed: list[str] = []
        leaving = entry.latest if entry.latest is not None and entry.latest.version not in wanted else None
        while not self._given_up and (action := next_action(_statuses(entry), wanted, stale)):
            stale.discard(action.version)
            self._hand_over(leaving, entry, wanted)
            if beside and entry.loaded and not isinstance(action, Reload):
                entry.beside.add(action.version)
            match action:
                case Load(version) | Reload(version):
                    assert snapshot is not None and configuration is not None, "it is wanted"
                    expected = snapshot.stamp(version) if self._cautious or on_request else None
                    origin = Origin(snapshot.folder, configuration, expected)
                    carry_out = self._loader.load if isinstance(action, Load) else self._loader.reload
                    if reason := await carry_out(origin, version):
                        failed.append(f"version {version} is at UNAVAILABLE state: {reason};")
                case Unload(version):
                    await self._loader.give_up_recovery(name, version)
                    await self._loader.unload(entry.loaded[version])
                case Forget(version):
                    self._loader.forget(name, version)
        if snapshot is None and not entry.statuses:
            self._read.pop(name, None)
            self._registry.forget(name)
        return " ".join(failed)

    def _hand_over(self, leaving: Served | None, entry: ModelEntry, wanted: Collection[int]) -> None:
        """Let the sequences of a version that is to go, and was the latest, go on after another has taken over."""
        staying = [version for version in entry.loaded if version in wanted]
        if leaving is not None and leaving in entry.loaded.values() and staying:
            self._loader.successions.begin(leaving, entry.loaded[max(staying)])

    def _stale(
        self,
        entry: ModelEntry,
        snapshot: ModelSnapshot | None,
        configuration: Configuration | None,
        wanted: Collection[int],
        *,
        again: bool,
    ) -> set[int]:
        """Versions that would be another now, and with `again` those that are not what they should be."""
        if snapshot is None or configuration is None:
            return set()
        tried = self._loader.tried
        stale = {v for v in wanted if tried.get((entry.name, v)) != Tried(snapshot.stamp(v), configuration.given)}
        if again:
            stale.update(v for v in wanted if v in entry.statuses and entry.statuses[v].reason)
        return stale

    async def models_of(self, snapshot: ModelSnapshot | None) -> tuple[str, ...]:
        """The models that one is made of; none where it is no ensemble, or cannot be understood."""
        try:
            return () if snapshot is None else (await self.configuration_of(snapshot)).models
        except LoadFailed:
            return ()

    async def configuration_of(self, snapshot: ModelSnapshot) -> Configuration:
        """The configuration, read once for the same files; again where it was not their fault that it could not be.
        Raises `LoadFailed`."""
        folder = snapshot.folder
        path, shared, configuration = self._read.get(folder.name, (None, None, LoadFailed()))
        if (path, shared) != (folder.path, snapshot.shared):
            try:
                configuration = await self._loader.run(read_configuration, folder, self._config_name)
            except LoadFailed as error:
                if is_passing(error):
                    raise
                configuration = error
            self._read[folder.name] = folder.path, snapshot.shared, configuration
        if isinstance(configuration, LoadFailed):
            raise configuration
        return configuration

    def note(self, name: str, problem: str) -> None:
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


def _is_newcomer(entry: ModelEntry) -> bool:
    """Whether nothing of the model should serve until now."""
    return not entry.problem and entry.retired.issuperset(entry.statuses)


def _statuses(entry: ModelEntry) -> Sequence[VersionStatus]:
    """What became of each version; those that `recovery` is about are being loaded."""
    busy = {v for v in entry.recovering if entry.statuses[v].state is not State.READY}
    return [replace(s, state=State.LOADING) if s.version in busy else s for s in entry.statuses.values()]


def _nothing_wanted(folder: ModelFolder, settings: LoadSettings) -> str:
    what = f"none of its versions {list(folder.versions)} is wanted" if folder.versions else "it has no version"
    content = f"with {settings.model_filename}" if settings.ensemble is None else "which may be empty"
    return f"{folder.path}: {what}; add a folder '1' {content}"
