"""One loaded version of a model: admission in front, a batcher over its lanes, statistics behind.

All methods run on the event loop's thread, except `_execute`, which may run on a lane's.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakValueDictionary

from server.backends.base import Session
from server.errors import Cancelled, ConvoyError, DeadlineExceeded, ExecutionFailed, QueueFull, QueueTimeout
from server.messages import InferenceRequest, InferenceResponse, OutputTensor
from server.models import admission
from server.models.admission import OutputPlan, Plan
from server.models.classification import classify
from server.models.config import ModelConfig
from server.scheduling.assembly import BatchLayout, InputLayout, Staging, scatter
from server.scheduling.batcher import Batcher
from server.scheduling.clock import Clock
from server.scheduling.costs import CostTable
from server.scheduling.lanes import ThreadLane
from server.scheduling.policy import WindowPolicy
from server.scheduling.queue import Ticket
from server.statistics import BatchTimes, VersionStatistics
from server.tensors import BYTES, Array, Buffer

log = logging.getLogger(__name__)

Reply = Callable[[InferenceResponse | ConvoyError], None]
"""Takes the one answer to a request, on the event loop's thread."""

REMEMBERED_PLANS = 256

TINY_BATCH_SECONDS = 300e-6
"""A batch that is expected to take less than this runs on the event loop's thread: handing it over and back costs a
fifth to a third more CPU, and no answer comes sooner (docs/performance.md). It holds up the event loop for as long."""

CALLER_GONE = Cancelled("the caller went away")

QUEUED_BATCHES = 64
MIN_QUEUED_REQUESTS = 1024
"""The default bound of a queue: 64 full batches, and never less than 1,024 requests' worth of rows."""


class Work(Ticket):
    """One admitted request, from admission to answer."""

    __slots__ = ("_version", "inputs", "plan", "reply", "request")

    def __init__(
        self,
        version: LoadedVersion,
        request: InferenceRequest,
        plan: Plan,
        inputs: list[Buffer | Array],
        reply: Reply | None,
        arrived: float,
        deadline: float,
    ) -> None:
        super().__init__(plan.rows, plan.layout, arrived, deadline)
        self.request = request
        self.plan = plan
        self.inputs = inputs
        self.reply = reply
        """None once it is answered or its caller has gone."""
        self._version = version

    def cancel(self) -> None:
        """The caller has gone: leave the queue, or let the batch run on without an answer. Harmless when too late."""
        self._version.cancel(self)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a lane hands back: an answer or an error for each request, in the batch's order."""

    answers: list[InferenceResponse | ConvoyError]
    times: BatchTimes


