"""Networks that are made here and need no training: what they compute is of no interest, what it costs is."""

from __future__ import annotations

from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.errors import LoadTestError

INPUT, OUTPUT = "picture", "logits"
CLASSES = 1000
_STAGES = (64, 128, 256, 512)
_BLOCKS_PER_STAGE = 2


def write_resnet18(path: Path, side: int) -> None:
    """ResNet-18 (He et al., 2015) for pictures of batch×3×side×side, with random weights, as one ONNX file.

    Batch normalisation is folded into the convolutions, as ONNX Runtime would fold it while loading. Weights have the
    variance that keeps activations in range layer by layer (He initialisation), so that none is NaN, infinite or
    denormal.
    """
    try:
        import onnx
    except ImportError as error:
        raise LoadTestError("the package onnx is missing, which writes the model: make install-dev") from error

    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    graph = _Graph(onnx)
    last = graph.relu(graph.convolution(INPUT, 3, _STAGES[0], kernel=7, stride=2))
    last = graph.add("MaxPool", [last], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = _STAGES[0]
    for stage, width in enumerate(_STAGES):
        for block in range(_BLOCKS_PER_STAGE):
            stride = 2 if stage and not block else 1
            inner = graph.relu(graph.convolution(last, channels, width, kernel=3, stride=stride))
            inner = graph.convolution(inner, width, width, kernel=3, stride=1)
            shortcut = last if stride == 1 else graph.convolution(last, channels, width, kernel=1, stride=stride)
            last = graph.relu(graph.add("Add", [inner, shortcut]))
            channels = width
    last = graph.add("Flatten", [graph.add("GlobalAveragePool", [last])], axis=1)
    weights = [graph.weight([CLASSES, channels]), graph.weight([CLASSES])]
    graph.nodes.append(helper.make_node("Gemm", [last, *weights], [OUTPUT], transB=1))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "resnet18",
            [helper.make_tensor_value_info(INPUT, real, ["batch", 3, side, side])],
            [helper.make_tensor_value_info(OUTPUT, real, ["batch", CLASSES])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


class _Graph:
    """Nodes and weights, named by number."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self._random = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        output = f"x{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, [output], **attributes))
        return output

    def relu(self, what: str) -> str:
        return self.add("Relu", [what])

    def convolution(self, what: str, inputs: int, outputs: int, *, kernel: int, stride: int) -> str:
        weights = [self.weight([outputs, inputs, kernel, kernel]), self.weight([outputs])]
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        return self.add("Conv", [what, *weights], **shape)

    def weight(self, shape: list[int]) -> str:
        name = f"w{len(self.weights)}"
        scale = sqrt(2 / prod(shape[1:])) if len(shape) > 1 else 0.01
        values = self._random.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        self.weights.append(self._onnx.numpy_helper.from_array(values, name))
        return name
