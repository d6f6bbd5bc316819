"""All model repositories together: folders on this machine, and folders that mirror what is at a distance. Blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from server.errors import LoadFailed, Unavailable
from server.models import config as model_config
from server.models import repository, stamps
from server.models.stamps import ModelSnapshot
from server.models.versions import wanted_versions
from server.remote.cache import Cache
from server.remote.mirror import Mirror, Selection, Synced
from server.remote.store import Store
from server.urls import RepositoryUrl

LISTINGS_THAT_AGREE = 2
"""A mirror takes what it is listed twice in a row."""


@dataclass(frozen=True, slots=True)
class Look:
    """What all repositories hold."""

    models: Mapping[str, ModelSnapshot]
    problems: Mapping[str, str] = field(default_factory=dict)
    """Model name → why it cannot be served, or not as it is there."""
    others: tuple[str, ...] = ()
    """Models that are there, that nobody asked for, and that are not on this machine."""
    unseen: tuple[str, ...] = ()
    """Why repositories at a distance could not be listed: their models are as they were."""


class Repositories:
    """Looks at them, one look after another."""

    def __init__(
        self,
        roots: Sequence[Path],
        urls: Sequence[RepositoryUrl],
        cache_dir: Path | None,
        names: Collection[str] | None,
        open_store: Callable[[RepositoryUrl], Store],
        config_name: str = "",
    ) -> None:
        """`roots` are folders of models; `urls` are mirrored below `cache_dir`, None being a temporary folder, as far
        as they have the models `names`, None being all. `config_name` is the configuration to go by, where a model has
        it."""
        self._roots = roots
        self._urls = urls
        self._cache_dir = cache_dir
        self._names = None if names is None else frozenset(names)
        self._config_name = config_name
        self._open_store = open_store
        self._mirrors: list[Mirror] = []
        self._synced = False
        """Whether all mirrors have been filled once."""
        self._stopped = False
        self._others: frozenset[str] = frozenset()
        """Models at a distance that nobody asked for."""

    def look(self, in_use: Mapping[str, Collection[int]]) -> Look:
        """Bring the mirrors up to date, and list everything. `in_use` has the versions to keep, whatever a model's
        policy says. Raises `LoadFailed` where one cannot be listed; later, one at a distance is left as it is then."""
        for url in self._urls[len(self._mirrors) :]:
            self._mirrors.append(Mirror(url, self._open_store(url), Cache(self._cache_dir, url)))
        if self._stopped:
            self.stop()
        synced, unseen = self._sync(self._selection(in_use))
        self._others = frozenset(name for sync in synced for name in sync.others)
        mirrored = [mirror.root for mirror in self._mirrors]
        scan = repository.scan([*self._roots, *mirrored])
        models: dict[str, ModelSnapshot] = {}
        unread: dict[str, str] = {}
        for folder in scan.models:
            try:
                models[folder.name] = stamps.take(folder, whole=folder.path.parent in mirrored)
            except LoadFailed as error:
                unread[folder.name] = str(error)
        return Look(
            models,
            {
                name: problem
                for each in (*(sync.problems for sync in synced), scan.problems, unread)
                for name, problem in each.items()
            },
            tuple(sorted(self._others)),
            tuple(unseen),
        )

    def one(self, name: str, in_use: Mapping[str, Collection[int]]) -> ModelSnapshot | None:
        """A model as it is now, None where there is none. From now on it is mirrored, too. `name` is one component of a
        path.

        Raises `Unavailable` where a repository at a distance cannot be listed, `LoadFailed` where the model cannot be
        served.
        """
        if self._names is not None:
            self._names |= {name}
        for mirror in self._mirrors:
            for _ in range(LISTINGS_THAT_AGREE):
                try:
                    synced = mirror.sync(self._selection(in_use))
                except LoadFailed as error:
                    raise Unavailable(str(error)) from error
            if name in synced.problems:
                raise LoadFailed(synced.problems[name])
        mirrored = [mirror.root for mirror in self._mirrors]
        folder = repository.find([*self._roots, *mirrored], name)
        return None if folder is None else stamps.take(folder, whole=folder.path.parent in mirrored)

    def names(self) -> dict[str, str]:
        """Models, and why they cannot be served: "" mostly. From any thread."""
        mirrors = [mirror.root for mirror in tuple(self._mirrors)]
        return dict.fromkeys(self._others, "") | repository.names([*self._roots, *mirrors])

    def _selection(self, in_use: Mapping[str, Collection[int]]) -> Selection:
        configs = (f"{repository.CONFIGS_FOLDER}/{self._config_name}.pbtxt",) if self._config_name else ()
        return Selection(self._names, partial(unneeded_folders, in_use), (*configs, repository.CONFIG_FILENAME))

    def _sync(self, selection: Selection) -> tuple[list[Synced], list[str]]:
        synced: list[Synced] = []
        unseen: list[str] = []
        for mirror in self._mirrors:
            try:
                synced.append(mirror.sync(selection))
            except LoadFailed as error:
                if not self._synced:
                    raise
                unseen.append(str(error))
        self._synced = True
        return synced, unseen

    def stop(self) -> None:
        """Give up a look in progress. From any thread."""
        self._stopped = True
        for mirror in self._mirrors:
            mirror.stop()

    def close(self) -> None:
        """Give the mirrors' folders back."""
        for mirror in self._mirrors:
            mirror.close()


def unneeded_folders(
    in_use: Mapping[str, Collection[int]], name: str, config: str | None, folders: Collection[str]
) -> set[str]:
    """The version folders of a model that its policy does not want, and nobody uses.

    A configuration that cannot be read wants none: without it, nothing can be loaded anyhow.
    """
    versions = {version: folder for folder in folders if (version := repository.version_number(folder)) is not None}
    try:
        message = model_config.parse(config or "", name)
        policy = model_config.load_settings(message, name, name).version_policy
        wanted = set(wanted_versions(policy, versions.keys()))
    except LoadFailed:
        wanted = set()
    return {folder for version, folder in versions.items() if version not in wanted.union(in_use.get(name, ()))}