class LoadedVersion:
    """A version that can serve."""

    def __init__(
        self, config: ModelConfig, version: int, session: Session, clock: Clock, load_seconds: float = 0.0
    ) -> None:
        self.config = config
        self.version = version
        self.statistics = VersionStatistics()
        self.load_seconds = load_seconds
        self._session = session
        self._clock = clock
        self._plans: dict[tuple[object, object], Plan] = {}
        self._layouts: WeakValueDictionary[tuple[InputLayout, ...], BatchLayout] = WeakValueDictionary()
        self._leases = 0
        self._costs = CostTable()
        self._version_text = str(version)
        batching = config.batching
        self._default_timeout_us = batching.default_timeout_us if batching else 0
        self._allow_timeout_override = batching is not None and batching.allow_timeout_override
        loop = asyncio.get_running_loop()
        lanes = [
            ThreadLane(f"{config.name}/{version}#{i}", partial(self._execute, Staging()), loop, self._is_tiny)
            for i in range(config.load.instance_count)
        ]
        self._batcher: Batcher[Work, BatchResult] = Batcher(
            _policy(config), lanes, clock, finished=self._finished, expired=self._expired
        )

    @property
    def pending(self) -> int:
        """Requests that wait for a batch."""
        return self._batcher.pending

    @property
    def in_flight(self) -> int:
        """Leases held: requests admitted and not settled yet."""
        return self._leases

    def submit(self, request: InferenceRequest, reply: Reply) -> Work | None:
        """Admit a request. `reply` is called once, also for a refusal, unless the `Work` is cancelled first.

        Returns None where the request was refused (and `reply` has been called).
        """
        arrived = self._clock.now()
        try:
            plan = self._plan(request)
            inputs = admission.inputs_in_order(self.config, plan, request)
            work = Work(self, request, plan, inputs, reply, arrived, self._deadline(request, arrived))
            self._batcher.submit(work)
        except ConvoyError as error:
            refusal = QueueFull(f"{request.label()}{error}") if isinstance(error, QueueFull) else error
            self.statistics.record_failure(refusal.reason, round((self._clock.now() - arrived) * 1e9))
            reply(refusal)
            return None
        self._leases += 1
        return work

    def cancel(self, work: Work) -> None:
        """See `Work.cancel`."""
        if work.reply is None:
            return
        work.reply = None
        if self._batcher.cancel(work):
            self._settle(work, CALLER_GONE)

    def hurry(self) -> None:
        """Run what is queued, and whatever comes, without waiting for company: the server is going down."""
        self._batcher.hurry()

    async def drain(self) -> None:
        """Run what is queued, then release the lanes. No request may be submitted after this began."""
        await self._batcher.drain()
        self._batcher.close()

    def _plan(self, request: InferenceRequest) -> Plan:
        key = (request.specs, request.outputs)
        plan = self._plans.get(key)
        if plan is None:
            plan = admission.make_plan(self.config, request.specs, request.outputs, request.label())
            # Requests of different sizes share a batch: their plans must share one layout object.
            plan = replace(plan, layout=self._layouts.setdefault(plan.layout.inputs, plan.layout))
            self._plans[key] = plan
            if len(self._plans) > REMEMBERED_PLANS:
                del self._plans[next(iter(self._plans))]  # its layout lives on while another plan or a request has it
        return plan

    def _deadline(self, request: InferenceRequest, arrived: float) -> float:
        timeout_us = request.timeout_us
        default_us = self._default_timeout_us
        if default_us:
            shortened = self._allow_timeout_override and 0 < timeout_us < default_us
            timeout_us = timeout_us if shortened else default_us
        return min(request.deadline, arrived + timeout_us / 1e6) if timeout_us else request.deadline

    def _is_tiny(self, batch: Sequence[Work]) -> bool:
        return self._costs.predict(sum([work.rows for work in batch])) < TINY_BATCH_SECONDS

    def _execute(self, staging: Staging, batch: Sequence[Work]) -> BatchResult:
        """Run one batch, on a lane's thread or, if it is tiny, on the event loop's."""
        start = time.monotonic_ns()
        layout = batch[0].plan.layout
        rows = [work.rows for work in batch]
        names = _union([work.plan for work in batch])
        arrays = staging.gather(layout, rows, [work.inputs for work in batch])
        input_end = time.monotonic_ns()
        outputs = self._session.run(arrays, names)
        infer_end = time.monotonic_ns()
        parts = scatter(names, outputs, rows) if layout.batched else [dict(zip(names, outputs, strict=True))]
        answers = [self._answer(work, part) for work, part in zip(batch, parts, strict=True)]
        return BatchResult(answers, BatchTimes(start, input_end, infer_end, time.monotonic_ns()))

    def _answer(self, work: Work, outputs: Mapping[str, Array]) -> InferenceResponse | ConvoyError:
        try:
            tensors = [self._output(output, outputs[output.config.name]) for output in work.plan.outputs]
        except Exception as error:  # noqa: BLE001 -- the model's outputs are not what it promised; others may be fine
            return ExecutionFailed(f"model '{self.config.name}' version {self.version} has no such answer: {error}")
        return InferenceResponse(self.config.name, self._version_text, work.request.request_id, tensors)

    def _output(self, output: OutputPlan, array: Array) -> OutputTensor:
        tensor = output.config
        if output.classification:
            array = classify(array, output.classification, tensor.labels, batched=self.config.max_batch_size > 0)
            return OutputTensor(tensor.name, BYTES, array.shape, array)
        if tensor.reshape is not None:
            batched = self.config.max_batch_size > 0
            array = array.reshape(_client_shape(tensor.dims, tensor.reshape, array.shape, batched))
        return OutputTensor(tensor.name, tensor.datatype, array.shape, array)

    def _finished(self, batch: Sequence[Work], outcome: BatchResult | Exception) -> None:
        if isinstance(outcome, Exception):
            message = f"model '{self.config.name}' version {self.version} failed to run: {outcome}"
            error = outcome if isinstance(outcome, ConvoyError) else ExecutionFailed(message)
            for work in batch:
                self._settle(work, error)
            return
        rows = sum([work.rows for work in batch])
        times = outcome.times
        self._costs.observe(rows, (times.output_end - times.start) / 1e9)
        self.statistics.record_batch(times, rows, len(batch))
        for work, answer in zip(batch, outcome.answers, strict=True):
            self._settle(work, answer, started_ns=outcome.times.start)
        self.statistics.last_inference_ms = time.time_ns() // 1_000_000

    def _expired(self, work: Work) -> None:
        if work.deadline == work.request.deadline:
            self._settle(work, DeadlineExceeded("Deadline Exceeded"))
        else:
            self._settle(work, QueueTimeout("Request timeout expired"))

    def _settle(self, work: Work, answer: InferenceResponse | ConvoyError, started_ns: int = 0) -> None:
        """Count a request that leaves, and answer it unless its caller has gone. Called once per admitted request."""
        self._leases -= 1
        reply, work.reply = work.reply, None
        arrived_ns = round(work.arrived * 1e9)
        request_ns = round(self._clock.now() * 1e9) - arrived_ns
        work.inputs = []  # the queue's heap of deadlines may remember the ticket for a while
        work.request.buffers = ()
        if reply is None:
            answer = CALLER_GONE
        if isinstance(answer, ConvoyError):
            self.statistics.record_failure(answer.reason, request_ns)
        else:
            self.statistics.record_success(max(0, started_ns - arrived_ns), request_ns)
        if reply is not None:
            try:
                reply(answer)
            except Exception:  # the rest of the batch must hear theirs
                log.exception("an answer of model '%s' version %d was not taken", self.config.name, self.version)


