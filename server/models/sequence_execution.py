"""Batches of sequences: where a request stands, what the model is told about it, and the states that it goes on with.

Beside `execution`, which runs batches of models that keep nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from weakref import ref

import numpy as np

from server.backends.base import Session
from server.errors import InvalidRequest
from server.messages import SequenceFlags
from server.models.config import ModelConfig
from server.models.config_types import ControlConfig, ControlKind, SequenceBatching
from server.models.execution import BatchResult, Executor, Run, refuse_nan
from server.models.sequence_state import StateMemory
from server.models.work import Work
from server.scheduling import buckets
from server.scheduling.assembly import scatter
from server.scheduling.budget import ByteBudget
from server.scheduling.sequence_policy import SequencePolicy
from server.scheduling.sequences import SequenceQueue, Step
from server.statistics import BatchTimes
from server.tensors import BYTES, INT32, INT64, UINT32, UINT64, Array, DataType

_UINT64_MASK = 2**64 - 1
_RANGES = {
    INT32: range(-(2**31), 2**31),
    UINT32: range(2**32),
    INT64: range(-(2**63), 2**63),
    UINT64: range(2**64),
}


def make_executor(config: ModelConfig, version: int, session: Session, sizes: Sequence[int] = ()) -> Executor:
    """What runs the batches of one lane. See `Executor`."""
    if config.sequence is not None:
        return SequenceExecutor(config, config.sequence, version, session, sizes)
    return Executor(config, version, session, sizes)


class SequenceExecutor(Executor):
    """Runs the batches of one instance, whose sequences' states it has.

    With fixed slots, a request's row is its slot, and the rows between are given a request that is there with READY
    false: zeros could be what makes a run fail. What comes of them is nobody's.
    """

    runs_for_nobody = True  # it did run, but for others of its batch, and the next request goes on from there

    def __init__(
        self, config: ModelConfig, sequence: SequenceBatching, version: int, session: Session, sizes: Sequence[int] = ()
    ) -> None:
        super().__init__(config, version, session, sizes)
        self._sequence = sequence
        self._batched = config.max_batch_size > 0
        self._state_outputs = tuple(state.output.name for state in sequence.states)
        self.memory = StateMemory(sequence, config.max_batch_size)

    def execute(self, batch: Sequence[Work]) -> BatchResult:
        """See `Executor.execute`. A sequence whose run fails is left as it was."""
        start = time.monotonic_ns()
        plan = batch[0].plan
        alike = len({work.plan for work in batch}) == 1
        slots, rows = self._places(batch)
        size = len(slots)
        for work in batch:
            if work.step.starts:
                self.memory.begin(work.step.slot)
        names = tuple(dict.fromkeys(name for work in batch for name in work.plan.names))
        asked = tuple(dict.fromkeys((*names, *self._state_outputs)))
        present = dict(zip(rows, batch, strict=True))
        given = [present.get(row, batch[-1]) for row in range(size)]
        feeds = dict(self._staging.gather(plan.layout, [1] * size, [work.inputs for work in given]))
        feeds.update(self.memory.inputs(slots))
        for control in self._sequence.controls:
            feeds[control.tensor.name] = self._signal(control, present, size)
        input_end = time.monotonic_ns()
        outputs = dict(zip(asked, self._session.run(feeds, asked), strict=True))
        infer_end = time.monotonic_ns()
        parts = [tuple(outputs[name] for name in names)]
        if self._batched:
            every = scatter(names, parts[0], [1] * size)
            parts = [every[row] for row in rows]
        if self._fail_on_nan:
            for part in parts:
                refuse_nan(self._config, self._version, names, part)
        answers = self._answers(batch, alike, names, parts)
        states = [outputs[name] for name in self._state_outputs]
        kept = sorted(present)
        self.memory.keep([present[row].step.slot for row in kept], kept, size, states)
        times = BatchTimes(start, input_end, infer_end, time.monotonic_ns())
        return BatchResult(answers, [Run(times, len(batch), batch, size)], start)

    def rescue(self, batch: Sequence[Work], error: Exception) -> BatchResult:
        """See `Executor.rescue`."""
        result = super().rescue(batch, error)
        # Smaller batches are no smaller where rows between are filled.
        return replace(result, exhausted_rows=0) if self._sequence.fixed_slots else result

    def alike(self, work: Work, requests: int) -> Sequence[Work]:
        """See `Executor.alike`: each is the first of a sequence of its own, as far as there are slots."""
        return [_first_in(i % self._sequence.slots, work) for i in range(requests)]

    def _places(self, batch: Sequence[Work]) -> tuple[list[int], list[int]]:
        """The slot of every row of the run, and the row of every request."""
        own = [work.step.slot for work in batch]
        if not self._batched:
            return own, [0]
        if self._sequence.fixed_slots:
            slots, rows = list(range(_highest_row(batch))), own
        else:
            slots, rows = own, list(range(len(batch)))
        size = buckets.padded(len(slots), self._sizes)
        if self._sequence.fixed_slots:
            return list(range(size)), rows  # a bucket is no larger than a batch may be
        return slots + slots[-1:] * (size - len(slots)), rows

    def _signal(self, control: ControlConfig, present: dict[int, Work], size: int) -> Array:
        """What a control input says of each row."""
        tensor = control.tensor
        if control.kind is ControlKind.CORRID:
            nobody: float | str = "" if tensor.datatype is BYTES else 0
            values = [present[row].step.correlation_id if row in present else nobody for row in range(size)]
        else:
            values = [control.false_true[row in present and _says(control.kind, present[row])] for row in range(size)]
        array: Array = np.array(values, tensor.datatype.dtype)
        return array.reshape(size, 1) if self._batched else array


def _says(kind: ControlKind, work: Work) -> bool:
    match kind:
        case ControlKind.START:
            return work.step.starts
        case ControlKind.END:
            return work.step.ends
        case _:
            return True


def _first_in(slot: int, work: Work) -> Work:
    """A request like this one that is a whole sequence, in this slot."""
    like = copy(work)
    like.step = Step(slot, starts=True, ends=True)
    like.step.slot = slot
    return like


def sequence_queue(
    config: ModelConfig,
    policy: SequencePolicy,
    executors: Sequence[Executor],
    budget: ByteBudget | None,
    reclaimed: Callable[[], None],
) -> SequenceQueue[Work]:
    """An empty queue of sequences in front of these executors, each of one instance. See `SequenceQueue`."""
    # Weak: what is loaded before the server serves is never collected, and an unloaded version's states must go.
    memories = [ref(executor.memory) for executor in executors if isinstance(executor, SequenceExecutor)]

    def forget(instance: int, slot: int) -> None:
        memory = memories[instance]()
        if memory is not None:
            memory.forget(slot)

    return SequenceQueue(policy, len(executors), partial(read_step, config), budget, forget, reclaimed)


def instance_of(batch: Sequence[Work]) -> int:
    """The instance that has the sequences of a batch."""
    return batch[0].step.instance


def run_rows(config: ModelConfig) -> Callable[[Sequence[Work]], int] | None:
    """How many rows a run of a batch will have; None where that is as many as its requests have."""
    return _highest_row if config.sequence is not None and config.sequence.fixed_slots else None


def _highest_row(batch: Sequence[Work]) -> int:
    return max([work.step.slot for work in batch]) + 1


def read_step(config: ModelConfig, work: Work) -> Step:
    """Where a request stands in which sequence. Raises `InvalidRequest` in Triton's words."""
    flags, label = work.request.sequence, work.request.label()
    if flags is None or not flags.id:
        raise InvalidRequest(
            f"{label}inference request to model '{config.name}' must specify a non-zero or non-empty correlation ID"
        )
    if work.rows != 1:
        raise InvalidRequest(
            f"{label}inference request to model '{config.name}' must specify batch-size 1 due to requirements of "
            "sequence batcher"
        )
    sequence = config.sequence
    assert sequence is not None
    key = _sequence_key(flags.id)
    for control in sequence.controls:
        if control.kind is ControlKind.CORRID:
            return Step(key, flags.start, flags.end, _correlation_id(config, control.tensor.datatype, key, label))
    return Step(key, flags.start, flags.end)


def goes_on(queue: SequenceQueue[Work], flags: SequenceFlags) -> bool:
    """Whether a request is of a sequence that goes on in this queue. A START ends the one of its id, which is over."""
    key = _sequence_key(flags.id)
    if flags.start:
        queue.end(key)
        return False
    return queue.has(key)


def _sequence_key(sequence_id: int | str) -> int | str:
    """What tells a sequence from others: a number is one id with a sign on the wire and without."""
    return sequence_id if isinstance(sequence_id, str) else sequence_id & _UINT64_MASK


def _correlation_id(config: ModelConfig, datatype: DataType, key: int | str, label: str) -> int | str:
    """The id as the model's input has it: as text, or as an integer that fits. Raises `InvalidRequest`."""
    if datatype is BYTES:
        return str(key)
    if isinstance(key, str):
        raise InvalidRequest(
            f"{label}inference request to model '{config.name}' has a correlation ID that is text, and the model takes "
            f"{datatype.name}"
        )
    number = key - 2**64 if datatype in (INT32, INT64) and key >= 2**63 else key
    if number not in _RANGES[datatype]:
        raise InvalidRequest(
            f"{label}inference request to model '{config.name}' has correlation ID {number}, which is no "
            f"{datatype.name}"
        )
    return number
