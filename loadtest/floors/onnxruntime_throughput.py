"""ONNX Runtime without a server, as fast as it can be called: the most rows per second of one process.

python -m loadtest.floors.onnxruntime_throughput --model model.onnx --request FILE --rows N [--setup 2,1,4]

`--setup` is SESSIONS,THREADS,BATCH: so many sessions, each called by a thread of its own, so many threads in each
session, and a batch size.
Without `--setup`, all reasonable ones on two cores are tried, and the best is measured. Batches are ready in memory.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from loadtest.payload import NUMPY_TYPES
from proto import grpc_service_pb2 as pb

BATCHES = (1, 2, 4, 8)
SESSIONS_AND_THREADS = ((1, 1), (1, 2), (2, 1))
_TRIED_SHARE = 1 / 2
"""Of the rows, for each setup that is tried."""


@dataclass(frozen=True)
class Setup:
    """How ONNX Runtime is called."""

    sessions: int
    threads: int
    batch: int


@dataclass(frozen=True)
class Speed:
    """What came of it."""

    rows_per_second: float
    cpu_us_per_row: float


def measure(model: Path, request: pb.ModelInferRequest, setup: Setup, rows: int) -> Speed:
    """Runs `rows` rows or a few more; `request` is one row."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = setup.threads, 1
    providers = ["CPUExecutionProvider"]
    sessions = [onnxruntime.InferenceSession(model, options, providers=providers) for _ in range(setup.sessions)]
    feeds = {
        tensor.name: np.repeat(
            np.frombuffer(raw, NUMPY_TYPES[tensor.datatype]).reshape(tensor.shape), setup.batch, axis=0
        )
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }
    for session in sessions:
        session.run(None, feeds)
    runs = -(-rows // (setup.batch * setup.sessions))

    def work(session: onnxruntime.InferenceSession) -> None:
        for _ in range(runs):
            session.run(None, feeds)

    with ThreadPoolExecutor(setup.sessions) as threads:
        began, cpu_began = time.perf_counter(), time.process_time()
        list(threads.map(work, sessions))
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    done = runs * setup.batch * setup.sessions
    return Speed(done / seconds, cpu_seconds / done * 1e6)


def best(model: Path, request: pb.ModelInferRequest, rows: int) -> Setup:
    """The fastest setup."""
    setups = [Setup(sessions, threads, batch) for sessions, threads in SESSIONS_AND_THREADS for batch in BATCHES]
    return max(setups, key=lambda setup: measure(model, request, setup, rows).rows_per_second)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the ONNX file")
    parser.add_argument("--request", type=Path, required=True, help="a file with a serialised ModelInferRequest")
    parser.add_argument("--rows", type=int, required=True, help="rows in all, about")
    parser.add_argument("--setup", help="SESSIONS,THREADS,BATCH (default: the best of all)")
    flags = parser.parse_args()
    asked = pb.ModelInferRequest.FromString(flags.request.read_bytes())
    chosen = (
        Setup(*map(int, flags.setup.split(",")))
        if flags.setup
        else best(flags.model, asked, max(1, round(flags.rows * _TRIED_SHARE)))
    )
    speed = measure(flags.model, asked, chosen, flags.rows)
    print(json.dumps({"setup": f"{chosen.sessions},{chosen.threads},{chosen.batch}", **asdict(speed)}))
