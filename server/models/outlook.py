"""What the control plane goes by: what the repositories have settled on, look after look, on a thread of its own."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

from server.errors import LoadFailed, NotFound, Unavailable
from server.models.background import Background
from server.models.repositories import Look, Repositories
from server.models.settling import settle
from server.models.stamps import ModelSnapshot

log = logging.getLogger(__name__)


class Outlook:
    """Looks at repositories without holding up the event loop, and remembers what it saw."""

    def __init__(self, repositories: Repositories) -> None:
        self._repositories = repositories
        self._thread = Background("repositories")
        self._lister = Background("listing")
        """Not the thread that fetches: a list of names is to be had meanwhile."""
        self._known: set[str] = set()
        self._before: Mapping[str, ModelSnapshot] = {}
        """What the last look found."""
        self._settled: Mapping[str, ModelSnapshot] = {}
        self.unseen: tuple[str, ...] = ()
        """Why repositories could not be looked at the last time."""
        self._given_up = False

    async def first(self) -> Look:
        """What is there, taken as it is. Raises `LoadFailed` where a repository cannot be listed."""
        look = await self._thread.call(self._repositories.look, {})
        self._before = self._settled = look.models
        self._known = {*look.models, *look.problems, *look.others}
        return look

    async def one(self, name: str, in_use: Mapping[str, Collection[int]]) -> ModelSnapshot:
        """A model, taken as it is now. Raises `NotFound`, `Unavailable` where its repository cannot be seen, and
        `LoadFailed` where it cannot be served."""
        try:
            found = await self._thread.call(self._repositories.one, name, in_use)
        except (LoadFailed, Unavailable) as error:
            raise type(error)(not_polled(name, str(error))) from error
        if found is None:
            raise NotFound(not_polled(name, f"no repository has a model '{name}'"))
        self._known.add(name)
        return found

    async def names(self) -> dict[str, str]:
        """The models that the repositories have now, and why they cannot be served: "" mostly. Of a repository that is
        not on this machine, those of the last look."""
        names = await self._lister.call(self._repositories.names)
        self._known.update(names)
        return names

    def knows(self, name: str) -> bool:
        """Whether a repository had a model of this name when it was looked at or listed."""
        return name in self._known

    async def again(self, in_use: Mapping[str, Collection[int]]) -> Look | None:
        """What is there, as far as it has settled (see `settling`); None where it cannot be seen.

        `in_use` are the versions of each model that must not go from this machine.
        """
        try:
            look = await self._thread.call(self._repositories.look, in_use)
        except LoadFailed as error:
            self._tell((str(error),))
            return None
        self._tell(look.unseen)
        now = {**{name: self._before[name] for name in look.problems if name in self._before}, **look.models}
        self._settled, self._before = settle(self._settled, self._before, now), now
        return replace(look, models=self._settled)

    def give_up(self) -> None:
        """Look no more, and wait for no look in progress."""
        self._given_up = True
        self._repositories.stop()
        self._thread.give_up()
        self._lister.give_up()

    def close(self) -> None:
        """Give back what the repositories hold. After `give_up`."""
        self._repositories.close()

    def _tell(self, unseen: tuple[str, ...]) -> None:
        if self._given_up:
            return
        for problem in unseen:
            if problem not in self.unseen:
                log.warning("a model repository cannot be seen, so nothing of it changes: %s", problem)
        if self.unseen and not unseen:
            log.info("all model repositories can be seen again")
        self.unseen = unseen


def not_polled(name: str, why: str) -> str:
    """Triton's sentence for a model that it cannot even begin to load, and the reason."""
    return f"failed to load '{name}', failed to poll from model repository: {why}"
