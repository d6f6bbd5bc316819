"""One admitted request, from admission to answer; and one that is too large for a batch, which travels in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from typing import Protocol

import numpy as np

from server.errors import ConvoyError, ExecutionFailed
from server.messages import InferenceRequest, InferenceResponse, OutputTensor
from server.models.admission import Plan
from server.scheduling.assembly import InputData
from server.scheduling.queue import Ticket

Answer = InferenceResponse | ConvoyError

Reply = Callable[[Answer], object]
"""Takes the one answer to a request, on the event loop's thread."""


class Pending(Protocol):
    """A request that was admitted."""

    def cancel(self) -> None:
        """The caller has gone: nobody hears of the answer. Harmless when too late."""
        ...


class Owner(Protocol):
    """Who admitted a request: its loaded version."""

    def cancel(self, work: Work) -> None:
        """See `Work.cancel`."""
        ...


class Work(Ticket):
    """One admitted request, or a part of one."""

    __slots__ = ("_version", "due", "inputs", "plan", "reply", "request", "whole")

    def __init__(
        self,
        version: Owner,
        request: InferenceRequest,
        plan: Plan,
        inputs: list[InputData],
        reply: Reply | None,
        arrived: float,
        deadline: float,
        level: int = 1,
        delay_at: float = inf,
        size: int = 0,
        due: float = inf,
    ) -> None:
        Ticket.__init__(
            self, plan.rows, plan.layout, arrived, deadline, level, delay_at, size
        )  # no `super`: it is a call
        self.request = request
        self.plan = plan
        self.inputs = inputs
        self.reply = reply
        """None once it is answered or its caller has gone; always None for a part."""
        self.due = due
        """When the answer is wanted, by the caller or by the model's objective; inf where nobody said."""
        self.whole: Whole | None = None
        """The request that this is a part of."""
        self._version = version

    def cancel(self) -> None:
        """The caller has gone: leave the queue, or let the batch run on without an answer. Harmless when too late."""
        self._version.cancel(self)

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still waits for what comes of it."""
        return (self.whole or self).reply is not None

    def part(self, whole: Whole, plan: Plan, inputs: list[InputData]) -> Work:
        """Some of its rows, to wait and run in its place."""
        size = self.size * plan.rows // self.rows
        level = self.place >> 1
        version, request, arrived = self._version, self.request, self.arrived
        part = Work(version, request, plan, inputs, None, arrived, self.deadline, level, self.delay_at, size)
        part.whole = whole
        return part


class Whole(Work):
    """A request of more rows than a batch may hold. It never waits itself: its parts do, and answer it together."""

    __slots__ = ("_answers", "done", "parts", "started_ns")

    done: bool
    """True once its fate is known: parts that end later change nothing."""
    started_ns: int
    """When the last of its parts so far began to run."""

    def split(self, max_rows: int) -> list[Work]:
        """Cut it, for the first and only time, into parts of so many rows and a smaller rest."""
        self.done, self.started_ns = False, 0
        self._answers: dict[Work, InferenceResponse] = {}
        self.parts = [self.part(self, *cut) for cut in _cuts(self.plan, self.inputs, max_rows)]
        return self.parts

    def collect(self, part: Work, answer: Answer, started_ns: int) -> Answer | None:
        """A part has ended: return the whole's answer where it is known now."""
        self.started_ns = max(self.started_ns, started_ns)
        if isinstance(answer, ConvoyError):
            self.done = True
            return answer
        self._answers[part] = answer
        if len(self._answers) < len(self.parts):
            return None
        self.done = True
        answers, self._answers = [self._answers[part] for part in self.parts], {}
        try:
            return _join(answers)
        except ValueError as error:
            return ExecutionFailed(f"the parts of a request for model '{answer.model_name}' do not join: {error}")


def _cuts(plan: Plan, inputs: list[InputData], max_rows: int) -> Iterator[tuple[Plan, list[InputData]]]:
    plans: dict[int, Plan] = {}
    for start in range(0, plan.rows, max_rows):
        rows = min(max_rows, plan.rows - start)
        if rows not in plans:
            plans[rows] = replace(
                plan,
                rows=rows,
                byte_sizes=tuple(size // plan.rows * rows for size in plan.byte_sizes),
                elements=tuple(count // plan.rows * rows for count in plan.elements),
            )
        yield plans[rows], [_slice(data, start, rows, plan.rows) for data in inputs]


def _slice(data: InputData, start: int, rows: int, of_rows: int) -> InputData:
    if not isinstance(data, (np.ndarray, memoryview, bytes)):
        return data.part(start, rows)
    flat = data.reshape(-1) if isinstance(data, np.ndarray) else memoryview(data)
    row = len(flat) // of_rows
    return flat[start * row : (start + rows) * row]


def _join(answers: list[InferenceResponse]) -> InferenceResponse:
    """One answer of the rows of all, in order. Raises `ValueError` where their shapes differ."""
    outputs: list[OutputTensor] = []
    for tensors in zip(*(answer.outputs for answer in answers), strict=True):
        data = np.concatenate([tensor.data for tensor in tensors])
        outputs.append(OutputTensor(tensors[0].name, tensors[0].datatype, data.shape, data))
    first = answers[0]
    return InferenceResponse(first.model_name, first.model_version, first.request_id, outputs)
