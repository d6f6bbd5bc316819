"""Write a model repository with an ensemble that reads handwritten digits: picture files in, labels out.

    python examples/ensemble/make.py /tmp/digits
    python -m server --model-repository /tmp/digits
    python examples/ensemble/read_digits.py three.jpg

    picture file → digit_pixels → digit_resnet → digit_label → label, confidence

`digit_pixels` has the server decode and resize (its `image.*` parameters) and normalises, `digit_resnet` is a trained
residual network (`train_resnet.py`), and `digit_label` makes words of its scores. `digit_reader` is the three as one
model. Needs onnx.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

RESNET = Path(__file__).with_name("resnet.onnx")
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MEAN, STD = 0.3, 0.35
"""As in `train_resnet.py`."""
MAX_BATCH_SIZE = 64

CONFIG = """\
max_batch_size: %d
dynamic_batching { }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
"""

PICTURES = """\
input [ { name: "ink" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 1, 16, 16 ] } ]
parameters { key: "image.resize" value { string_value: "16x16" } }
# 1 - pixel / 255: ink is 1, paper is 0.
parameters { key: "image.scale" value { string_value: "-1/255" } }
parameters { key: "image.mean" value { string_value: "-1" } }
"""

ENSEMBLE = """\
platform: "ensemble"
max_batch_size: %d
input [ { name: "picture" data_type: TYPE_STRING dims: [ 1 ] } ]
output [
  { name: "label" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "confidence" data_type: TYPE_FP32 dims: [ 1 ] }
]
ensemble_scheduling {
  step [
    {
      model_name: "digit_pixels"
      model_version: -1
      input_map { key: "ink" value: "picture" }
      output_map { key: "normalized" value: "pixels" }
    },
    {
      model_name: "digit_resnet"
      model_version: -1
      input_map { key: "image" value: "pixels" }
      output_map { key: "logits" value: "logits" }
    },
    {
      model_name: "digit_label"
      model_version: -1
      input_map { key: "logits" value: "logits" }
      output_map { key: "label" value: "label" }
      output_map { key: "confidence" value: "confidence" }
    }
  ]
}
"""


def digit_pixels() -> ModelProto:
    """normalized = (ink - MEAN) / STD, both (N, 1, 16, 16)."""
    shape = ("N", 1, 16, 16)
    nodes = [
        helper.make_node("Sub", ["ink", "mean"], ["rest"]),
        helper.make_node("Div", ["rest", "std"], ["normalized"]),
    ]
    constants = [numpy_helper.from_array(np.float32(number), name) for name, number in (("mean", MEAN), ("std", STD))]
    return _model(nodes, {"ink": (TensorProto.FLOAT, shape)}, {"normalized": (TensorProto.FLOAT, shape)}, constants)


def digit_label() -> ModelProto:
    """The name of the highest of ten scores, and its softmax: (N, 10) → (N, 1) each."""
    nodes = [
        helper.make_node("Softmax", ["logits"], ["shares"], axis=-1),
        helper.make_node("ReduceMax", ["shares"], ["confidence"], axes=[1], keepdims=1),
        helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=1),
        helper.make_node("Gather", ["names", "best"], ["label"]),
    ]
    names = numpy_helper.from_array(np.array(NAMES, dtype=object), "names")
    outputs = {"label": (TensorProto.STRING, ("N", 1)), "confidence": (TensorProto.FLOAT, ("N", 1))}
    return _model(nodes, {"logits": (TensorProto.FLOAT, ("N", 10))}, outputs, [names])


def write(root: Path) -> None:
    """Write the repository; what is there already is replaced."""
    config = CONFIG % MAX_BATCH_SIZE
    for name, model, text in (
        ("digit_pixels", digit_pixels().SerializeToString(), config + PICTURES),
        ("digit_resnet", RESNET.read_bytes(), config),
        ("digit_label", digit_label().SerializeToString(), config),
        ("digit_reader", None, ENSEMBLE % MAX_BATCH_SIZE),
    ):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name / "1").mkdir(parents=True)  # an ensemble's version is an empty folder
        (root / name / "config.pbtxt").write_text(text)
        if model is not None:
            (root / name / "1" / "model.onnx").write_bytes(model)


Tensors = dict[str, tuple[int, tuple[int | str, ...]]]


def _model(nodes: list[NodeProto], inputs: Tensors, outputs: Tensors, constants: list[TensorProto]) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "ensemble example",
        [helper.make_tensor_value_info(name, *tensor) for name, tensor in inputs.items()],
        [helper.make_tensor_value_info(name, *tensor) for name, tensor in outputs.items()],
        constants,
    )
    # Opset 17: from 18 on, the axes of ReduceMax are an input.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/ensemble/make.py FOLDER")
    write(Path(sys.argv[1]))
