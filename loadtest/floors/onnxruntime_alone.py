"""ONNX Runtime without a server: one thread, the same batch over and over, and the CPU time that a row takes.

python -m loadtest.floors.onnxruntime_alone --model model.onnx --request FILE --batch N --rows N
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnxruntime

from loadtest.payload import NUMPY_TYPES
from proto import grpc_service_pb2 as pb

_WARM_UP_RUNS = 50


def cpu_us_per_row(model: Path, request: pb.ModelInferRequest, batch: int, rows: int) -> float:
    """CPU time of this process while about `rows` rows are run, `batch` at a time; `request` is one row."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {
        tensor.name: np.repeat(np.frombuffer(raw, NUMPY_TYPES[tensor.datatype]).reshape(tensor.shape), batch, axis=0)
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }
    for _ in range(_WARM_UP_RUNS):
        session.run(None, feeds)
    runs = max(1, rows // batch)
    before = time.process_time()
    for _ in range(runs):
        session.run(None, feeds)
    return (time.process_time() - before) / (runs * batch) * 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="the ONNX file")
    parser.add_argument("--request", type=Path, required=True, help="a file with a serialised ModelInferRequest")
    parser.add_argument("--batch", type=int, required=True, help="rows per run")
    parser.add_argument("--rows", type=int, required=True, help="rows in all, about")
    arguments = parser.parse_args()
    asked = pb.ModelInferRequest.FromString(arguments.request.read_bytes())
    print(json.dumps({"cpu_us_per_row": cpu_us_per_row(arguments.model, asked, arguments.batch, arguments.rows)}))
