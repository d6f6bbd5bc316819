"""One request of an ensemble: its steps are begun as soon as what they read is there, each as a request of its model.

Tensors are handed on as they are: what a step reads are views on what the one before it wrote. All of it is callbacks
on the event loop's thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol

from server.errors import ConvoyError, ExecutionFailed
from server.messages import InferenceRequest, InferenceResponse, RequestedOutput, TensorSpec
from server.models.admission import Plan
from server.models.config_types import EnsembleStep
from server.models.ensemble import Flow
from server.models.served import Served
from server.models.work import Answer, Pending, Reply
from server.records import Record
from server.tensors import Array, Buffer, Stored

log = logging.getLogger(__name__)


class Tensor(NamedTuple):
    """A tensor of the ensemble that some step, or the answer, has yet to read."""

    datatype: str
    shape: tuple[int, ...]
    data: Buffer | Array | Stored | None


class Nested(Protocol):
    """A model that is an ensemble itself."""

    def submit_on(self, members: Members, request: InferenceRequest, reply: Reply) -> Pending | None:
        """As `Served.submit`, on these of the models that it has had."""
        ...

    def hold_on(self, members: Members) -> Callable[[], None]:
        """As `Served.hold`, with these of the models that it has had."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class Members:
    """The models of the steps, as they were found."""

    by_step: tuple[Served, ...]
    ranks: tuple[tuple[int, ...], ...]
    """For every input of every step, in the order of its map: the dimensions that the model wants; 0: any number."""
    labels: Mapping[str, tuple[str, ...]]
    """For every tensor that a step writes: the class names that its model has for it."""
    inside: Mapping[Served, tuple[Nested, Members]] = field(default_factory=dict)
    """Of the models that are ensembles themselves: their own models. A request keeps these, too."""

    def hold(self) -> list[Callable[[], None]]:
        """See `Served.hold`."""
        return [self._hold(member) for member in dict.fromkeys(self.by_step)]

    def submit(self, index: int, request: InferenceRequest, reply: Reply) -> Pending | None:
        """Submit a request to the model of a step."""
        member = self.by_step[index]
        if member in self.inside:
            nested, models = self.inside[member]
            return nested.submit_on(models, request, reply)
        return member.submit(request, reply)

    def _hold(self, member: Served) -> Callable[[], None]:
        if member in self.inside:
            nested, models = self.inside[member]
            return nested.hold_on(models)
        return member.hold()


@dataclass(frozen=True, eq=False, slots=True)
class RunPlan:
    """How requests of one shape that want the same outputs are treated."""

    admitted: Plan
    flow: Flow
    requested: Mapping[int, tuple[RequestedOutput, ...]]
    """For every step: what is asked of its model."""


class Owner(Protocol):
    """The version of the ensemble that admitted the request."""

    steps: tuple[EnsembleStep, ...]

    def may_begin(self, run: EnsembleRun, index: int) -> bool:
        """Take a place at a step. Where there is none, `run.begin(index)` is called once there is."""
        ...

    def is_in_line(self, run: EnsembleRun) -> bool:
        """Whether it waits for a place at some step."""
        ...

    def left(self, index: int) -> None:
        """A request gives its place at a step back."""
        ...

    def step_answered(self) -> None:
        """A model has computed the answer to a step, and counted it as its success."""
        ...

    def finish(self, run: EnsembleRun) -> None:
        """All steps are done: `run.end` with the answer."""
        ...

    def ended(self, run: EnsembleRun, answer: Answer | None) -> None:
        """Settle the request; None: its caller has gone."""
        ...


