"""One version of an ensemble: admission in front, the models of its steps behind, and statistics of the whole.

All of it runs on the event loop's thread. What the steps of a request do is `ensemble_run`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf

import numpy as np

from server.errors import ConvoyError, DeadlineExceeded, ExecutionFailed, QueueFull
from server.messages import InferenceRequest, InferenceResponse, OutputTensor, RequestedOutput
from server.models import admission
from server.models.cards import NO_CARD, Card
from server.models.classification import classify
from server.models.config import ModelConfig
from server.models.config_types import EnsembleStep
from server.models.ensemble import flow_to
from server.models.ensemble_gates import Gate
from server.models.ensemble_run import EnsembleRun, Members, RunPlan, fitted
from server.models.execution import CALLER_GONE, SERVER_GONE
from server.models.holds import Holds
from server.models.plans import Plans
from server.models.served import Occupancy
from server.models.work import Answer, Pending, Reply
from server.records import Computation, Record
from server.scheduling.budget import ByteBudget
from server.scheduling.clock import Clock
from server.scheduling.costs import CostTable
from server.scheduling.deadlines import Deadlines
from server.statistics import BatchTimes, VersionStatistics
from server.summaries import LatencySummaries, SummarySlices
from server.tensors import BYTES, DATATYPES

log = logging.getLogger(__name__)

MAX_AT_THE_DOOR = 1024
"""Requests that may wait for a place at the first steps of an ensemble with `max_inflight_requests`."""


class EnsembleVersion:
    """A version of an ensemble whose models serve."""

    instances = 0
    lost: ConvoyError | None = None
    card: Card = NO_CARD

    def __init__(
        self,
        config: ModelConfig,
        version: int,
        members: Members,
        clock: Clock,
        budget: ByteBudget | None = None,
        summaries: LatencySummaries | None = None,
        statistics: VersionStatistics | None = None,
    ) -> None:
        schedule = config.load.ensemble
        assert schedule is not None, "whoever has none is no ensemble"
        self.config = config
        self.version = version
        self.members = members
        """Of requests that come from now on; each keeps those that it came to."""
        self.steps = schedule.steps
        self.statistics = statistics or VersionStatistics()
        self.load_seconds = 0.0
        self.costs = CostTable((1,))
        """Empty: what runs, and is measured, are the models of the steps."""
        self._clock = clock
        self._budget = budget or ByteBudget(1 << 62)
        self._summaries = summaries
        self._loop = asyncio.get_running_loop()
        self._plans = Plans(partial(_make_plan, config, schedule.steps))
        limit = schedule.max_inflight_requests
        self._gates: Sequence[Gate[EnsembleRun]] = [Gate(limit) for _ in self.steps] if limit else ()
        self._at_the_door: dict[EnsembleRun, int] = {}
        """Requests that wait at one of their first steps, the one that came first in front, and the bytes of each."""
        self._deadlines: Deadlines[EnsembleRun] = Deadlines()
        """Of callers whose requests wait for a place; where a model has a request, the model keeps its deadline."""
        # Without limits nobody waits for a place.
        self._expiry = clock.alarm(self._expire) if limit else None
        self._requests = Holds()
        """Those admitted and not settled."""
        self._holds = Holds()
        self._when_gone: ConvoyError = CALLER_GONE
        self._version_text = str(version)

    @property
    def pending(self) -> int:
        """Requests none of whose models has one of them yet."""
        return len(self._at_the_door)

    @property
    def in_flight(self) -> int:
        return self._requests.held

    @property
    def max_batch_rows(self) -> int:
        return max(1, self.config.max_batch_size)

    def occupancy(self) -> Occupancy:
        return Occupancy(len(self._at_the_door), sum([run.plan.admitted.rows for run in self._at_the_door]), 0)

    def queue_age(self) -> float:
        first = next(iter(self._at_the_door), None)
        return 0.0 if first is None else max(0.0, self._clock.now() - first.arrived)

    def latest(self) -> SummarySlices | None:
        return None if self._summaries is None else self._summaries.copy(self._clock.now())

    def sequences(self) -> None:
        return None

    def busy_seconds(self) -> Sequence[float]:
        return ()

    def submit(self, request: InferenceRequest, reply: Reply) -> Pending | None:
        """See `Served.submit`."""
        return self.submit_on(self.members, request, reply)

    def submit_on(self, members: Members, request: InferenceRequest, reply: Reply) -> Pending | None:
        """See `ensemble_run.Nested`."""
        return self._submit(members, request, reply, self._clock.now())

    def hold(self) -> Callable[[], None]:
        """See `Served.hold`. The models that it has now are held, too."""
        return self.hold_on(self.members)

    def hold_on(self, members: Members) -> Callable[[], None]:
        """See `ensemble_run.Nested`."""
        return partial(_release_all, [*members.hold(), self._holds.take()])

    def hurry(self) -> None:
        """Nothing waits for company here."""

    def cut_off(self) -> None:
        self._when_gone = SERVER_GONE

    async def drain(self) -> None:
        """See `Served.drain`."""
        await self._holds.none_held()
        await self._requests.none_held()
        if self._expiry is not None:
            self._expiry.close()
            self._expiry = None

    def may_begin(self, run: EnsembleRun, index: int) -> bool:
        """See `ensemble_run.Owner`."""
        if not self._gates or self._gates[index].enter(run):
            return True
        self._mind_deadline(run)
        return False

    def is_in_line(self, run: EnsembleRun) -> bool:
        """See `ensemble_run.Owner`."""
        return any(run in gate.waiting for gate in self._gates)

    def left(self, index: int) -> None:
        """See `ensemble_run.Owner`."""
        if self._gates:
            self._gates[index].leave()
            # Not at once: who is let in may fail at once, and let in the next one, and so on without end.
            self._loop.call_soon(self._call_next, index)

    def step_answered(self) -> None:
        """See `ensemble_run.Owner.step_answered`."""
        self.statistics.step_answers += 1

    def finish(self, run: EnsembleRun) -> None:
        """See `ensemble_run.Owner`."""
        batched = self.config.max_batch_size > 0
        tensors: list[OutputTensor] = []
        for output in run.plan.admitted.outputs:
            name = output.config.name
            datatype, shape, data = run.take(name)
            shape = fitted(shape, len(output.config.dims) + batched)
            assert isinstance(data, np.ndarray), "a model wrote it"
            tensors.append(OutputTensor(name, DATATYPES[datatype], shape, data.reshape(shape)))
        answer = InferenceResponse(self.config.name, self._version_text, run.request.request_id, tensors)
        if run.plan.admitted.is_plain:
            run.end(answer)
            return
        # Texts for many classes of many rows take a while: others are served meanwhile.
        classified = self._loop.run_in_executor(None, self._classify, run, answer)
        classified.add_done_callback(partial(_end_with, run))

    def ended(self, run: EnsembleRun, answer: Answer | None) -> None:
        """See `ensemble_run.Owner`."""
        for gate in self._gates:
            gate.forget(run)
        self._leave_the_door(run)
        self._requests.release()
        if isinstance(answer, ConvoyError):
            answer = answer.within(f"in ensemble '{self.config.name}', ")
        told = self._when_gone if answer is None else answer
        record = run.request.record
        if record is not None:
            record.admitted(self._version_text, run.plan.admitted.rows, round(run.arrived * 1e9))
            record.started_ns = run.begun_ns
            record.steps = tuple(run.records.values())
            if answer is None:
                record.finish(self._when_gone)
        self._count(run, told)
        if answer is not None:
            try:
                run.reply(answer)
            except Exception:
                log.exception(
                    "an answer of ensemble '%s' version %d was not taken",
                    self.config.name, self.version, extra=run.request.log_fields(self._version_text),
                )  # fmt: skip

    def _submit(self, members: Members, request: InferenceRequest, reply: Reply, arrived: float) -> EnsembleRun | None:
        try:
            plan = self._plans.of(request)
            admission.check_sizes(self.config, plan.admitted, request)
            size = self._let_in(plan, request)
        except ConvoyError as error:
            if request.record is not None:
                request.record.version = self._version_text
            request_ns = round((self._clock.now() - arrived) * 1e9)
            self.statistics.record_failure(error, request_ns, request.deadline < inf)
            reply(error)
            return None
        run = EnsembleRun(self, members, plan, request, reply, arrived)
        self._requests.take()
        if size >= 0:
            self._at_the_door[run] = size
        run.start()
        return None if run.is_over else run

    def _let_in(self, plan: RunPlan, request: InferenceRequest) -> int:
        """The bytes of a request that has to wait at the door; -1 where it need not. Raises `QueueFull`."""
        if not self._gates or all(self._gates[index].is_open for index in plan.flow.first):
            return -1
        if len(self._at_the_door) >= MAX_AT_THE_DOOR:
            raise QueueFull(f"{request.label()}Exceeds maximum queue size")
        size = admission.wire_bytes(plan.admitted, request)
        try:
            self._budget.take(size)
        except QueueFull as error:
            raise error.within(request.label()) from None
        return size

    def _mind_deadline(self, run: EnsembleRun) -> None:
        deadline = run.request.deadline
        if deadline < inf and self._expiry is not None:
            self._deadlines.add(deadline, run, self._requests.held)
            self._expiry.set(min(deadline, self._expiry.when))

    def _expire(self) -> None:
        now = self._clock.now()
        while (late := self._deadlines.pop(now)) is not None:
            late[1].end(DeadlineExceeded("Deadline Exceeded"))
        if self._expiry is not None:
            self._expiry.set(self._deadlines.next())

    def _call_next(self, index: int) -> None:
        """Let whoever is first in line begin a step, while there are places."""
        while (run := self._gates[index].next()) is not None:
            if all(run not in self._gates[other].waiting for other in run.plan.flow.first):
                self._leave_the_door(run)
            run.begin(index)

    def _leave_the_door(self, run: EnsembleRun) -> None:
        size = self._at_the_door.pop(run, -1)
        if size >= 0:
            self._budget.give_back(size)

    def _classify(self, run: EnsembleRun, answer: InferenceResponse) -> InferenceResponse:
        """The answer with the classes that were asked for, in place of their scores. On a thread."""
        batched = self.config.max_batch_size > 0
        for i, output in enumerate(run.plan.admitted.outputs):
            if output.classification:
                name = output.config.name
                labels = output.config.labels or run.members.labels[name]
                array = classify(answer.outputs[i].data, output.classification, labels, batched=batched)
                answer.outputs[i] = OutputTensor(name, BYTES, array.shape, array)
        return answer

    def _count(self, run: EnsembleRun, answer: Answer) -> None:
        now = self._clock.now()
        arrived_ns = round(run.arrived * 1e9)
        request_ns = round(now * 1e9) - arrived_ns
        due = run.request.deadline
        if isinstance(answer, ConvoyError):
            self.statistics.record_failure(answer, request_ns, due < inf)
            return
        rows = run.plan.admitted.rows
        times = _compute_times(run.records.values())
        # Waiting for models is in their own statistics, as in Triton's: here it is for the ensemble's own places.
        queue_ns = max(0, run.begun_ns - arrived_ns) if self._gates else 0
        self.statistics.record_batch(times, rows, 1)
        self.statistics.record_success(queue_ns, request_ns)
        self.statistics.last_inference_ms = time.time_ns() // 1_000_000
        if due < inf:
            self.statistics.record_deadline(now <= due)
        if self._summaries is not None:
            self._summaries.record_batch(now, times, 1)
            self._summaries.record_request(now, queue_ns, request_ns)


def _make_plan(config: ModelConfig, steps: Sequence[EnsembleStep], request: InferenceRequest) -> RunPlan:
    """Raises what `admission.make_plan` raises."""
    admitted = admission.make_plan(config, request.specs, request.outputs, request.label())
    flow = flow_to(steps, admitted.names)
    requested = {
        index: tuple([RequestedOutput(name) for name, _ in results]) for index, results in flow.results.items()
    }
    return RunPlan(admitted, flow, requested)


def _release_all(releases: Iterable[Callable[[], None]]) -> None:
    for release in releases:
        release()


def _end_with(run: EnsembleRun, classified: asyncio.Future[InferenceResponse]) -> None:
    if run.is_over:
        return
    error = classified.exception()
    run.end(classified.result() if error is None else ExecutionFailed(f"the classes cannot be told: {error}"))


def _compute_times(records: Iterable[Record]) -> BatchTimes:
    """One run that took as long, phase by phase, as those of all steps together."""
    runs = list(_computations(records))
    input_ns = sum([run.input_end_ns - run.start_ns for run in runs])
    infer_ns = sum([run.infer_end_ns - run.input_end_ns for run in runs])
    output_ns = sum([run.output_end_ns - run.infer_end_ns for run in runs])
    return BatchTimes(0, input_ns, input_ns + infer_ns, input_ns + infer_ns + output_ns)


def _computations(records: Iterable[Record]) -> Iterable[Computation]:
    for record in records:
        yield from record.computations
        yield from _computations(record.steps)
