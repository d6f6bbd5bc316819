"""Requests → one batch of arrays → requests. One copy in, none out.

A `Staging` belongs to one lane and is reused from batch to batch, so nothing may keep a reference to what `gather`
returns beyond the run. What `scatter` returns are views on the run's own outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any, Protocol

import numpy as np

from server.errors import ExecutionFailed
from server.tensors import BYTES, Array, Buffer, DataType

LARGE_PART_BYTES = 64 << 10
"""From here on numpy copies, which lets the event loop run meanwhile; for less a memoryview is quicker to begin."""

KEPT_LAYOUTS = 4
"""Signatures whose staging memory one lane keeps; a model with free dimensions may see any number of them."""


class Rows(Protocol):
    """Data that is not in the model's form yet, and takes it where it is staged."""

    def write_into(self, rows: Array) -> None:
        """Fill `rows`, shaped (as many as these are, *row_shape)."""
        ...

    def part(self, start: int, count: int) -> Rows:
        """Some of them."""
        ...


InputData = Buffer | Array | Rows
"""A request's data for one input."""


@dataclass(frozen=True, slots=True)
class InputLayout:
    """How one input lies in a batch."""

    name: str
    datatype: DataType
    row_shape: tuple[int, ...]
    """The model's shape without the batch axis; the whole shape where the model has no batch axis."""
    row_bytes: int
    """Bytes per row; 0 for BYTES."""


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class BatchLayout:
    """What may share a batch: names, datatypes and trailing shapes. One object per signature, compared by identity."""

    inputs: tuple[InputLayout, ...]
    batched: bool
    """Whether arrays have a leading batch axis."""


class Staging:
    """One lane's reusable input memory, made by `empty`."""

    def __init__(self, empty: Callable[[tuple[int, ...], np.dtype[Any]], Array] = np.empty) -> None:
        self._empty = empty
        self._arrays: dict[BatchLayout, dict[str, Array]] = {}

    def gather(
        self, layout: BatchLayout, rows: Sequence[int], inputs: Sequence[Sequence[InputData]], size: int = 0
    ) -> Mapping[str, Array]:
        """Arrays of `sum(rows)` rows, filled request by request; or of `size` rows, the last one repeated.

        `inputs[r][i]` is request r's data for `layout.inputs[i]`: `rows[r] * row_bytes` bytes, an object array for
        BYTES, or `Rows`. A request alone in its batch is not copied where its bytes lie as the processor wants them.
        """
        total = sum(rows)
        size = size or total
        if len(inputs) == 1 and size == total:
            return {
                tensor.name: self._alone(layout, tensor, rows[0], inputs[0][i])
                for i, tensor in enumerate(layout.inputs)
            }
        staged = self._staged(layout, size)
        for i, tensor in enumerate(layout.inputs):
            array = staged[tensor.name]
            _fill(array, tensor, rows, [request[i] for request in inputs])
            if size > total:
                # Not zeros: a row that the model must answer anyway cannot be what makes it fail (an integer divided
                # by zero ends the process), nor move what it computes over the whole batch, such as a largest value.
                array[total:size] = array[total - 1]
        return {name: array[:size] for name, array in staged.items()}

    def _alone(self, layout: BatchLayout, tensor: InputLayout, rows: int, data: InputData) -> Array:
        shape = (rows, *tensor.row_shape) if layout.batched else tensor.row_shape
        if isinstance(data, np.ndarray):
            return data.reshape(shape)
        if not isinstance(data, (memoryview, bytes)):
            staged = self._staged(layout, rows)[tensor.name][:rows]
            data.write_into(staged)
            return staged.reshape(shape)
        array: Array = np.frombuffer(data, dtype=tensor.datatype.dtype).reshape(shape)
        return array if array.flags.aligned else array.copy()

    def _staged(self, layout: BatchLayout, rows: int) -> dict[str, Array]:
        arrays = self._arrays.pop(layout, None)
        if arrays is None or any(len(array) < rows for array in arrays.values()):
            capacity = 1 << (rows - 1).bit_length()
            arrays = {t.name: self._empty((capacity, *t.row_shape), t.datatype.dtype) for t in layout.inputs}
        self._arrays[layout] = arrays  # last in is last to go
        while len(self._arrays) > KEPT_LAYOUTS:
            del self._arrays[next(iter(self._arrays))]
        return arrays


def scatter(
    names: Sequence[str], outputs: Sequence[Array], rows: Sequence[int], size: int = 0
) -> list[tuple[Array, ...]]:
    """Split a batch's outputs by request, as views. `size` rows went in, the first `sum(rows)` of them somebody's.

    Raises `ExecutionFailed` where rows out differ from rows in.
    """
    size = size or sum(rows)
    for name, array in zip(names, outputs, strict=True):
        if array.ndim == 0 or len(array) != size:
            raise ExecutionFailed(
                f"the model returned shape {list(array.shape)} for output '{name}' of a batch of {size} rows"
            )
    if len(rows) == 1:
        return [tuple([array[: rows[0]] for array in outputs])]
    ends = list(accumulate(rows))
    views = [[array[end - count : end] for end, count in zip(ends, rows, strict=True)] for array in outputs]
    return list(zip(*views, strict=True)) if views else [()] * len(rows)


def _fill(array: Array, tensor: InputLayout, rows: Sequence[int], parts: Sequence[InputData]) -> None:
    start = 0
    if tensor.datatype is BYTES:
        for count, part in zip(rows, parts, strict=True):
            assert isinstance(part, np.ndarray)
            array[start : start + count] = part.reshape(count, *tensor.row_shape)
            start += count
        return
    if prod(array.shape) == 0:
        return
    staging = array.data.cast("B")
    flat = np.frombuffer(staging, np.uint8)
    for count, part in zip(rows, parts, strict=True):
        if isinstance(part, (memoryview, bytes)):
            view = part
        elif isinstance(part, np.ndarray):
            view = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
        else:
            first = start // tensor.row_bytes
            part.write_into(array[first : first + count])
            start += count * tensor.row_bytes
            continue
        size = len(view)
        end = start + size
        if size < LARGE_PART_BYTES:
            staging[start:end] = view
        else:
            flat[start:end] = np.frombuffer(view, np.uint8)
        start = end
