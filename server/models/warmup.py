"""A version before it is READY: its warm-up samples run, and every batch size that is planned with is measured.

Runs take the same way as later the batches of a lane, from staging to answers, so that what is measured is what the
server will see. Nothing of it is counted as inference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import inf, prod
from statistics import median

import numpy as np

from server.backends.base import Session
from server.errors import ConfigInvalid, ConvoyError, LoadFailed, TooLarge
from server.messages import InferenceRequest, TensorSpec
from server.models import admission
from server.models.config import ModelConfig
from server.models.config_types import Fill, TensorConfig, WarmupInput, WarmupSample
from server.models.execution import Executor, as_failure, empty_costs
from server.models.samples import random_bytes, zero_bytes
from server.models.sequence_execution import make_executor
from server.models.work import Work
from server.scheduling.costs import CostTable
from server.tensors import BYTES, DataType, byte_size, decode_bytes_elements

log = logging.getLogger(__name__)

ReadFile = Callable[[str, int], bytes]
"""Reads a file of the model's folder `warmup`, of at most so many bytes. Raises `LoadFailed`."""

FEW_RUNS = 3
MANY_RUNS = 10
FEW_RUNS_SECONDS = 5.0
MANY_RUNS_SECONDS = 1.0
MAX_SECONDS = 30.0
"""Each bucket is measured `FEW_RUNS` times, as long as all runs together take no more than `FEW_RUNS_SECONDS`; and up
to `MANY_RUNS` times within `MANY_RUNS_SECONDS`. Where every bucket cannot run even once within `MAX_SECONDS`, the table
stays empty."""

STALL = 2.0
"""On one and the same input a run that takes longer than this many medians was held up by something else."""

MAX_BATCH_BYTES = 1 << 30
"""Of the inputs of a batch that is made up here. A configuration may name any sizes; callers do not send so much."""

_TEXT_BYTES = 64
"""Of a BYTES element in memory, at least."""


def warm_up(
    config: ModelConfig,
    version: int,
    session: Session,
    source: str,
    read_file: ReadFile,
    may_go_on: Callable[[], None] = lambda: None,
) -> CostTable:
    """Run the configured samples, then measure every bucket; the table is empty where that cannot be done.

    `source` names config.pbtxt in errors. Raises `LoadFailed` for a sample that is wrong or fails, and for its files.
    `may_go_on` is asked before every run; the `LoadFailed` that it raises ends the warm-up.
    """
    costs = empty_costs(config, session)
    executor = make_executor(config, version, session, costs.fill_sizes)
    samples = [_sample_work(config, i, sample, source, read_file) for i, sample in enumerate(config.warmup)]
    for sample, work in zip(config.warmup, samples, strict=True):
        for _ in range(sample.count):
            may_go_on()
            try:
                run_alike(executor, work, sample.batch_size)
            except Exception as error:
                reason = as_failure(config, version, error)
                raise LoadFailed(f"failed to run warmup sample '{sample.name}': {reason}") from error
    label = f"model '{config.name}' version {version}"

    def run(rows: int, turn: int) -> float:
        may_go_on()
        return run_alike(executor, inputs[turn % len(inputs)], rows)

    if not samples and has_free_dimensions(config):
        log.info("%s has inputs of free dimensions: what batches cost is found out as they run", label)
        return costs
    try:
        inputs = samples or [zeros(config)]
        shapes: list[Sequence[WarmupInput | TensorConfig]] = [each.inputs for each in config.warmup] or [config.inputs]
        _check_bytes(max(map(_row_bytes, shapes)), costs.sizes[-1])
        spent = measure(costs, run)
    except LoadFailed:
        raise
    except Exception as error:  # noqa: BLE001 -- made-up inputs need not suit the model; real ones may
        may_go_on()
        log.warning("%s could not be measured before it serves: %s", label, as_failure(config, version, error))
        return costs
    if not costs.calibrated:
        log.warning("%s was not measured before it serves: that would take more than %.0f s", label, MAX_SECONDS)
    else:
        log.debug("%s was measured in %.3f s", label, spent)
    return costs


def measure(costs: CostTable, run: Callable[[int, int], float]) -> float:
    """Fill the table with what `run(rows, turn)` says that it took; return the seconds of all runs together.

    A bucket's first run is its warm-up, and only counts where there is no time for another.
    """
    sizes = costs.sizes
    spent = 0.0
    first: dict[int, float] = {}
    for size in sizes:
        if first and spent + 2 * first[max(first)] > MAX_SECONDS:
            return spent
        first[size] = run(size, 0)
        spent += first[size]
    runs: dict[int, list[float]] = {size: [] for size in sizes}
    for turn in range(1, MANY_RUNS + 1):
        allowed = FEW_RUNS_SECONDS if turn <= FEW_RUNS else MANY_RUNS_SECONDS
        for size in sizes:
            if spent + first[size] <= allowed:
                seconds = run(size, turn)
                runs[size].append(seconds)
                spent += seconds
    for size in sizes:
        measured = runs[size] or [first[size]]
        limit = STALL * median(measured)
        for seconds in measured:
            if seconds <= limit:
                costs.profile(size, seconds)
    return spent


