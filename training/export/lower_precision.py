"""A float32 graph made smaller by ONNX Runtime's own tools: float16, or int8 with scales measured on training data.

Inputs and outputs keep their types, so that such a version can stand beside a float32 one. What a lower precision costs
is for others to measure.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

from training.export.graph import checked
from training.files import TrainingError

CALIBRATION_PICTURES = 512
CALIBRATED_AT_ONCE = 16
WEIGHTED = ("Conv", "Gemm", "MatMul")
QUANTISED = (*WEIGHTED, "Add", "AveragePool", "Clip", "Flatten", "GlobalAveragePool", "MaxPool", "Relu", "Reshape")
"""What runs on bytes: layers with weights, and what lies between them."""


def to_float16(graph: bytes) -> bytes:
    """Weights and arithmetic in float16; casts at the ends."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto = convert_float_to_float16(onnx.load_from_string(graph), keep_io_types=True)
    sort(proto.graph)
    return checked(proto)


def to_int8(name: str, graph: bytes, pictures: Tensor) -> bytes:
    """Static quantisation: weights by channel, activations by the extremes that they have on the pictures.

    What comes before the first layer with weights and after the last one stays in float32: the preprocessing, and
    the softmax, whose small probabilities would all be 0.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        plain, prepared, quantised = (Path(folder) / f"{step}.onnx" for step in ("plain", "prepared", "quantised"))
        plain.write_bytes(graph)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)  # that one is for transformers
        proto = onnx.load(prepared)
        quantize_static(
            prepared,
            quantised,
            Calibration(proto.graph.input[0].name, pictures),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=before_the_first_weights(proto.graph),
            per_channel=True,
            # Products of full bytes overflow on processors without VNNI: there 7 bits of weight are all there is.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        made = onnx.load(quantised)
    if not any(node.op_type == "QuantizeLinear" for node in made.graph.node):
        raise TrainingError(f"{name} has no layer that could be quantised. Nothing was written. Leave out --int8.")
    return checked(made)


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """The pictures, some at a time, as ONNX Runtime asks for them."""

    def __init__(self, input_name: str, pictures: Tensor) -> None:
        self._batches: Iterator[dict[str, Any]] = iter(
            {input_name: batch.numpy()} for batch in torch.split(pictures, CALIBRATED_AT_ONCE)
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next batch; None after the last."""
        return next(self._batches, None)


def before_the_first_weights(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that no layer with weights comes before."""
    behind: set[str] = set()
    names = []
    for node in graph.node:
        if node.op_type in WEIGHTED or behind.intersection(node.input):
            behind.update(node.output)
        else:
            names.append(node.name)
    return names


def sort(graph: onnx.GraphProto) -> None:
    """Put each node behind those that it reads from, and otherwise keep their order."""
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    waiting, sorted_nodes = list(graph.node), []
    while waiting:
        ready = next(node for node in waiting if known.issuperset(node.input))
        waiting.remove(ready)
        sorted_nodes.append(ready)
        known.update(ready.output)
    del graph.node[:]
    graph.node.extend(sorted_nodes)


@contextmanager
def quiet() -> Iterator[None]:
    """ONNX Runtime's quantiser logs advice to the root logger, which is for those who call it by hand."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(level)