class EnsembleRun:
    """See the module. It ends exactly once: with its answer, with the first error of a step, or with `cancel`."""

    __slots__ = (
        "_due",
        "_let_by",
        "_owner",
        "_places",
        "_release",
        "_submitting",
        "_tensors",
        "_unread",
        "_waits",
        "_working",
        "arrived",
        "begun_ns",
        "is_over",
        "members",
        "plan",
        "records",
        "reply",
        "request",
    )

    def __init__(
        self, owner: Owner, members: Members, plan: RunPlan, request: InferenceRequest, reply: Reply, arrived: float
    ) -> None:
        self._owner = owner
        self.members = members
        self.plan = plan
        self.request = request
        self.reply = reply
        self.arrived = arrived
        self.begun_ns = 0
        """When the first step began; 0 while none has."""
        self.is_over = False
        self.records: dict[int, Record] = {}
        """Of the steps that have begun."""
        self._release = members.hold()
        self._working: dict[int, Pending] = {}
        self._due: list[int] = []
        """Steps that have their places, and are about to be submitted."""
        self._submitting = False
        self._waits = dict(plan.flow.waits)
        """For every step that is not done: how many others it still waits for."""
        self._tensors = {
            spec.name: Tensor(spec.datatype, spec.shape, data)
            for spec, data in zip(request.specs, request.buffers, strict=True)
        }
        request.buffers = ()  # a tensor is kept for as long as a step has yet to read it
        self._unread = dict(plan.flow.readers)
        self._places: dict[int, int] = {}
        """The steps at which the request has a place, and why it keeps it: the step itself counts for one, and so does
        each that could begin after it and has no place yet."""
        self._let_by: dict[int, int] = {}
        """For every step that waits for a place: the one at which the request keeps its place meanwhile."""

    @property
    def waiting(self) -> bool:
        """Whether it waits for a place at some step: see `deadlines.Waits`."""
        return self._owner.is_in_line(self)

    def start(self) -> None:
        """Begin with the steps that need nothing but the request."""
        for index in self.plan.flow.first:
            self._enter(index)

    def begin(self, index: int) -> None:
        """A step has all that it reads, and a place: submit it to its model."""
        self._places[index] = 1
        before = self._let_by.pop(index, None)
        if before is not None:
            self._leave(before)
        self._due.append(index)
        if self._submitting:
            return  # a model answered at once: what follows is not submitted inside it, however much there is in a row
        self._submitting = True
        while self._due and not self.is_over:
            self._submit(self._due.pop(0))
        self._submitting = False

    def cancel(self) -> None:
        """The caller has gone: no step begins any more, and those that run go on without an answer."""
        if not self.is_over:
            self.end(None)

    def take(self, tensor: str) -> Tensor:
        """Read a tensor; whoever is the last to read it takes it away."""
        self._unread[tensor] -= 1
        return self._tensors[tensor] if self._unread[tensor] else self._tensors.pop(tensor)

    def end(self, answer: Answer | None) -> None:
        """Let everything go, and settle the request; None: its caller has gone."""
        self.is_over = True
        working, self._working = self._working, {}
        for work in working.values():
            work.cancel()
        now_ns = time.monotonic_ns()
        for record in self.records.values():
            record.ended_ns = record.ended_ns or now_ns
        self._tensors = {}
        for index in self._places:
            self._owner.left(index)
        for release in self._release:
            release()
        self._owner.ended(self, answer)

    def _enter(self, index: int) -> None:
        if not self.is_over and self._owner.may_begin(self, index):
            self.begin(index)

    def _submit(self, index: int) -> None:
        now_ns = time.monotonic_ns()
        self.begun_ns = self.begun_ns or now_ns
        member = self.members.by_step[index]
        if member.lost is not None:
            self.end(member.lost)
            return
        try:
            work = self.members.submit(index, self._step_request(index, now_ns), partial(self._stepped, index))
        except Exception as error:  # noqa: BLE001 -- a bug: the caller must hear of it all the same
            self._broken(error)
            return
        if work is None:
            return
        if self.is_over:  # its caller left meanwhile: what it was told broke its connection
            work.cancel()
        else:
            self._working[index] = work

    def _leave(self, index: int) -> None:
        self._places[index] -= 1
        if not self._places[index]:
            del self._places[index]
            self._owner.left(index)

    def _step_request(self, index: int, now_ns: int) -> InferenceRequest:
        step, request = self._owner.steps[index], self.request
        specs: list[TensorSpec] = []
        buffers: list[Buffer | Array | Stored | None] = []
        for (name, tensor), rank in zip(step.inputs, self.members.ranks[index], strict=True):
            datatype, shape, data = self.take(tensor)
            specs.append(TensorSpec(name, datatype, fitted(shape, rank)))
            buffers.append(data)
        record = self.records[index] = Record("", step.model, now_ns, _unheard)
        record.request_id = request.request_id
        if request.record is not None:
            record.trace_id = request.record.trace_id
        return replace(
            request,
            model_name=step.model,
            model_version="" if step.version is None else str(step.version),
            specs=tuple(specs),
            buffers=tuple(buffers),
            outputs=self.plan.requested[index],
            record=record,
        )

    def _stepped(self, index: int, answer: Answer) -> None:
        """A step's model has answered."""
        if not isinstance(answer, ConvoyError):
            self._owner.step_answered()
        if self.is_over:
            return
        self._working.pop(index, None)
        record = self.records[index]
        record.ended_ns = time.monotonic_ns()
        if isinstance(answer, ConvoyError):
            record.error = answer
            self.end(answer)
            return
        try:
            self._go_on(index, answer)
        except Exception as error:  # noqa: BLE001 -- a bug, or an answer that is not what was asked for
            self._broken(error)

    def _go_on(self, index: int, answer: InferenceResponse) -> None:
        """Hand on what a step has written, and begin what can begin now."""
        for (_, tensor), output in zip(self.plan.flow.results[index], answer.outputs, strict=True):
            self._tensors[tensor] = Tensor(output.datatype.name, output.shape, output.data)
        del self._waits[index]
        ready = [follower for follower in self.plan.flow.followers[index] if self._is_ready(follower)]
        self._places[index] += len(ready)
        for follower in ready:
            self._let_by[follower] = index
            self._enter(follower)
        self._conclude(index)

    def _conclude(self, index: int) -> None:
        """A step is done, and what could begin after it has begun, or waits."""
        if self.is_over:
            return  # what began after it was refused at once
        self._leave(index)
        if not self._waits:
            self._owner.finish(self)

    def _broken(self, error: Exception) -> None:
        log.exception("a step of a request raised", exc_info=error, extra=self.request.log_fields())
        if not self.is_over:
            self.end(ExecutionFailed(f"a step failed: {type(error).__name__}"))

    def _is_ready(self, follower: int) -> bool:
        """Whether a step waits for nothing more, now that one of those before it is done."""
        self._waits[follower] -= 1
        return not self._waits[follower]


def fitted(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """The shape in so many dimensions: a single row gets a batch axis, or loses it. A rank of 0 takes any."""
    if rank and len(shape) == rank + 1 and shape[0] == 1:
        return shape[1:]
    return (1, *shape) if len(shape) == rank - 1 else shape


def _unheard(_: Record, __: ConvoyError | None) -> None:
    """Whoever watches the request hears of its steps with it."""
