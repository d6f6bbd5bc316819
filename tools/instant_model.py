"""A model that computes nothing, and the RPCs of a server with it: what is measured then is the server alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import numpy as np

from server import tensors
from server.backends.base import GraphTensor
from server.engine import Engine
from server.frontends.inference_service import InferenceService
from server.frontends.statuses import AS_TRITON
from server.frontends.watch import Watch
from server.memory_budget import MemoryBudget
from server.models import config
from server.models.lifecycle import State
from server.models.model import LoadedVersion
from server.models.registry import Registry
from server.scheduling.clock import clock_for
from server.tensors import Array
from server.trace_config import TraceConfig
from server.tracing.sampling import TraceSettings

MODEL = "m"


class InstantSession:
    """A model of one FP32 input and one output that computes nothing."""

    fixed_shapes = False

    def __init__(
        self, input_name: str, input_row: tuple[int, ...], output_name: str, output_row: tuple[int, ...]
    ) -> None:
        self.inputs = (GraphTensor(input_name, tensors.FP32, (-1, *input_row)),)
        self.outputs = (GraphTensor(output_name, tensors.FP32, (-1, *output_row)),)
        self._input_name = input_name
        self._output_row = output_row

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        return [np.zeros((len(inputs[self._input_name]), *self._output_row), np.float32)]

    def for_instance(self) -> InstantSession:
        return self

    def interruptible(self) -> InstantSession:
        return self

    def interrupt(self) -> None: ...

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        return np.empty(shape, dtype)


def instant_version(session: InstantSession, max_batch_size: int, number: int = 1, **named: Any) -> LoadedVersion:
    """A version of MODEL with dynamic batching, whose batches run on the event loop's thread once they have been
    measured. `named` is for `LoadedVersion`."""
    text = f'name: "{MODEL}" max_batch_size: {max_batch_size} dynamic_batching {{ }}'
    model = config.complete(
        config.parse(text, "config.pbtxt"),
        folder_name=MODEL,
        source="config.pbtxt",
        inputs=session.inputs,
        outputs=session.outputs,
        labels=lambda filename: (),
        initial_state=lambda filename, limit: b"",
    )
    clock = clock_for(asyncio.get_running_loop())
    return LoadedVersion(model, number, [session], clock, tiny_batch_seconds=inf, **named)


def service_of(loaded: LoadedVersion, memory: MemoryBudget | None = None) -> InferenceService:
    """The RPCs of a server with this version, READY."""
    registry = Registry()
    registry.set_state(MODEL, loaded.version, State.LOADING)
    registry.set_ready(MODEL, loaded)
    watch = Watch(TraceSettings(TraceConfig()), None, AS_TRITON.statuses, joins_traces=False)
    return InferenceService(Engine(registry), registry, server_id="", strict_readiness=True, watch=watch, memory=memory)
