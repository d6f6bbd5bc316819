"""One batch, from its requests to their answers. Runs on a lane's thread or, where a batch is tiny, on the loop's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from server.backends.base import Session
from server.errors import Cancelled, ConvoyError, ExecutionFailed, OutOfMemory, ShuttingDown
from server.messages import InferenceResponse, OutputTensor
from server.models.admission import OutputPlan, Plan
from server.models.classification import classify
from server.models.config import ModelConfig
from server.models.work import Answer, Work
from server.records import Computation, Record
from server.scheduling import buckets
from server.scheduling.assembly import Staging, scatter
from server.scheduling.costs import CostTable, bucket_sizes
from server.statistics import BatchTimes
from server.tensors import BYTES, Array, nan_row

CALLER_GONE = Cancelled("the caller went away")
SERVER_GONE = ShuttingDown("the server went down before the answer was ready")


@dataclass(frozen=True, slots=True)
class Run:
    """One call of the model that succeeded."""

    times: BatchTimes
    rows: int
    batch: Sequence[Work]
    """Whose rows they are."""
    size: int
    """Rows that the model was given: `rows`, and those that filled up its bucket."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a lane hands back: an answer or an error for each request, in the batch's order."""

    answers: list[Answer]
    runs: list[Run]
    """One; or, where the batch failed and its requests were run one by one, those that went well."""
    start_ns: int
    """When the requests left the queue, or the first of `runs` could begin."""
    failed_runs: int = 0
    exhausted_rows: int = 0
    """The rows of the smallest run of several requests that found no memory where each of them found it later; or 0."""

    def going_down(self) -> BatchResult:
        """The same, of runs that the end of the server may have interrupted: what failed, failed for that."""
        return replace(self, answers=[SERVER_GONE if isinstance(a, ExecutionFailed) else a for a in self.answers])


class Executor:
    """Runs the batches of one lane, one after another: its staging memory is reused.

    With `sizes`, every batch is filled up to the next of them; what comes of the filling is nobody's.
    """

    runs_for_nobody = False
    """Whether a request whose caller has gone is worth running, for what the model keeps of it."""

    def __init__(self, config: ModelConfig, version: int, session: Session, sizes: Sequence[int] = ()) -> None:
        self._config = config
        self._version = version
        self._version_text = str(version)
        self._session = session
        self._sizes = tuple(sizes)
        self._staging = Staging(session.empty)
        self._fail_on_nan = config.fail_on_nan

    def execute(self, batch: Sequence[Work]) -> BatchResult:
        """Run one batch. Raises whatever the session raises, and `ExecutionFailed`, also for NaN where it counts."""
        start = time.monotonic_ns()
        plan = batch[0].plan
        layout = plan.layout
        alike = len({work.plan for work in batch}) == 1  # plans compare by identity
        rows = [work.rows for work in batch]
        total = sum(rows)
        size = buckets.padded(total, self._sizes) if layout.batched else total
        names = plan.names if alike else _union([work.plan for work in batch])
        arrays = self._staging.gather(layout, rows, [work.inputs for work in batch], size)
        input_end = time.monotonic_ns()
        outputs = self._session.run(arrays, names)
        infer_end = time.monotonic_ns()
        if self._fail_on_nan:
            refuse_nan(self._config, self._version, names, outputs)
        parts = scatter(names, outputs, rows, size) if layout.batched else [tuple(outputs)]
        answers = self._answers(batch, alike, names, parts)
        times = BatchTimes(start, input_end, infer_end, time.monotonic_ns())
        return BatchResult(answers, [Run(times, total, batch, size)], start)

    def alike(self, work: Work, requests: int) -> Sequence[Work]:
        """A batch of so many requests like this one."""
        return [work] * requests

    def rescue(self, batch: Sequence[Work], error: Exception) -> BatchResult:
        """Run the requests of a batch that failed once more, so that only the guilty ones fail.

        One by one; or, where memory was short, in halves, and in halves of those that fail in turn.
        """
        start = time.monotonic_ns()
        answers: list[Answer] = []
        runs: list[Run] = []
        failed_runs, too_large_alone = 1, False
        exhausted_rows = _exhausted_rows(batch, error)
        todo = _smaller(batch, error)  # the next one last
        while todo:
            part = todo.pop()
            if not (self.runs_for_nobody or any(work.is_wanted for work in part)):
                answers += [CALLER_GONE] * len(part)
                continue
            try:
                result = self.execute(part)
            except Exception as failure:  # noqa: BLE001 -- whatever it is, these callers must hear of it
                failed_runs += 1
                if len(part) > 1:
                    exhausted_rows = min(exhausted_rows, _exhausted_rows(part, failure))
                    todo += _smaller(part, failure)
                else:
                    too_large_alone |= isinstance(failure, OutOfMemory)
                    answers.append(as_failure(self._config, self._version, failure))
            else:
                answers += result.answers
                runs += result.runs
        # Without a smaller run that succeeded, or with a request that finds no memory alone, the size is not to blame.
        size_is_to_blame = exhausted_rows < inf and runs and not too_large_alone
        return BatchResult(answers, runs, start, failed_runs, int(exhausted_rows) if size_is_to_blame else 0)

    def _answers(
        self, batch: Sequence[Work], alike: bool, names: tuple[str, ...], parts: Sequence[Sequence[Array]]
    ) -> list[Answer]:
        """One for each request, whose part of the outputs `names` is in `parts`; `alike`: all have one plan."""
        plan = batch[0].plan
        if alike and plan.is_plain:
            return self._plain_answers(batch, plan.outputs, parts)
        return [self._answer(work, names, part) for work, part in zip(batch, parts, strict=True)]

    def _plain_answers(
        self, batch: Sequence[Work], outputs: Sequence[OutputPlan], parts: Sequence[Sequence[Array]]
    ) -> list[Answer]:
        """Answers of the model's own tensors. What most batches need, and written for their many requests."""
        name, version = self._config.name, self._version_text
        kinds = [(output.config.name, output.config.datatype) for output in outputs]
        if len(kinds) == 1:
            ((tensor, datatype),) = kinds
            return [
                InferenceResponse(
                    name, version, work.request.request_id, [OutputTensor(tensor, datatype, array.shape, array)]
                )
                for work, (array,) in zip(batch, parts, strict=True)
            ]
        return [
            InferenceResponse(
                name,
                version,
                work.request.request_id,
                [OutputTensor(*kind, array.shape, array) for kind, array in zip(kinds, part, strict=True)],
            )
            for work, part in zip(batch, parts, strict=True)
        ]

    def _answer(self, work: Work, names: tuple[str, ...], arrays: Sequence[Array]) -> Answer:
        """The answer of a request whose part of the outputs `names` this is."""
        part = dict(zip(names, arrays, strict=True))
        try:
            tensors = [self._output(output, part[output.config.name]) for output in work.plan.outputs]
        except Exception as error:  # noqa: BLE001 -- the model's outputs are not what it promised; others may be fine
            return ExecutionFailed(f"model '{self._config.name}' version {self._version} has no such answer: {error}")
        return InferenceResponse(self._config.name, self._version_text, work.request.request_id, tensors)

    def _output(self, output: OutputPlan, array: Array) -> OutputTensor:
        tensor = output.config
        if output.classification:
            array = classify(array, output.classification, tensor.labels, batched=self._config.max_batch_size > 0)
            return OutputTensor(tensor.name, BYTES, array.shape, array)
        if tensor.reshape is not None:
            batched = self._config.max_batch_size > 0
            array = array.reshape(_client_shape(tensor.dims, tensor.reshape, array.shape, batched))
        return OutputTensor(tensor.name, tensor.datatype, array.shape, array)