def _policy(config: ModelConfig) -> WindowPolicy:
    batching = config.batching
    max_rows = max(1, config.max_batch_size)
    max_queued_rows = max(QUEUED_BATCHES * max_rows, MIN_QUEUED_REQUESTS)
    if batching is None:
        return WindowPolicy(max_rows, max_requests=1, max_queued_rows=max_queued_rows)
    return WindowPolicy(
        max_rows,
        preferred_rows=batching.preferred_batch_sizes,
        max_delay=batching.max_queue_delay_us / 1e6,
        max_queued_rows=sys.maxsize if batching.max_queue_size else max_queued_rows,
        max_queued_requests=batching.max_queue_size or sys.maxsize,
    )


def _union(plans: Sequence[Plan]) -> tuple[str, ...]:
    """Every output that some request of the batch wants, once."""
    first = plans[0]
    if len(set(plans)) == 1:  # plans compare by identity
        return first.names
    return tuple(dict.fromkeys(name for plan in plans for name in plan.names))


def _client_shape(
    dims: tuple[int, ...], reshape: tuple[int, ...], model_shape: tuple[int, ...], batched: bool
) -> tuple[int, ...]:
    """The shape that the configuration promises to clients, its free dimensions filled in order from the model's."""
    leading, trailing = (model_shape[:1], model_shape[1:]) if batched else ((), model_shape)
    free = [got for want, got in zip(reshape, trailing, strict=True) if want == -1]
    return (*leading, *(free.pop(0) if want == -1 else want for want in dims))
