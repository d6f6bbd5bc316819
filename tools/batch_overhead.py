"""What a batch costs besides ONNX Runtime: staging its rows, splitting its outputs, building the answers.

    PYTHONPATH=. python tools/batch_overhead.py --model model_repository/lenet5

Runs `Executor.execute`, as a lane does, with ONNX Runtime on one thread. "besides" is all of a run but the call of the
session; what of that call is not the graph's own work, a model of one Identity shows. Beside it, in turns: the bare
call, and the same through I/O binding with outputs in memory that is bound once, as they are and copied out of it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime

from server.backends.base import SessionOptions
from server.backends.onnx import OnnxBackend, OnnxSession
from server.messages import InferenceRequest, TensorSpec
from server.models import admission, config, repository
from server.models.config import ModelConfig
from server.models.execution import Executor
from server.models.work import Work
from server.tensors import Array, byte_size

COLUMNS = ("requests", "staging", "splitting", "besides", "session.run", "I/O binding", "and copied")


def main() -> None:
    """Print a table of medians, µs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("model_repository/lenet5"), help="a model's folder")
    parser.add_argument("--batches", default="1,2,8,32,64", help="requests per batch, of one row each (%(default)s)")
    parser.add_argument("--runs", type=int, default=400, help="of each kind and batch (%(default)s)")
    arguments = parser.parse_args()
    folder = repository.ModelFolder(arguments.model.name, arguments.model, (1,))
    path = repository.model_file(folder, 1, "model.onnx")
    session = OnnxBackend().load(path, SessionOptions(intra_op_threads=1))
    model = config.complete(
        config.parse(repository.read_config(folder) or "", "config.pbtxt"),
        folder_name=folder.name,
        source="config.pbtxt",
        inputs=session.inputs,
        outputs=session.outputs,
        labels=lambda filename: repository.read_labels(folder, filename),
    )
    print("  ".join(COLUMNS))
    for requests in map(int, arguments.batches.split(",")):
        phases = _phases(model, session, requests, arguments.runs)
        calls = _calls(model, session, path, requests, arguments.runs)
        row = (requests, *(round(median(times), 1) for times in (*phases, *calls)))
        print("  ".join(f"{value:>{len(column)}}" for value, column in zip(row, COLUMNS, strict=True)))


def _phases(model: ModelConfig, session: OnnxSession, requests: int, runs: int) -> tuple[list[float], ...]:
    executor = Executor(model, 1, session)
    batch = _batch(model, requests)
    staging: list[float] = []
    splitting: list[float] = []
    besides: list[float] = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        times = executor.execute(batch).runs[0].times
        whole = time.perf_counter_ns() - start
        staging.append((times.input_end - times.start) / 1000)
        splitting.append((times.output_end - times.infer_end) / 1000)
        besides.append((whole - (times.infer_end - times.input_end)) / 1000)
    return staging, splitting, besides


def _calls(model: ModelConfig, session: OnnxSession, path: Path, requests: int, runs: int) -> list[list[float]]:
    feed = {t.name: np.zeros((requests, *t.model_dims), t.datatype.dtype) for t in model.inputs}
    names = [tensor.name for tensor in model.outputs]
    run_bound, outputs = _bound(path, feed, names)

    def run_bound_and_copy() -> None:
        run_bound()
        for array in outputs:
            array.copy()  # answers outlive the next batch

    kinds: list[Callable[[], object]] = [lambda: session.run(feed, names), run_bound, run_bound_and_copy]
    times: list[list[float]] = [[] for _ in kinds]
    for _ in range(runs):
        for kind, taken in zip(kinds, times, strict=True):
            start = time.perf_counter_ns()
            kind()
            taken.append((time.perf_counter_ns() - start) / 1000)
    return times


def _bound(path: Path, feed: dict[str, Array], names: list[str]) -> tuple[Callable[[], None], list[Array]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    outputs = [np.empty_like(array) for array in session.run(names, feed)]
    for name, array in zip(names, outputs, strict=True):
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def run() -> None:
        for name, array in feed.items():  # a batch's inputs may lie elsewhere each time
            binding.bind_cpu_input(name, array)
        session.run_with_iobinding(binding)

    return run, outputs


class _Nobody:
    def cancel(self, work: Work) -> None:
        """Nobody waits for this work."""


def _batch(model: ModelConfig, requests: int) -> list[Work]:
    """Requests of one row, with a plan that they share and buffers of their own."""
    specs = tuple(TensorSpec(t.name, t.datatype.name, (1, *t.dims)) for t in model.inputs)
    plan = admission.make_plan(model, specs, (), "")
    batch: list[Work] = []
    for _ in range(requests):
        buffers = tuple(bytes(byte_size(t.datatype, t.dims)) for t in model.inputs)
        request = InferenceRequest(model.name, "", "", specs, buffers)
        inputs = admission.inputs_in_order(model, plan, request)
        batch.append(Work(_Nobody(), request, plan, inputs, None, arrived=0.0, deadline=0.0))
    return batch


if __name__ == "__main__":
    main()
