"""The classification extension: the top classes of an output as "value:index[:label]" strings. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.tensors import Array


def classify(scores: Array, top: int, labels: Sequence[str], *, batched: bool) -> Array:
    """The `top` highest scores, best first, of each row of `scores`.

    `scores` is (rows, …) where `batched`, else one row of any shape; the rest of each row is flattened. Returns an
    object array of bytes, (rows, n) or (n,), where n = min(top, classes). Values are written as C++'s
    `std::to_string` writes them: six decimals for floating point. Equal scores keep the order of their classes.
    """
    rows = scores.reshape(len(scores) if batched else 1, -1)
    count = min(top, rows.shape[1])
    result = np.empty((len(rows), count), dtype=object)
    for row, values in enumerate(rows):
        result[row] = [_entry(values[i], int(i), labels) for i in _best_first(values)[:count]]
    return result if batched else result[0]


def _best_first(values: Array) -> NDArray[np.intp]:
    """Indices by falling value, NaN last, equal values in order."""
    if values.dtype.kind == "f":
        return np.argsort(-values.astype(np.float64), kind="stable")
    return len(values) - 1 - np.argsort(values[::-1], kind="stable")[::-1]  # negation would overflow


def _entry(value: np.generic, index: int, labels: Sequence[str]) -> bytes:
    text = f"{value:.6f}" if isinstance(value, np.floating) else f"{value}"
    label = f":{labels[index]}" if index < len(labels) and labels[index] else ""
    return f"{text}:{index}{label}".encode()
