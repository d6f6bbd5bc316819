"""Versions that others have taken over from, and whose sequences go on. A part of the control plane, on the
event loop's thread.

Rules of this file:
- Requests that go on with a sequence of the version before go there. Every START comes to the new version, and ends the
  sequence of the same id that the version before has.
- The version before goes once it has no sequence any more, and after `MAX_LINGER_SECONDS` whatever it has.
- Of two versions, one after the other: where the new one is replaced or unloaded in turn, the version before goes at
  once. So a model has at most one version more than it should.
- Nobody waits for that, but who wants the version itself to be loaded or the model to be gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial

from server.models.model import LoadedVersion
from server.models.served import Served
from server.scheduling.clock import Alarm, Clock

log = logging.getLogger(__name__)

MAX_LINGER_SECONDS = 600.0
"""How long sequences may go on with a version that another has taken over from."""


@dataclass(slots=True, eq=False)
class _Succession:
    new: LoadedVersion
    release: Callable[[], None]
    alarm: Alarm
    drain: asyncio.Task[None] | None = None
    """Ends when the version before is gone."""


class Successions:
    """Of all models."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_old: dict[LoadedVersion, _Succession] = {}
        self._drains: dict[asyncio.Task[None], LoadedVersion] = {}
        """What lets versions go, with who has taken over from them."""

    def begin(self, old: Served, new: Served) -> None:
        """`new` takes over from `old`: sequences that `old` has go on there. Nothing happens where there are none, or
        where it is so already."""
        if not isinstance(old, LoadedVersion) or not isinstance(new, LoadedVersion) or old in self._by_old:
            return
        self._end_before(old)
        if not old.has_sequences():
            return
        self._end_before(new)
        alarm = self._clock.alarm(partial(self._time_is_over, old))
        self._by_old[old] = _Succession(new, old.hold(), alarm)
        new.before = old
        old.when_without_sequences(partial(self._end, old))
        alarm.set(self._clock.now() + MAX_LINGER_SECONDS)
        name, version = old.config.name, old.version
        log.info("model '%s' version %d is replaced, and stays until its sequences are over", name, version)

    def lasts(self, old: Served) -> bool:
        """Whether sequences of this version go on though another has taken over."""
        return old in self._by_old

    def let_go(self, old: Served, drain: Coroutine[None, None, None]) -> None:
        """Carry out `drain`, which waits until nobody holds the version, while nobody waits for it."""
        assert isinstance(old, LoadedVersion), "it lasts"
        task = asyncio.get_running_loop().create_task(drain)
        self._drains[task] = self._by_old[old].new
        self._by_old[old].drain = task
        task.add_done_callback(self._drains.pop)

    async def end_before(self, new: Served) -> None:
        """Let what this version has taken over from go. Returns when it is gone."""
        if isinstance(new, LoadedVersion):
            self._end_before(new)
            await asyncio.gather(*(task for task, successor in self._drains.items() if successor is new))

    async def end_of(self, name: str, version: int) -> None:
        """Let a version go whose sequences go on. Returns when it is gone."""
        for old, succession in list(self._by_old.items()):
            if (old.config.name, old.version) == (name, version):
                self._end(old)
                if succession.drain is not None:
                    await succession.drain

    async def stop(self) -> None:
        """The server goes down: nothing lasts. Returns when all that was let go is gone."""
        for old in list(self._by_old):
            self._end(old)
        await asyncio.gather(*self._drains)

    def _end_before(self, new: LoadedVersion) -> None:
        if new.before is not None:
            self._end(new.before)

    def _time_is_over(self, old: LoadedVersion) -> None:
        log.warning(
            "model '%s' version %d, which was replaced, goes after %.0f s, and with it the sequences that go on",
            old.config.name, old.version, MAX_LINGER_SECONDS,
        )  # fmt: skip
        self._end(old)

    def _end(self, old: LoadedVersion) -> None:
        succession = self._by_old.pop(old, None)
        if succession is not None:
            succession.new.before = None
            succession.alarm.close()
            succession.release()
