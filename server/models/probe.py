"""An input that is known to work, to tell a session that has gone bad from requests that are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from server.backends.base import Session
from server.errors import LoadFailed
from server.models.config import ModelConfig
from server.models.execution import refuse_nan
from server.tensors import BYTES, Array

Probe = Callable[[], None]
"""Runs the session once, on the caller's thread. Raises whatever the run raises."""


def zeros(config: ModelConfig) -> Mapping[str, Array] | None:
    """Every input full of zeros, or of empty texts, a batch of one row; None where a dimension is free."""
    arrays: dict[str, Array] = {}
    for tensor in config.inputs:
        shape = (1, *tensor.model_dims) if config.max_batch_size else tensor.model_dims
        if -1 in shape:
            return None
        dtype = tensor.datatype.dtype
        arrays[tensor.name] = np.full(shape, "", dtype) if tensor.datatype is BYTES else np.zeros(shape, dtype)
    return arrays


def working_probe(config: ModelConfig, version: int, session: Session, *, must_work: bool) -> Probe | None:
    """A run of zeros that has just succeeded; None where there is none. Blocks for as long as the run takes.

    Where it `must_work`, because it did before: raises `LoadFailed` where it fails.
    """
    inputs = zeros(config)
    if inputs is None:
        return None
    names = [tensor.name for tensor in config.outputs]

    def probe() -> None:
        outputs = session.run(inputs, names)
        if config.fail_on_nan:
            refuse_nan(config, version, names, outputs)

    try:
        probe()
    except Exception as error:
        if must_work:
            raise LoadFailed(f"it can be loaded, and a run with zeros fails as before: {error}") from error
        return None
    return probe
