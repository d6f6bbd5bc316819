"""A version whose session has gone bad is found out, taken down, and loaded again until it works.

Part of the control plane: on the event loop's thread, and its clock is given. Rules of this file:
- Requests alone never take a version down: many of them must fail in a row, and then an input that worked when the
  version was loaded. A version that has no such input is never taken down.
- What waits is refused as retriable and what runs is waited for, before the session goes.
- The old session is gone before the new one is loaded: no name here holds on to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

from server.errors import LoadFailed
from server.models.background import Background
from server.models.lifecycle import State
from server.models.model import LoadedVersion
from server.models.probe import Probe
from server.models.registry import Registry
from server.models.run_limit import Remedy
from server.scheduling.clock import Clock
from server.scheduling.naps import Nap

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 1.0
LAST_DELAY_SECONDS = 60.0

Reload = Callable[[str], Awaitable[bool]]
"""Loads the version again. Returns whether it is READY; where not, the reason ends with the text given."""


@dataclass(slots=True)
class Backoff:
    """1, 2, 4 … 60 s; from the start again where things went well for the longest of these. Pure."""

    delay: float = FIRST_DELAY_SECONDS
    well_since: float = -inf

    def next(self, now: float) -> float:
        """Seconds to wait before the next try. Things are not well from now on."""
        if now - self.well_since >= LAST_DELAY_SECONDS:
            self.delay = FIRST_DELAY_SECONDS
        delay, self.delay = self.delay, min(2 * self.delay, LAST_DELAY_SECONDS)
        self.well_since = inf
        return delay


class Recovery:
    """Watches the versions that are handed to it."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._backoffs: dict[tuple[str, int], Backoff] = {}
        self._tasks: dict[asyncio.Task[None], tuple[tuple[str, int], tuple[Callable[[], None], ...]]] = {}
        self._stopping = False

    def watch(self, loaded: LoadedVersion, probe: Probe | None, reload: Reload) -> None:
        """Take the version down once its runs fail one after another and `probe` does, too, or once they do not come
        back. `reload` must hold no reference to the version."""
        name, version = loaded.config.name, loaded.version
        loaded.statistics.reloads += version in self._registry.entry(name).recovering
        if probe is not None:
            loaded.streak.when_suspicious = partial(self._suspect, loaded, probe, reload)
        if loaded.run_limit is not None:
            loaded.run_limit.when_hung = partial(self._hung, loaded, reload)

    async def stop(self) -> None:
        """Take nothing down any more, and give up what cannot be loaded. Returns when nothing is in progress here."""
        self._stopping = True
        await self._end(list(self._tasks))

    async def give_up(self, name: str, version: int) -> None:
        """Do not load this version again. Returns when nothing is in progress for it."""
        await self._end([task for task, (key, _) in self._tasks.items() if key == (name, version)])
        self._backoffs.pop((name, version), None)

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            for end in self._tasks[task][1]:
                end()
        await asyncio.gather(*tasks)

    def _suspect(self, loaded: LoadedVersion, probe: Probe, reload: Reload) -> None:
        if not self._stopping:
            nap, beside = Nap(self._clock), Background("probe")
            self._begin(loaded, self._examine(loaded, probe, reload, nap, beside), nap.end, beside.give_up)

    def _hung(self, loaded: LoadedVersion, reload: Reload, remedy: Remedy | None, problem: str) -> None:
        """A run does not come back, or has come back; `problem` is how things stand with the version's runs."""
        if self._stopping:
            return
        if remedy is Remedy.RELOAD:
            nap = Nap(self._clock)
            self._begin(loaded, self._renew(loaded, problem, reload, nap), nap.end)
        elif remedy is Remedy.GIVE_UP:
            self._begin(loaded, self._give_up(loaded, problem))
        elif self._serves(loaded):
            self._registry.explain(loaded.config.name, loaded.version, problem)

    def _begin(self, loaded: LoadedVersion, steps: Coroutine[Any, Any, None], *ends: Callable[[], None]) -> None:
        """Take steps, which `ends` end as soon as may be."""
        task = asyncio.get_running_loop().create_task(steps)
        self._tasks[task] = (loaded.config.name, loaded.version), ends
        task.add_done_callback(self._tasks.pop)

    def _serves(self, loaded: LoadedVersion) -> bool:
        return self._registry.entry(loaded.config.name).loaded.get(loaded.version) is loaded

    async def _examine(self, loaded: LoadedVersion, probe: Probe, reload: Reload, nap: Nap, beside: Background) -> None:
        problem = await _problem(loaded, probe, beside)
        if nap.ended or not self._serves(loaded):
            return
        if not problem:
            log.debug("model '%s' version %d fails, but not with zeros", loaded.config.name, loaded.version)
            loaded.streak.forgive()
            return
        del probe
        renewing = self._renew(loaded, problem, reload, nap)
        del loaded
        await renewing

    async def _give_up(self, loaded: LoadedVersion, problem: str) -> None:
        """Take the version down for good."""
        if not self._serves(loaded):
            return
        await self._let_go(loaded, problem)
        self._registry.set_state(
            loaded.config.name,
            loaded.version,
            State.UNAVAILABLE,
            f"{problem}; it is not loaded again by itself: restart the server, or load it anew",
        )

    async def _renew(self, loaded: LoadedVersion, problem: str, reload: Reload, nap: Nap) -> None:
        """Take the version down, and load it until that succeeds."""
        if nap.ended or not self._serves(loaded):
            return
        name, version = loaded.config.name, loaded.version
        backoff = self._backoffs.setdefault((name, version), Backoff())
        delay = await self._take_down(loaded, problem, backoff)
        del loaded
        while await nap.sleep(delay):
            delay = backoff.next(self._clock.now())
            if await reload(_trying_again(delay)):
                backoff.delay, backoff.well_since = delay, self._clock.now()
                break
        self._registry.entry(name).recovering.discard(version)

    async def _take_down(self, loaded: LoadedVersion, problem: str, backoff: Backoff) -> float:
        """Let the version go, and return the seconds until the first try to load it again."""
        name, version = loaded.config.name, loaded.version
        self._registry.entry(name).recovering.add(version)
        await self._let_go(loaded, problem)
        delay = backoff.next(self._clock.now())
        self._registry.set_state(name, version, State.UNAVAILABLE, f"{problem}; {_trying_again(delay)}")
        return delay

    async def _let_go(self, loaded: LoadedVersion, problem: str) -> None:
        """Refuse what waits, wait for what runs, and let go of the session."""
        name, version = loaded.config.name, loaded.version
        log.error("model '%s' version %d is taken down: %s", name, version, problem)
        loaded.streak.when_suspicious = None
        self._registry.set_state(name, version, State.DRAINING, problem)
        await loaded.abandon(f"Request for unknown model: '{name}' version {version} is not at ready state")


async def _problem(loaded: LoadedVersion, probe: Probe, beside: Background) -> str:
    """Why the session is bad; "" where it is not. The probe runs on a thread of its own, since it may hang."""
    failed = loaded.streak.length
    try:
        error = await beside.call(_error_of, probe)
    except LoadFailed:  # nobody wants to know any more
        return ""
    finally:
        beside.end()
    if error:
        return f"{failed} runs failed in a row, and a run with zeros, which it answered when it was loaded: {error}"
    return ""


def _error_of(probe: Probe) -> str:
    """As text: an exception would know the session by its traceback."""
    try:
        probe()
    except Exception as error:  # noqa: BLE001 -- whatever it is, it did not happen when the version was loaded
        return str(error) or type(error).__name__
    return ""


def _trying_again(delay: float) -> str:
    return f"loading it again in {delay:.0f} s"
