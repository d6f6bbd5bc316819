"""Reads what `make.py` keeps: requests, and what the framework that exported the model answered to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
SERVED, REFUSED = HERE / "served", HERE / "refused"

Array = NDArray[Any]

BFLOAT16_MODELS = ("bfloat16",)
"""Models whose tensors are BF16, which files of numpy do not know: their cases hold the same numbers as float32."""


class Case(NamedTuple):
    """Tensors by name, in the shapes that the model itself has; texts are arrays of bytes objects."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]


def models(repository: Path) -> list[str]:
    """The names of the models of `SERVED` or `REFUSED`."""
    return sorted(folder.name for folder in repository.iterdir())


def read_cases(model: str) -> list[Case]:
    """The cases of a model of `SERVED`: at least one."""
    return [_read(path, model) for path in sorted((HERE / "cases" / model).iterdir())]


def _read(path: Path, model: str) -> Case:
    with np.load(path) as archive:
        arrays = {str(name): archive[f"arr_{i}"] for i, name in enumerate(archive["names"])}
    if model in BFLOAT16_MODELS:
        arrays = {name: array.astype(ml_dtypes.bfloat16) for name, array in arrays.items()}
    arrays = {name: _encoded(array) if array.dtype.kind == "U" else array for name, array in arrays.items()}
    return Case(_part("in ", arrays), _part("out ", arrays))


def _part(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _encoded(texts: Array) -> Array:
    encoded = np.empty(texts.shape, object)
    encoded[...] = np.char.encode(texts, "utf-8")
    return encoded
