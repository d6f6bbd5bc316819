"""A response cache in front of what answers: equal requests are computed once, and answered from what was kept.

Rules of this file:
- A request that finds its answer is answered at once, without the queue.
- Of equal requests in progress one leads and is submitted; the others wait for its answer (`cache.flights`). So do all
  of them where a store at a distance is asked first.
- Whoever waits keeps to its own deadline and its own caller. Where the one who leads is cancelled, late or refused, the
  next one leads; where its run failed, all others are submitted as they would have been without a cache. Nobody is told
  another's error.
- Every request that is answered counts as one success, and as one hit or one miss.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Protocol

from server.cache import keys
from server.cache.entries import Entry
from server.cache.flights import Flights
from server.cache.keys import Beginning
from server.cache.store import Store
from server.errors import ConvoyError, DeadlineExceeded, QueueFull, QueueTimeout, Reason
from server.messages import InferenceRequest, InferenceResponse
from server.models import admission
from server.models.admission import Plan
from server.models.config import ModelConfig
from server.models.execution import CALLER_GONE
from server.models.plans import REMEMBERED_PLANS
from server.models.queueing import TimeLimits, explained
from server.models.work import Answer, Pending, Reply
from server.scheduling.budget import ByteBudget
from server.scheduling.clock import Clock
from server.scheduling.deadlines import Deadlines
from server.statistics import VersionStatistics
from server.summaries import LatencySummaries

log = logging.getLogger(__name__)

FAILED_RUN = frozenset({Reason.BACKEND, Reason.OUT_OF_MEMORY})
"""Whoever led has failed for no reason of its own: the others may as well run together as one after another."""


class Compute(Protocol):
    """Submits a request, which came at `arrived`, to what the cache is in front of; as `Served.submit`."""

    def __call__(self, request: InferenceRequest, reply: Reply, arrived: float) -> Pending | None: ...


class Waiter:
    """One request that came to a version with a cache."""

    __slots__ = (
        "_owner", "arrived", "key", "limits", "lookup_ns", "plan", "reply", "request", "size", "submitting", "waiting",
        "work",
    )  # fmt: skip

    def __init__(
        self,
        owner: AnswerCache,
        key: bytes,
        request: InferenceRequest,
        plan: Plan,
        reply: Reply,
        arrived: float,
        limits: TimeLimits,
    ) -> None:
        self.key = key
        self.request = request
        self.plan = plan
        self.reply = reply
        self.arrived = arrived
        self.limits = limits
        self.lookup_ns = 0
        """How long it took to look for the answer here."""
        self.size = 0
        """Bytes that it holds while it waits."""
        self.waiting = False
        """True while it waits for a lookup, or for another request: it is in no queue then."""
        self.submitting = False
        self.work: Pending | None = None
        """What the model has admitted."""
        self._owner = owner

    def cancel(self) -> None:
        """The caller has gone. Harmless when too late."""
        self._owner.forsake(self)


class AnswerCache:
    """Keeps the answers of one load of a version in `store`. `identity` tells that load from anything else.

    `compute` has the request run, and the version is held (`hold`) while somebody waits here who may yet need that.
    """

    def __init__(
        self,
        config: ModelConfig,
        version: int,
        identity: bytes,
        store: Store,
        clock: Clock,
        budget: ByteBudget | None,
        summaries: LatencySummaries | None,
        statistics: VersionStatistics,
        *,
        compute: Compute,
        hold: Callable[[], Callable[[], None]],
    ) -> None:
        self.config = config
        self.version = version
        self.statistics = statistics
        self.waiting = 0
        """Requests that wait for a lookup, or for the answer of an equal one."""
        self._identity = identity
        self._store = store
        self._clock = clock
        self._budget = budget
        self._summaries = summaries
        self._compute = compute
        self._hold = hold
        self._objective_ns = round(config.objective_ms * 1e6)
        self._version_text = str(version)
        self._when_gone: ConvoyError = CALLER_GONE
        self._beginnings: dict[Plan, Beginning] = {}
        self._flights: Flights[bytes, Waiter] = Flights()
        self._looked_up: set[bytes] = set()
        """Keys that the store was asked for, and has not answered yet."""
        self._deadlines: Deadlines[Waiter] = Deadlines()
        self._expiry = clock.alarm(self._expire)
        self._release_hold: Callable[[], None] | None = None

    def submit(
        self, request: InferenceRequest, reply: Reply, plan: Plan, limits: TimeLimits, arrived: float, began_ns: int
    ) -> Pending | None:
        """Answer an admissible request from what is kept, or have it computed. See `Served.submit`.

        `began_ns`: when looking for its answer began, on the monotonic clock.
        """
        key = keys.key(self._beginning(plan, request), request.buffers)
        if key is None:
            return self._compute(request, reply, arrived)
        waiter = Waiter(self, key, request, plan, reply, arrived, limits)
        entry = self._store.get(key)
        waiter.lookup_ns = time.monotonic_ns() - began_ns
        if entry is not None:
            self._answer(waiter, entry)
            return None
        return self._take_in(waiter)

    def cut_off(self, when_gone: ConvoyError) -> None:
        """The server goes down: whoever waits is refused for that, and whoever leaves from now on does so for it."""
        self._when_gone = when_gone
        self.turn_all_back(when_gone)

    def turn_all_back(self, error: ConvoyError) -> None:
        """Refuse everybody who waits here."""
        for key in tuple(self._flights):
            for waiter in self._flights.members(key):
                if waiter.waiting:
                    self._turn_back(waiter, error)
        self._end_hold()

    def close(self) -> None:
        """Nobody waits here any more, nor comes."""
        self._expiry.close()

    def forsake(self, waiter: Waiter) -> None:
        """See `Waiter.cancel`."""
        if waiter.waiting:
            self._end_wait(waiter)
            self._count_failure(waiter, self._when_gone)
            if waiter.request.record is not None:
                waiter.request.record.finish(self._when_gone)
            self._flights.leave(waiter.key, waiter)
        elif waiter.work is not None:
            waiter.work.cancel()
            if self._flights.leave(waiter.key, waiter):
                self._lead(waiter.key)
        self._end_hold()

    def _take_in(self, waiter: Waiter) -> Waiter | None:
        """Let a request without an answer wait for one that is on its way; where there is none, submit it."""
        key = waiter.key
        if (
            key not in self._flights
            and key not in self._looked_up
            and self._store.fetch(key, partial(self._found, key))
        ):
            self._looked_up.add(key)
        if key in self._flights or key in self._looked_up:
            try:
                self._begin_wait(waiter)
            except QueueFull as error:
                refusal = explained(error, waiter.request, self.config)
                self._count_failure(waiter, refusal)
                waiter.reply(refusal)
                return None
        self._flights.join(key, waiter)
        self._release_hold = self._release_hold or self._hold()
        if not waiter.waiting:
            self._lead(key)
            self._end_hold()
        return waiter if waiter.waiting or waiter.work is not None else None

    def _found(self, key: bytes, entry: Entry | None) -> None:
        """A lookup has ended, perhaps after everybody has gone who waited for it."""
        self._looked_up.discard(key)
        if entry is None:
            self._lead(key)
        else:
            for waiter in self._flights.land(key):
                self._end_wait(waiter)
                self._answer(waiter, entry)
        self._end_hold()

    def _lead(self, key: bytes) -> None:
        """Submit the request that leads; where it is refused, the next one."""
        while (waiter := self._flights.leader(key)) is not None:
            if self._submit(waiter):
                return
            self._flights.leave(key, waiter)

    def _submit(self, waiter: Waiter) -> bool:
        """Submit a request to the model. False where it is refused, as it has been told."""
        if waiter.waiting:
            self._end_wait(waiter)
        waiter.submitting = True
        waiter.work = self._compute(waiter.request, partial(self._landed, waiter), waiter.arrived)
        waiter.submitting = False
        return waiter.work is not None

    def _landed(self, waiter: Waiter, answer: Answer) -> None:
        """The model has answered, or refused."""
        if isinstance(answer, ConvoyError):
            self._tell(waiter, answer)
            if not waiter.submitting and self._flights.leave(waiter.key, waiter):
                if answer.reason in FAILED_RUN:
                    self._part(waiter.key)
                else:
                    self._lead(waiter.key)
            self._end_hold()
            return
        led = self._flights.leader(waiter.key) is waiter
        others = self._flights.land(waiter.key)[1:] if led else ()
        entry = Entry(waiter.plan.rows, tuple(answer.outputs))
        self._keep(waiter, entry)
        self._tell(waiter, answer)
        for other in others:
            self._end_wait(other)
            self.statistics.cache_joined += 1
            self._answer(other, entry)
        self._end_hold()

    def _part(self, key: bytes) -> None:
        """Submit everybody in a flight, each for itself."""
        for waiter in self._flights.land(key):
            self._submit(waiter)

    def _keep(self, waiter: Waiter, entry: Entry) -> None:
        began = time.monotonic_ns()
        try:
            self._store.put(waiter.key, entry)
        except Exception:  # whatever a model has put into its outputs, or memory is short: whoever waits must hear
            log.exception("an answer of model '%s' version %d cannot be kept", self.config.name, self.version)
        self.statistics.cache_miss.add(waiter.lookup_ns + time.monotonic_ns() - began)
        if waiter.request.record is not None:
            waiter.request.record.cache = "miss"

    def _answer(self, waiter: Waiter, entry: Entry) -> None:
        """Answer a request with what was kept, or what an equal one has got."""
        request, limits, now = waiter.request, waiter.limits, self._clock.now()
        arrived_ns = round(waiter.arrived * 1e9)
        request_ns = max(0, round(now * 1e9) - arrived_ns)
        queue_ns = max(0, request_ns - waiter.lookup_ns)
        statistics = self.statistics
        statistics.record_success(queue_ns, request_ns)
        statistics.cache_hit.add(waiter.lookup_ns)
        statistics.last_inference_ms = time.time_ns() // 1_000_000
        if self._summaries is not None:
            self._summaries.record_request(now, queue_ns, request_ns)
        if limits.due < inf:
            statistics.record_deadline(now <= limits.due)
        if self._objective_ns:
            statistics.record_objective(request_ns <= self._objective_ns)
        request.buffers = ()
        if request.record is not None:
            request.record.admitted(self._version_text, waiter.plan.rows, arrived_ns)
            request.record.cache = "hit"
        outputs = list(entry.outputs)
        self._tell(waiter, InferenceResponse(self.config.name, self._version_text, request.request_id, outputs))

    def _tell(self, waiter: Waiter, answer: Answer) -> None:
        try:
            waiter.reply(answer)
        except Exception:  # the others must hear theirs
            log.exception(
                "an answer of model '%s' version %d was not taken",
                self.config.name, self.version, extra=waiter.request.log_fields(self._version_text),
            )  # fmt: skip

    def _begin_wait(self, waiter: Waiter) -> None:
        """Raises `QueueFull` where too much waits in the server."""
        waiter.size = admission.wire_bytes(waiter.plan, waiter.request)
        if self._budget is not None:
            self._budget.take(waiter.size)
        self.waiting += 1
        waiter.waiting = True
        deadline = waiter.limits.deadline
        if deadline < inf:
            self._deadlines.add(deadline, waiter, self.waiting)
            self._expiry.set(min(deadline, self._expiry.when))

    def _end_wait(self, waiter: Waiter) -> None:
        waiter.waiting = False
        self.waiting -= 1
        if self._budget is not None:
            self._budget.give_back(waiter.size)

    def _expire(self) -> None:
        now = self._clock.now()
        while (late := self._deadlines.pop(now)) is not None:
            waiter = late[1]
            is_callers = waiter.limits.deadline == waiter.request.deadline
            error = DeadlineExceeded("Deadline Exceeded") if is_callers else QueueTimeout("Request timeout expired")
            self._turn_back(waiter, error)
        self._expiry.set(self._deadlines.next())
        self._end_hold()

    def _turn_back(self, waiter: Waiter, error: ConvoyError) -> None:
        """Refuse a request that waits."""
        self._end_wait(waiter)
        self._flights.leave(waiter.key, waiter)
        self._count_failure(waiter, error)
        self._tell(waiter, error)

    def _count_failure(self, waiter: Waiter, error: ConvoyError) -> None:
        arrived_ns = round(waiter.arrived * 1e9)
        request_ns = max(0, round(self._clock.now() * 1e9) - arrived_ns)
        self.statistics.record_failure(error, request_ns, waiter.limits.due < inf)
        waiter.request.buffers = ()
        if waiter.request.record is not None:
            waiter.request.record.admitted(self._version_text, waiter.plan.rows, arrived_ns)

    def _end_hold(self) -> None:
        """Where nobody waits here any more, the version may go."""
        if not self._flights and self._release_hold is not None:
            release, self._release_hold = self._release_hold, None
            release()

    def _beginning(self, plan: Plan, request: InferenceRequest) -> Beginning:
        found = self._beginnings.get(plan)
        if found is None:
            if len(self._beginnings) >= REMEMBERED_PLANS:
                self._beginnings.clear()
            found = self._beginnings[plan] = keys.beginning(self._identity, request.specs, request.outputs)
        return found
