"""What a model keeps of each sequence: one instance's states, by slot.

A run of the instance reads and writes them, and runs of an instance follow one another: so there is no lock. `forget`
alone comes from elsewhere, for slots whose sequence is over and has nothing that runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from server.errors import ExecutionFailed
from server.models.config_sequences import MAX_STATE_BYTES
from server.models.config_types import SequenceBatching, StateConfig
from server.tensors import Array


class _Rows(Protocol):
    """One state of all slots."""

    def begin(self, slot: int) -> None:
        """A sequence starts, or starts anew."""
        ...

    def gather(self, slots: Sequence[int]) -> Array:
        """The batch for these slots, to be read before the next `keep`."""
        ...

    def keep(self, slots: Sequence[int], rows: Sequence[int], output: Array) -> None:
        """`output[rows[i]]` is what slot `slots[i]` holds from now on. Rows are ascending."""
        ...

    def check(self, output: Array, rows: int) -> None:
        """Raise `ExecutionFailed` where a run of so many rows cannot have given this."""
        ...

    def forget(self, slot: int) -> None:
        """The sequence is over."""
        ...


class StateMemory:
    """All states of one instance."""

    def __init__(self, config: SequenceBatching, max_batch_size: int) -> None:
        self._config = config
        self._rows: list[_Rows] = [
            _SharedRows(state, config.slots)
            if max_batch_size > 1
            else _SingleRows(state, config.slots, batched=max_batch_size == 1)
            for state in config.states
        ]

    def begin(self, slot: int) -> None:
        """A sequence starts in this slot, or starts anew."""
        for rows in self._rows:
            rows.begin(slot)

    def forget(self, slot: int) -> None:
        """The slot's sequence is over: what can be given back is."""
        for rows in self._rows:
            rows.forget(slot)

    def inputs(self, slots: Sequence[int]) -> dict[str, Array]:
        """The model's inputs for a batch whose rows are these slots' sequences. Valid until `keep`."""
        states = zip(self._config.states, self._rows, strict=True)
        return {state.input.name: rows.gather(slots) for state, rows in states}

    def keep(self, slots: Sequence[int], rows: Sequence[int], size: int, outputs: Sequence[Array]) -> None:
        """After a run of `size` rows: take over `rows`, ascending, of each state's output for these slots.

        Raises `ExecutionFailed` for an output of another shape than it was promised; then nothing has changed.
        """
        for kept, output in zip(self._rows, outputs, strict=True):
            kept.check(output, size)
        for kept, output in zip(self._rows, outputs, strict=True):
            kept.keep(slots, rows, output)


class _SharedRows:
    """Rows of one array. A batch of the first slots, or of neighbours, is a view: no copy in, one out."""

    def __init__(self, state: StateConfig, slots: int) -> None:
        self._state = state
        # Zeros are memory that nobody has touched. Slots without a sequence are given to the model, too.
        self._rows: Array = np.zeros((slots, *state.initial.shape), state.initial.dtype)
        if state.initial.dtype == object or state.initial.any():
            self._rows[:] = state.initial

    def begin(self, slot: int) -> None:
        self._rows[slot] = self._state.initial

    def gather(self, slots: Sequence[int]) -> Array:
        first, count = slots[0], len(slots)
        neighbours = list(slots) == list(range(first, first + count))
        return self._rows[first : first + count] if neighbours else self._rows[list(slots)]

    def check(self, output: Array, rows: int) -> None:
        _check(self._state, output, (rows, *self._state.initial.shape))

    def keep(self, slots: Sequence[int], rows: Sequence[int], output: Array) -> None:
        self._rows[list(slots)] = output if len(rows) == len(output) else output[list(rows)]

    def forget(self, slot: int) -> None:
        """The memory is the slot's, and waits for its next sequence."""


class _SingleRows:
    """An array of its own for each slot, of batches of one: a run's output becomes the next one's input as it is."""

    def __init__(self, state: StateConfig, slots: int, batched: bool) -> None:
        self._state = state
        self._initial = state.initial[np.newaxis] if batched else state.initial
        self._of_slot: dict[int, Array] = {}
        self._most_bytes = MAX_STATE_BYTES // slots

    def begin(self, slot: int) -> None:
        self._of_slot[slot] = self._initial

    def gather(self, slots: Sequence[int]) -> Array:
        return self._of_slot.get(slots[0], self._initial)

    def check(self, output: Array, rows: int) -> None:
        dims = self._state.output.dims
        _check(self._state, output, (rows, *dims) if self._initial.ndim > len(dims) else dims)
        if output.nbytes > self._most_bytes:
            raise ExecutionFailed(
                f"state '{self._state.output.name}' has grown to {output.nbytes} bytes; {self._most_bytes} is the most"
            )

    def keep(self, slots: Sequence[int], rows: Sequence[int], output: Array) -> None:
        self._of_slot[slots[0]] = output

    def forget(self, slot: int) -> None:
        self._of_slot.pop(slot, None)


def _check(state: StateConfig, output: Array, expected: tuple[int, ...]) -> None:
    fits = output.ndim == len(expected) and all(
        want in (-1, got) for want, got in zip(expected, output.shape, strict=True)
    )
    if not fits:
        raise ExecutionFailed(
            f"the model returned shape {list(output.shape)} for state '{state.output.name}', not {list(expected)}"
        )
