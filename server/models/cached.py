"""Versions with a response cache in front (`answer_cache`): of a model, and of an ensemble."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any

from server.backends.base import Session
from server.cache.store import Store
from server.errors import ConvoyError, NotReady
from server.messages import InferenceRequest
from server.models.answer_cache import AnswerCache
from server.models.config import ModelConfig, QueuePolicy
from server.models.ensemble_model import EnsembleVersion
from server.models.ensemble_run import Members
from server.models.execution import SERVER_GONE
from server.models.model import LoadedVersion
from server.models.queueing import TimeLimits, time_limits
from server.models.work import Pending, Reply
from server.scheduling.budget import ByteBudget
from server.scheduling.clock import Clock
from server.statistics import VersionStatistics
from server.summaries import LatencySummaries


class CachedVersion(LoadedVersion):
    """A version whose answers are kept in `store`. `identity` tells what was loaded from anything else."""

    def __init__(
        self,
        config: ModelConfig,
        version: int,
        sessions: Sequence[Session],
        clock: Clock,
        load_seconds: float = 0.0,
        budget: ByteBudget | None = None,
        *more: Any,
        store: Store,
        identity: bytes,
        **named: Any,
    ) -> None:
        """What is not named here is for `LoadedVersion`."""
        super().__init__(config, version, sessions, clock, load_seconds, budget, *more, **named)
        self.identity = identity
        self._cache = AnswerCache(
            config, version, identity, store, clock, budget, self._summaries, self.statistics,
            compute=super().submit, hold=self.hold,
        )  # fmt: skip

    @property
    def pending(self) -> int:
        """Requests that wait for a batch, for their pictures, for a lookup, or for the answer of an equal one."""
        return super().pending + self._cache.waiting

    @property
    def in_flight(self) -> int:
        return super().in_flight + self._cache.waiting

    def submit(self, request: InferenceRequest, reply: Reply, arrived: float | None = None) -> Pending | None:
        arrived = self._clock.now() if arrived is None else arrived
        began_ns = time.monotonic_ns()
        try:
            plan = self._plans.of(request)
        except ConvoyError:
            return super().submit(request, reply, arrived)  # refuses it, and counts that
        return self._cache.submit(request, reply, plan, self._limits(request, arrived), arrived, began_ns)

    def cut_off(self) -> None:
        self._cache.cut_off(SERVER_GONE)  # before those whom they wait for are refused: none of them leads then
        super().cut_off()

    async def abandon(self, why: str) -> None:
        self._cache.turn_all_back(NotReady(why))
        await super().abandon(why)

    async def drain(self) -> None:
        await super().drain()
        self._cache.close()

    def _limits(self, request: InferenceRequest, arrived: float) -> TimeLimits:
        level = request.priority if 0 < request.priority <= len(self._levels) else self._default_level
        return time_limits(request, arrived, self._levels[level - 1], self._objective_seconds)


class CachedEnsemble(EnsembleVersion):
    """An ensemble whose answers are kept in `store`, for as long as it has the same models.

    `identify` tells the ensemble on these models from anything else. Whoever waits for an equal request is answered by
    the models that it came to, so that there is a cache for each set of models which somebody waits for.
    """

    def __init__(
        self,
        config: ModelConfig,
        version: int,
        members: Members,
        clock: Clock,
        budget: ByteBudget | None = None,
        summaries: LatencySummaries | None = None,
        statistics: VersionStatistics | None = None,
        *,
        store: Store,
        identify: Callable[[Members], bytes],
    ) -> None:
        super().__init__(config, version, members, clock, budget, summaries, statistics)
        self._store = store
        self._identify = identify
        self._caches = {members: self._new_cache(members)}
        """Those of the models which the ensemble has now, and of those which requests that wait here came to."""

    @property
    def pending(self) -> int:
        return super().pending + self._waiting

    @property
    def in_flight(self) -> int:
        return super().in_flight + self._waiting

    def submit_on(self, members: Members, request: InferenceRequest, reply: Reply) -> Pending | None:
        arrived = self._clock.now()
        began_ns = time.monotonic_ns()
        cache = self._cache_of(members)
        try:
            plan = self._plans.of(request).admitted
        except ConvoyError:
            cache = None
        if cache is None:
            return super().submit_on(members, request, reply)  # refuses it, and counts that, where it is a bad one
        # As in the queues of its models, a request waits here for as long as its timeout says.
        limits = time_limits(request, arrived, QueuePolicy(), inf)._replace(due=request.deadline)
        return cache.submit(request, reply, plan, limits, arrived, began_ns)

    def cut_off(self) -> None:
        for cache in self._caches.values():
            cache.cut_off(SERVER_GONE)
        super().cut_off()

    async def drain(self) -> None:
        await super().drain()
        for cache in self._caches.values():
            cache.close()

    @property
    def _waiting(self) -> int:
        return sum([cache.waiting for cache in self._caches.values()])

    def _cache_of(self, members: Members) -> AnswerCache | None:
        """None for models that the ensemble had before, and for which nobody waits here any more."""
        if members in self._caches or members is not self.members:
            return self._caches.get(members)
        for idle in [models for models, cache in self._caches.items() if not cache.waiting]:
            self._caches.pop(idle).close()
        return self._caches.setdefault(members, self._new_cache(members))

    def _new_cache(self, members: Members) -> AnswerCache:
        return AnswerCache(
            self.config, self.version, self._identify(members), self._store, self._clock, self._budget,
            self._summaries, self.statistics,
            compute=partial(self._submit, members), hold=partial(self.hold_on, members),
        )  # fmt: skip
