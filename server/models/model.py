"""One loaded version of a model: admission in front, a batcher over its lanes, statistics behind.

All methods run on the event loop's thread; `execution` is what lanes run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from math import inf
from operator import add

from server.backends.base import Session
from server.errors import ConvoyError, NotReady
from server.memory_budget import MemoryBudget
from server.messages import InferenceRequest
from server.models import admission
from server.models.batch_accounts import BatchAccounts
from server.models.cards import NO_CARD, Card
from server.models.config import ModelConfig, QueuePolicy
from server.models.execution import CALLER_GONE, SERVER_GONE, BatchResult, Run, all_failed, empty_costs, note_runs
from server.models.holds import Holds
from server.models.instances import Instances
from server.models.parts import Parts
from server.models.pictures import PictureDecoder, PictureIntake
from server.models.plans import plans_of
from server.models.queueing import explained, lateness, make_queue, queue_policy, time_limits
from server.models.run_limit import RunLimit
from server.models.sequence_execution import goes_on, instance_of, run_rows, sequence_queue
from server.models.served import Occupancy
from server.models.streak import FailureStreak
from server.models.tiny_batches import TINY_BATCH_SECONDS, TinyBatches
from server.models.work import Answer, Pending, Reply, Whole, Work
from server.scheduling.batcher import Batcher
from server.scheduling.budget import ByteBudget
from server.scheduling.clock import Clock
from server.scheduling.costs import CostTable, bucket_below
from server.scheduling.ordering import AnswerOrder
from server.scheduling.sequence_policy import SequencePolicy
from server.scheduling.sequences import SequenceCounts, SequenceQueue
from server.scheduling.turns import Turns
from server.statistics import VersionStatistics
from server.summaries import LatencySummaries, SummarySlices

log = logging.getLogger(__name__)


class LoadedVersion:
    """A version that can serve, with a lane for each of `sessions`."""

    card: Card = NO_CARD
    _instances_of = Instances

    def __init__(
        self,
        config: ModelConfig,
        version: int,
        sessions: Sequence[Session],
        clock: Clock,
        load_seconds: float = 0.0,
        budget: ByteBudget | None = None,
        turns: Turns | None = None,
        tiny_batch_seconds: float = TINY_BATCH_SECONDS,
        costs: CostTable | None = None,
        decoder: PictureDecoder | None = None,
        summaries: LatencySummaries | None = None,
        statistics: VersionStatistics | None = None,
        run_limit: float = 0.0,
    ) -> None:
        """`costs` is what was measured before; without it the table fills as batches run. `decoder` is needed where the
        configuration names a preprocessing. `statistics` are those of the version that this one takes over from.
        `run_limit` is the seconds that a run may take, 0: as many as it likes."""
        self.config = config
        self.version = version
        self.statistics = statistics or VersionStatistics()
        self._summaries = summaries
        self.load_seconds = load_seconds
        self.instances = len(sessions)
        self.streak = FailureStreak()
        self._clock = clock
        self._memory = budget.memory if budget is not None else MemoryBudget()
        self._plans = plans_of(config)
        self._leases = 0
        self._holds = Holds()
        self.lost: ConvoyError | None = None
        """Why no request may be submitted any more, where the session has gone bad."""
        self.before: LoadedVersion | None = None
        """The version that this one has taken over from, while sequences of it go on."""
        self.costs = costs or empty_costs(config, sessions[0])
        """Seconds by batch size, shared with whoever measured the version before it could serve."""
        self._accounts = BatchAccounts(clock, self.costs, self.statistics, summaries, self.streak)
        self._objective_ns = round(config.objective_ms * 1e6)
        self._objective_seconds = config.objective_ms / 1e3 or inf
        self._when_gone: ConvoyError = CALLER_GONE
        self._version_text = str(version)
        batching = config.batching
        self._levels = batching.levels if batching else (QueuePolicy(),)
        self._default_level = batching.default_level if batching else 1
        self._order: AnswerOrder[Work, tuple[Answer, int, Sequence[Run]]] | None = None
        if batching and batching.preserve_ordering:
            self._order = AnswerOrder()
        # Most models need neither order nor splitting, and then there is nothing between a batch and its answers.
        self._complete = (
            self._complete_in_order_or_parts if self._order is not None or config.split_oversize else self._settle
        )
        self._policy = queue_policy(config)
        self.run_limit = RunLimit(config, version, run_limit, clock, self.statistics) if run_limit else None
        self._instances = self._instances_of(config, version, sessions, self.costs.fill_sizes, self.run_limit)
        executors, lanes = self._instances.start(TinyBatches(self.costs, run_rows(config), tiny_batch_seconds).has)
        self._sequences: SequenceQueue[Work] | None = None
        if isinstance(self._policy, SequencePolicy):
            self._sequences = sequence_queue(
                config, self._policy, executors, budget, self.statistics.record_reclaimed_sequence
            )
        self._batcher: Batcher[Work, BatchResult] = Batcher(
            make_queue(self._policy, self.costs, len(lanes), budget) if self._sequences is None else self._sequences,
            lanes,
            clock,
            finished=self._finished,
            expired=self._expired,
            turns=turns,
            waited=self.statistics.record_turn_wait,
            lane_of=None if self._sequences is None else instance_of,
        )
        self._parts = Parts(self._batcher, config.name)
        self._pictures: PictureIntake | None = None
        if config.preprocessing is not None:
            assert decoder is not None, "the control plane has one"
            self._pictures = PictureIntake(
                config,
                config.preprocessing,
                decoder,
                clock,
                ready=self._decoded,
                late=self._expired,
                failed=self._leave_at_once,
            )

    @property
    def pending(self) -> int:
        """Requests that wait for a batch, or for their pictures."""
        return self._batcher.pending + (0 if self._pictures is None else len(self._pictures))

    @property
    def in_flight(self) -> int:
        """Leases held: requests admitted and not settled yet."""
        return self._leases

    def occupancy(self) -> Occupancy:
        """See `Served.occupancy`."""
        return Occupancy(self._batcher.pending, self._batcher.pending_rows, self._batcher.running)

    def queue_age(self) -> float:
        """Seconds that the request has waited which has waited longest; 0 where none waits."""
        oldest = self._batcher.oldest_arrival()
        if self._pictures is not None:
            oldest = min(oldest, self._pictures.oldest_arrival())
        return max(0.0, self._clock.now() - oldest)

    def latest(self) -> SummarySlices | None:
        """The latencies of the last minute; None where nobody asked for them."""
        return None if self._summaries is None else self._summaries.copy(self._clock.now())

    def busy_seconds(self) -> list[float]:
        """For how long each instance has had a batch so far."""
        return self._batcher.busy_seconds()

    def sequences(self) -> SequenceCounts | None:
        """What there is of sequences; None where the model has none."""
        if self._sequences is None:
            return None
        counts, before = self._sequences.counts(), self.before
        # A version of the same number is not in the registry any more, and nobody else counts what it has.
        also = before.sequences() if before is not None and before.version == self.version else None
        return counts if also is None else SequenceCounts(*map(add, counts, also))

    def has_sequences(self) -> bool:
        """Whether any sequence goes on here, or waits for a slot."""
        counts = None if self._sequences is None else self._sequences.counts()
        return counts is not None and counts.active + counts.backlog > 0

    def when_without_sequences(self, callback: Callable[[], None]) -> None:
        """Call back each time that the last sequence is over."""
        assert self._sequences is not None, "it has some"
        self._sequences.when_empty = callback

    def keeps(self, request: InferenceRequest, successor: int) -> bool:
        """Whether a request to the version that has taken over is of a sequence that goes on here. Where it is a START,
        the sequence of its id is over here."""
        if self._sequences is None or request.sequence is None or (request.model_version and successor != self.version):
            return False
        return goes_on(self._sequences, request.sequence)

    @property
    def max_batch_rows(self) -> int:
        """Rows that a batch may hold now, of the signature with the smallest batches."""
        return self._policy.max_rows

    def submit(self, request: InferenceRequest, reply: Reply, arrived: float | None = None) -> Pending | None:
        """Admit a request, which came now unless `arrived` says when.

        `reply` is called once, also for a refusal, unless what is returned is cancelled first. Returns None where the
        request is settled already: it was refused, or its answer was at hand.
        """
        if self.before is not None and self.before.keeps(request, self.version):
            return self.before.submit(request, reply, arrived)
        if arrived is None:
            arrived = self._clock.now()
        due, memory = inf, self._memory
        try:
            plan = self._plans.of(request)
            inputs = admission.inputs_in_order(self.config, plan, request)
            level = request.priority if 0 < request.priority <= len(self._levels) else self._default_level
            deadline, delay_at, due = time_limits(request, arrived, self._levels[level - 1], self._objective_seconds)
            size = admission.wire_bytes(plan, request) if plan.texts else plan.fixed_bytes
            answer_bytes = plan.answer_bytes
            if memory.used + answer_bytes > memory.limit and answer_bytes:
                raise memory.refusal(answer_bytes)
            kind = Whole if plan.rows > self._policy.max_rows and self.config.split_oversize else Work
            work = kind(self, request, plan, inputs, reply, arrived, deadline, level, delay_at, size, due)
            if self._pictures is not None and plan.pictures_at >= 0:
                self._pictures.begin(work)
            elif kind is Work:
                self._batcher.submit(work)
            else:
                assert isinstance(work, Whole), "there are two kinds"
                self._parts.submit(work, self._policy.max_rows, self._policy.most_rows(level))
        except ConvoyError as error:
            refusal = explained(error, request, self.config).with_traceback(None)  # it leads here, and to the request
            if request.record is not None:
                request.record.version = self._version_text
            request_ns = round((self._clock.now() - arrived) * 1e9)
            self.statistics.record_failure(refusal, request_ns, due < inf)
            reply(refusal)
            return None
        self._leases += 1
        memory.used += answer_bytes
        if self._order is not None:
            self._order.arrive(work)
        return work

    def cancel(self, work: Work) -> None:
        """See `Work.cancel`."""
        if work.reply is None:
            return
        work.reply = None
        if self._pictures is not None and self._pictures.cancel(work):
            waited = True
        else:
            waited = self._parts.give_up(work) if isinstance(work, Whole) else self._batcher.cancel(work)
        if waited:
            self._leave_at_once(work, CALLER_GONE)

    def hurry(self) -> None:
        """Run what is queued, and whatever comes, without waiting for company: the server is going down."""
        self._batcher.hurry()
        if self.before is not None:
            self.before.hurry()

    def cut_off(self) -> None:
        """The server goes down, and whoever leaves from now on does so for that: what waits is refused, and what runs
        ends as soon as may be."""
        self._when_gone = SERVER_GONE
        for work in self._batcher.clear():
            self._turn_away(work, self._when_gone)
        self._instances.interrupt()
        if self.before is not None:
            self.before.cut_off()

    async def abandon(self, why: str) -> None:
        """Refuse what is queued, wait for what runs, then release the lanes. Nothing may be submitted any more."""
        self.lost = NotReady(why)
        for work in self._batcher.clear():
            self._turn_away(work, self.lost)
        await self.drain()

    def hold(self) -> Callable[[], None]:
        """Keep the version able to run requests until the function that this returns is called, once.

        For a request of an ensemble, whose step here comes later, and for sequences after another version has taken
        over."""
        return self._holds.take()

    async def drain(self) -> None:
        """Run what is queued, then release the lanes. No request may be submitted after this began, but by whoever
        holds the version."""
        self.streak.when_suspicious = None  # whoever is told knows the session, which nothing may hold on to
        await self._holds.none_held()
        if self._pictures is not None:
            await self._pictures.drain()
        await self._batcher.drain()
        self._batcher.close()
        self._instances.forget()

    def _decoded(self, work: Work) -> None:
        """A request's pictures are ready: queue it."""
        try:
            if isinstance(work, Whole):
                self._parts.submit(work, self._policy.max_rows, self._policy.most_rows(work.place >> 1))
            else:
                self._batcher.submit(work)
        except ConvoyError as error:
            self._leave_at_once(work, explained(error, work.request, self.config))

    def _finished(self, batch: Sequence[Work], outcome: BatchResult | Exception) -> None:
        if isinstance(outcome, Exception):
            outcome = all_failed(self.config, self.version, batch, outcome)
        if outcome.failed_runs and self._when_gone is SERVER_GONE:
            outcome = outcome.going_down()
        self._accounts.ran(outcome.runs)
        for work, answer in zip(batch, outcome.answers, strict=True):
            self._complete(work, answer, outcome.start_ns, outcome.runs)
        if outcome.exhausted_rows > 1:
            self._shrink_batches(batch[0].signature, outcome.exhausted_rows)
        self._accounts.answered(outcome)

    def _shrink_batches(self, signature: Hashable, exhausted_rows: int) -> None:
        """A batch of so many rows found no memory where smaller ones did."""
        rows = bucket_below(self.costs.sizes, exhausted_rows)
        self._batcher.limit_rows(rows, signature)
        if rows < self._policy.max_rows:
            log.warning(
                "model '%s' version %d ran out of memory with a batch of %d rows: such batches hold at most %d rows "
                "from now on, not %d, until it is loaded again",
                self.config.name, self.version, exhausted_rows, rows, self._policy.max_rows,
            )  # fmt: skip
            self._policy = self._policy.limited(rows)

    def _expired(self, work: Work) -> None:
        self._turn_away(work, lateness(work, self.config, self._clock.now()))

    def _turn_away(self, work: Work, error: ConvoyError) -> None:
        """Settle what has left the queue and will not run: a request, or the whole that it is a part of."""
        if work.whole is None:
            self._leave_at_once(work, error)
        elif self._parts.give_up(work.whole):
            self._leave_at_once(work.whole, error)

    def _leave_at_once(self, work: Work, error: ConvoyError) -> None:
        """Settle a request that never ran: it holds nobody up, whatever the order of answers."""
        self._settle(work, error)
        if self._order is not None:
            for other, due in self._order.forget(work):
                self._settle(other, *due)

    def _complete_in_order_or_parts(
        self, work: Work, answer: Answer, started_ns: int = 0, runs: Sequence[Run] = ()
    ) -> None:
        """A request or a part has its answer: settle what is complete and whose turn it is."""
        whole = work.whole
        if whole is not None:
            joined = self._parts.collect(whole, work, answer, started_ns, runs)
            if joined is None:
                return
            work, answer, started_ns, runs = whole, joined, whole.started_ns, ()
        if self._order is None:
            self._settle(work, answer, started_ns, runs)
            return
        for other, due in self._order.finish(work, (answer, started_ns, runs)):
            self._settle(other, *due)

    def _settle(self, work: Work, answer: Answer, started_ns: int = 0, runs: Sequence[Run] = ()) -> None:
        """Count a request that leaves, and answer it unless its caller has gone. Called once per admitted request."""
        self._leases -= 1
        self._memory.used -= work.plan.answer_bytes
        reply, work.reply = work.reply, None
        now = self._clock.now()
        arrived_ns = round(work.arrived * 1e9)
        request_ns = round(now * 1e9) - arrived_ns
        work.inputs = []  # the queue's heap of deadlines may remember the ticket for a while
        work.request.buffers = ()
        if reply is None:
            answer = self._when_gone
        record = work.request.record
        if record is not None:
            record.admitted(self._version_text, work.rows, arrived_ns)
            record.started_ns = started_ns
            note_runs(record, work, runs)
            if reply is None:
                record.finish(self._when_gone)
        if isinstance(answer, ConvoyError):
            self.statistics.record_failure(answer, request_ns, work.due < inf)
        else:
            queue_ns = started_ns - arrived_ns if started_ns > arrived_ns else 0
            self.statistics.record_success(queue_ns, request_ns)
            if self._summaries is not None:
                self._summaries.record_request(now, queue_ns, request_ns)
            if work.due < inf:
                self.statistics.record_deadline(now <= work.due)
            if self._objective_ns:
                self.statistics.record_objective(request_ns <= self._objective_ns)
        if reply is not None:
            try:
                reply(answer)
            except Exception:  # the rest of the batch must hear theirs
                log.exception(
                    "an answer of model '%s' version %d was not taken",
                    self.config.name, self.version, extra=work.request.log_fields(self._version_text),
                )  # fmt: skip
