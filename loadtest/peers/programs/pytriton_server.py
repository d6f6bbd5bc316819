"""NVIDIA PyTriton: its bundled Triton speaks gRPC and batches; the batch is run by this process."""

from __future__ import annotations

import signal
import sys

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from served_model import Tensor as Rows
from served_model import served_model

MODEL = served_model()

if __name__ == "__main__":
    # As for SIGINT: Triton is stopped, and its copy in the workspace removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    run = MODEL.load()

    @batch
    def infer(**inputs: Rows) -> list[Rows]:
        return [run(inputs[MODEL.input])]

    config = TritonConfig(
        grpc_address="127.0.0.1",
        http_address="127.0.0.1",
        grpc_port=MODEL.ports["grpc"],
        http_port=MODEL.ports["http"],
        metrics_port=MODEL.ports["metrics"],
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=MODEL.name,
            infer_func=infer,
            inputs=[Tensor(name=MODEL.input, dtype=np.float32, shape=MODEL.shape)],
            outputs=[Tensor(name=MODEL.output, dtype=np.float32, shape=(MODEL.row_values,))],
            config=ModelConfig(max_batch_size=MODEL.max_batch, batcher=DynamicBatcher()),
            strict=False,
        )
        triton.serve()
