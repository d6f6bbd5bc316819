"""The small systems that are explored whole: each names what is in it that could go wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from server.scheduling.budget import ByteBudget
from server.scheduling.policy import LevelPolicy, WindowPolicy
from server.scheduling.queue import BatchQueue
from server.scheduling.sequence_policy import SequencePolicy
from server.scheduling.sequences import SequenceQueue, Step
from server.scheduling.slo import SloPolicy
from server.scheduling.slo_queue import SloQueue
from server.scheduling.turns import Turns
from tests.proofs.batchers import ENDED, Asked, BatcherSystem, Kind, ManualLane
from tests.proofs.exploring import Memory, Pickled, Replayed
from tests.proofs.lifecycles import LifecycleSystem
from tests.unit.costing import cost_table, linear

MAX_ROWS = 2


def window(**policy: Any) -> BatchQueue[Asked]:
    return BatchQueue(WindowPolicy(MAX_ROWS, **policy))


class BytesSystem(BatcherSystem):
    """Two queues share a budget of bytes, which is as much in use as requests wait."""

    def __init__(self, requests: int, seconds: int) -> None:
        self.budget = ByteBudget(3)
        queues = [BatchQueue[Asked](WindowPolicy(MAX_ROWS, max_delay=1), self.budget) for _ in range(2)]
        kinds = [Kind(size=2), Kind(size=2, batcher=1, patience=1), Kind(size=5)]
        super().__init__(queues, kinds, requests=requests, seconds=seconds, hurries=False)

    def check(self) -> None:
        super().check()
        assert self.budget.used == sum(asked.size for asked in self.asked.values() if asked.waiting)


def step_of(asked: Asked) -> Step:
    key, starts, ends = asked.kind.sequence
    return Step(key, starts, ends)


def instance_of(batch: Sequence[Asked]) -> int:
    return batch[0].step.instance


class SequenceSystem(BatcherSystem):
    """Sequences: each runs in its slot, in order of arrival, one request at a time."""

    def __init__(self, requests: int, seconds: int, instances: int, **policy: Any) -> None:
        queue = SequenceQueue[Asked](SequencePolicy(**{"max_idle": 1.0, **policy}), instances, step_of)
        kinds = [Kind(sequence=(key, starts, ends)) for key, starts, ends in STEPS]
        self.holders: dict[tuple[int, int], Any] = {}
        super().__init__(
            [queue], kinds, requests=requests, seconds=seconds, lanes=instances, lane_of=instance_of, hurries=False
        )

    def begun(self, lane: ManualLane, batch: Sequence[Asked]) -> None:
        for asked in batch:
            step = asked.step
            assert step.instance == lane.number, "a sequence ran on another instance than its own"
            place = step.instance, step.slot
            mine = [other for other in self.asked.values() if other.step.sequence is step.sequence]
            before = [other for other in mine if other.number < asked.number and other.fate != ENDED]
            assert not before, "requests of a sequence ran out of order, or two of them at once"
            assert step.starts or self.holders.get(place) is step.sequence, "a slot was given away without a start"
            self.holders[place] = step.sequence


STEPS = (("a", True, False), ("a", False, True), ("b", True, True), ("c", True, False))


class SloSystem(BatcherSystem):
    """An objective of 3 s, of rows that take 1 s each: some are refused, and some expire in the queue."""

    def __init__(self, requests: int, seconds: int) -> None:
        costs = cost_table(MAX_ROWS, linear(fixed=0, per_row=1))
        queue = SloQueue[Asked](SloPolicy(MAX_ROWS, (LevelPolicy(),) * 2, objective=3.0), costs, 1)
        kinds = [Kind(), Kind(rows=2, level=2), Kind(patience=2)]
        super().__init__([queue], kinds, requests=requests, seconds=seconds, hurries=False)


def batching(requests: int, seconds: int) -> BatcherSystem:
    kinds = [Kind(), Kind(patience=1), Kind(signature="y")]
    return BatcherSystem([window(max_delay=2)], kinds, requests=requests, seconds=seconds)


def lanes(requests: int, seconds: int) -> BatcherSystem:
    kinds = [Kind(rows=2), Kind(patience=1)]
    return BatcherSystem(
        [window(preferred_rows=(1,), max_delay=1)], kinds, requests=requests, seconds=seconds, lanes=2, failures=True
    )


def levels(requests: int, seconds: int) -> BatcherSystem:
    levels = (LevelPolicy(), LevelPolicy(max_queued_requests=1))
    kinds = [Kind(), Kind(level=2, delay=1, patience=2), Kind(level=2)]
    return BatcherSystem([window(levels=levels, aging=1)], kinds, requests=requests, seconds=seconds, hurries=False)


def turns(requests: int, seconds: int) -> BatcherSystem:
    kinds = [Kind(), Kind(batcher=1), Kind(batcher=1, patience=1)]
    queues = [window(max_delay=1), window()]
    return BatcherSystem(queues, kinds, requests=requests, seconds=seconds, turns=Turns(1), hurries=False)


def direct(requests: int, seconds: int) -> BatcherSystem:
    return SequenceSystem(requests, seconds, instances=1, max_rows=1, slots=1)


def oldest(requests: int, seconds: int) -> BatcherSystem:
    return SequenceSystem(requests, seconds, instances=2, max_rows=MAX_ROWS, slots=1, max_delay=1)


@dataclass(frozen=True)
class Exploration:
    """A system in two sizes, as arguments of `memory`: for every run of the suite, and for `make proofs`."""

    memory: Callable[..., Memory[Any]]
    small: tuple[int, ...]
    large: tuple[int, ...]


def copied(make: Callable[[int, int], BatcherSystem]) -> Callable[[int, int], Memory[Any]]:
    return lambda requests, seconds: Pickled(make(requests, seconds))


def lifecycle(requests: int, steps: int, failures: bool) -> Memory[Any]:
    return Replayed(partial(LifecycleSystem, requests, steps, failures))


EXPLORATIONS = {
    "a window": Exploration(copied(batching), (2, 2), (4, 2)),
    "two lanes": Exploration(copied(lanes), (2, 2), (4, 1)),
    "priority levels": Exploration(copied(levels), (3, 1), (4, 2)),
    "turns of two models": Exploration(copied(turns), (2, 2), (4, 1)),
    "a budget of bytes": Exploration(copied(BytesSystem), (3, 1), (4, 2)),
    "an objective": Exploration(copied(SloSystem), (2, 2), (3, 3)),
    "sequences, direct": Exploration(copied(direct), (3, 1), (4, 2)),
    "sequences, oldest": Exploration(copied(oldest), (2, 2), (4, 1)),
    "loads and unloads": Exploration(lifecycle, (1, 2, False), (2, 2, False)),
    "loads, and runs that fail": Exploration(lifecycle, (2, 1, True), (2, 2, True)),
}
"""Sizes are requests and seconds; of the last two, requests, steps of the control plane, and whether runs fail."""