class _Nobody:
    """Owns work that nobody waits for."""

    def cancel(self, work: Work) -> None:
        """There is nobody who would."""


def run_alike(executor: Executor, work: Work, requests: int) -> float:
    """Seconds that a batch of so many such requests takes. Raises what the run raises, and answers that are errors."""
    result = executor.execute(executor.alike(work, requests))
    for answer in result.answers:
        if isinstance(answer, ConvoyError):
            raise answer
    times = result.runs[0].times
    return (times.output_end - times.start) / 1e9


def _sample_work(config: ModelConfig, index: int, sample: WarmupSample, source: str, read_file: ReadFile) -> Work:
    """One request of a sample. Raises `LoadFailed`."""
    field = f"{source}: field 'model_warmup[{index}]"
    random = np.random.default_rng(index)
    try:
        _check_bytes(_row_bytes(sample.inputs), sample.batch_size)
    except TooLarge as error:
        raise ConfigInvalid(f"{field}': {error}") from error
    tensors: list[tuple[TensorSpec, bytes]] = []
    for tensor in sample.inputs:
        try:
            data = _from_file(tensor, read_file) if tensor.fill is Fill.FILE else _made_up(tensor, random)
        except (LoadFailed, ValueError) as error:
            raise ConfigInvalid(f"{field}.inputs['{tensor.name}']': {error}") from error
        tensors.append((_spec(config, tensor.name, tensor.datatype, tensor.dims), data))
    try:
        return _work(config, tensors)
    except ConvoyError as error:
        raise ConfigInvalid(f"{field}' is no request that the model takes: {error}") from error


def _row_bytes(tensors: Sequence[WarmupInput | TensorConfig]) -> int:
    """What tensors of these shapes hold of the memory, as far as that can be known without their data."""
    return sum(
        _TEXT_BYTES * prod(tensor.dims) if tensor.datatype is BYTES else byte_size(tensor.datatype, tensor.dims)
        for tensor in tensors
    )


def _check_bytes(row_bytes: int, rows: int) -> None:
    """Raises `TooLarge`, before anything is made."""
    if row_bytes * rows > MAX_BATCH_BYTES:
        raise TooLarge(f"{rows} rows of {row_bytes} bytes are more than the {MAX_BATCH_BYTES} of the largest warm-up")


def has_free_dimensions(config: ModelConfig) -> bool:
    """Whether some input's shape is left to the caller, beside the batch axis: then nobody can make one up."""
    return any(-1 in tensor.dims for tensor in config.inputs)


def zeros(config: ModelConfig) -> Work:
    """A request of one row of the model's shapes, all zero or empty text. Raises whatever it cannot be made for."""
    _check_bytes(_row_bytes(config.inputs), 1)
    return _work(
        config,
        [
            (_spec(config, tensor.name, tensor.datatype, tensor.dims), zero_bytes(tensor.datatype, tensor.dims))
            for tensor in config.inputs
        ],
    )


def _work(config: ModelConfig, tensors: Sequence[tuple[TensorSpec, bytes]]) -> Work:
    specs = tuple(spec for spec, _ in tensors)
    request = InferenceRequest(config.name, "", "warmup", specs, tuple(data for _, data in tensors))
    plan = admission.make_plan(config, specs, (), request.label())
    return Work(
        _Nobody(), request, plan, admission.inputs_in_order(config, plan, request), None, arrived=0.0, deadline=inf
    )


def _spec(config: ModelConfig, name: str, datatype: DataType, dims: tuple[int, ...]) -> TensorSpec:
    return TensorSpec(name, datatype.name, (1, *dims) if config.max_batch_size else dims)


def _from_file(tensor: WarmupInput, read_file: ReadFile) -> bytes:
    elements = prod(tensor.dims)
    size = byte_size(tensor.datatype, tensor.dims)
    data = read_file(tensor.filename, MAX_BATCH_BYTES if tensor.datatype is BYTES else size)
    if tensor.datatype is BYTES:
        try:
            decode_bytes_elements(data, elements)
        except ValueError as error:
            raise ValueError(f"file '{tensor.filename}' does not hold {elements} BYTES elements: {error}") from error
    elif len(data) != size:
        raise ValueError(
            f"file '{tensor.filename}' has {len(data)} bytes, but {tensor.datatype.name} {list(tensor.dims)} takes "
            f"{size}: one row, repeated for the whole batch"
        )
    return data


def _made_up(tensor: WarmupInput, random: np.random.Generator) -> bytes:
    if tensor.fill is Fill.ZERO:
        return zero_bytes(tensor.datatype, tensor.dims)
    return random_bytes(tensor.datatype, tensor.dims, random)