def refuse_nan(config: ModelConfig, version: int, names: Sequence[str], outputs: Sequence[Array]) -> None:
    """Raise `ExecutionFailed` for the first output that holds NaN. Rows count from 0."""
    datatypes = {tensor.name: tensor.datatype for tensor in config.outputs}
    for name, array in zip(names, outputs, strict=True):
        row = nan_row(datatypes[name], array)
        if row is not None:
            where = f", row {row} of the request" if config.max_batch_size else ""
            raise ExecutionFailed(f"model '{config.name}' version {version} gave NaN for output '{name}'{where}")


def note_runs(record: Record, work: Work, runs: Sequence[Run]) -> None:
    """Note those of these runs that the request, or a part of it, was in."""
    for run in runs:
        if work in run.batch:
            times = run.times
            record.computations.append(
                Computation(
                    times.start,
                    times.input_end,
                    times.infer_end,
                    times.output_end,
                    run.rows,
                    len(run.batch),
                    run.size,
                )
            )


def all_failed(config: ModelConfig, version: int, batch: Sequence[Work], error: Exception) -> BatchResult:
    """The result of a run that raised this, and that nothing came of."""
    return BatchResult([as_failure(config, version, error)] * len(batch), [], time.monotonic_ns(), failed_runs=1)


def _smaller(batch: Sequence[Work], error: Exception) -> list[Sequence[Work]]:
    """What to run instead of a batch that failed, the first one last."""
    if isinstance(error, OutOfMemory):
        middle = len(batch) // 2
        return [batch[middle:], batch[:middle]]
    return [(work,) for work in reversed(batch)]


def _exhausted_rows(batch: Sequence[Work], error: Exception) -> float:
    return sum([work.rows for work in batch]) if isinstance(error, OutOfMemory) else inf


def empty_costs(config: ModelConfig, session: Session) -> CostTable:
    """A table for this model's batches, as its configuration or its session wants them: as they are, or filled up."""
    fills = session.fixed_shapes if config.pad_to_bucket is None else config.pad_to_bucket
    return CostTable(bucket_sizes(max(1, config.max_batch_size)), fills=fills and config.max_batch_size > 0)


def as_failure(config: ModelConfig, version: int, error: Exception) -> ConvoyError:
    """What the caller of a run that raised this is told."""
    if isinstance(error, ConvoyError) and not isinstance(error, OutOfMemory):
        return error
    what = f"model '{config.name}' version {version} failed to run"
    kind = OutOfMemory if isinstance(error, OutOfMemory) else ExecutionFailed
    return kind(f"{what}: {error}").logged_as(f"{what}: {type(error).__name__}")


def _union(plans: Sequence[Plan]) -> tuple[str, ...]:
    """Every output that some request of the batch wants, once."""
    return tuple(dict.fromkeys(name for plan in plans for name in plan.names))


def _client_shape(
    dims: tuple[int, ...], reshape: tuple[int, ...], model_shape: tuple[int, ...], batched: bool
) -> tuple[int, ...]:
    """The shape that the configuration promises to clients, its free dimensions filled in order from the model's."""
    leading, trailing = (model_shape[:1], model_shape[1:]) if batched else ((), model_shape)
    free = [got for want, got in zip(reshape, trailing, strict=True) if want == -1]
    return (*leading, *(free.pop(0) if want == -1 else want for want in dims))
