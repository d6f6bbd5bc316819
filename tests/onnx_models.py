"""Small ONNX models for tests, each made in memory in a millisecond. Inputs are named `x` (or `a`, `b`), outputs `y`.

Every model's answer depends on its input, so that an answer given to the wrong caller is seen. Shapes hold numbers for
fixed dimensions and names for free ones, as ONNX has them; a first dimension "N" makes a model that can be batched.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Shape = Sequence[int | str]

ELEMENT_TYPES: dict[str, int] = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}
"""The protocol's datatypes as ONNX knows them."""

OPSET = 18
IR_VERSION = 9
"""Old enough for every ONNX Runtime that the server accepts."""

SLOW_WIDTH = 96
"""One iteration of `slow` multiplies matrices of this size."""


def identity(datatype: str, shape: Shape = ("N", "D")) -> ModelProto:
    """y = x, of any datatype."""
    x, y = _value("x", datatype, shape), _value("y", datatype, shape)
    return _model([helper.make_node("Identity", ["x"], ["y"])], [x], [y])


def shouter() -> ModelProto:
    """shout = text in capital letters: any number of strings, without a batch axis."""
    node = helper.make_node("StringNormalizer", ["text"], ["shout"], case_change_action="UPPER", locale="C")
    return _model([node], [_value("text", "BYTES", ("N",))], [_value("shout", "BYTES", ("M",))])


def mean_colour(height: int, width: int, *, channels_last: bool = False) -> ModelProto:
    """y = the means of a picture's three channels, over its height and width."""
    shape = ("N", height, width, 3) if channels_last else ("N", 3, height, width)
    axes = numpy_helper.from_array(np.array([1, 2] if channels_last else [2, 3], np.int64), "axes")
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)
    return _model([node], [_value("x", "FP32", shape)], [_value("y", "FP32", ("N", 3))], [axes])


def filtered(weights: NDArray[np.float32], side: int) -> ModelProto:
    """y = the means of the maps that a convolution with these weights (K, C, F, F), and a ReLU, make of a picture."""
    nodes = [
        helper.make_node("Conv", ["x", "weights"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceMean", ["r", "axes"], ["y"], keepdims=0),
    ]
    filters, channels = weights.shape[:2]
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
    ]
    x, y = _value("x", "FP32", ("N", channels, side, side)), _value("y", "FP32", ("N", filters))
    return _model(nodes, [x], [y], constants)


def affine(datatype: str = "INT64", shape: Shape = ("N", 1), *, factor: int = 3, offset: int = 1) -> ModelProto:
    """y = factor * x + offset, so that an answer names the request that it belongs to."""
    nodes = [helper.make_node("Mul", ["x", "factor"], ["m"]), helper.make_node("Add", ["m", "offset"], ["y"])]
    constants = [_scalar("factor", datatype, factor), _scalar("offset", datatype, offset)]
    return _model(nodes, [_value("x", datatype, shape)], [_value("y", datatype, shape)], constants)


def add_sub(shape: Shape = ("N", 4), datatype: str = "FP32") -> ModelProto:
    """sum = a + b and difference = a - b."""
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    inputs = [_value(name, datatype, shape) for name in ("a", "b")]
    return _model(nodes, inputs, [_value(name, datatype, shape) for name in ("sum", "difference")])


def transpose(rows: int = 2, columns: int = 3) -> ModelProto:
    """y = x transposed, FP32, both shapes fixed: a model without a batch axis."""
    x, y = _value("x", "FP32", (rows, columns)), _value("y", "FP32", (columns, rows))
    return _model([helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])], [x], [y])


def lookup(size: int = 4) -> ModelProto:
    """y = 10 * x by a table of `size` entries: a larger x makes the run fail."""
    table = numpy_helper.from_array(np.arange(size, dtype=np.int64) * 10, "table")
    node = helper.make_node("Gather", ["table", "x"], ["y"], axis=0)
    return _model([node], [_value("x", "INT64", ("N", 1))], [_value("y", "INT64", ("N", 1))], [table])


def root() -> ModelProto:
    """y = the square root of x, FP32: NaN where x is negative."""
    x, y = (_value(name, "FP32", ("N", 2)) for name in ("x", "y"))
    return _model([helper.make_node("Sqrt", ["x"], ["y"])], [x], [y])


def hungry(max_rows: int) -> ModelProto:
    """y = x, FP32; a batch of more than `max_rows` rows asks for more memory than any address can name."""
    nodes = [
        helper.make_node("Shape", ["x"], ["rows"], start=0, end=1),
        helper.make_node("Greater", ["rows", "max_rows"], ["too_many"]),
        helper.make_node("Where", ["too_many", "huge", "one"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["filler"]),
        helper.make_node("ReduceMax", ["filler"], ["zero"], keepdims=0),
        helper.make_node("Add", ["x", "zero"], ["y"]),
    ]
    numbers = {"max_rows": max_rows, "huge": 1 << 50, "one": 1}
    constants = [numpy_helper.from_array(np.array([number], np.int64), name) for name, number in numbers.items()]
    x, y = (_value(name, "FP32", ("N", 1)) for name in ("x", "y"))
    return _model(nodes, [x], [y], constants)


def doubled_rows() -> ModelProto:
    """Claims a batch axis and breaks its promise: twice as many rows come out as went in."""
    node = helper.make_node("Concat", ["x", "x"], ["y"], axis=0)
    return _model([node], [_value("x", "FP32", ("N", 2))], [_value("y", "FP32", ("M", 2))])


def accumulator(shape: Shape = ("N", 1), datatype: str = "FP32") -> ModelProto:
    """y = total_out = total_in + x: the sum of a sequence, where total_out comes back as total_in."""
    nodes = [
        helper.make_node("Add", ["total_in", "x"], ["y"]),
        helper.make_node("Identity", ["y"], ["total_out"]),
    ]
    inputs = [_value(name, datatype, shape) for name in ("x", "total_in")]
    return _model(nodes, inputs, [_value(name, datatype, shape) for name in ("y", "total_out")])


def history() -> ModelProto:
    """seen_out = seen_in and x after it, INT64: a state that grows. Without a batch axis."""
    nodes = [
        helper.make_node("Concat", ["seen_in", "x"], ["y"], axis=0),
        helper.make_node("Identity", ["y"], ["seen_out"]),
    ]
    inputs = [_value("x", "INT64", (1,)), _value("seen_in", "INT64", ("S",))]
    return _model(nodes, inputs, [_value(name, "INT64", ("T",)) for name in ("y", "seen_out")])


def signals(datatype: str = "INT32", id_datatype: str = "UINT64") -> ModelProto:
    """What a model of sequences is told, given back: `x` as `y`, `start` as `start_out`, and so `ready`, `end`, `id`.
    And `rows`, INT64: those of the batch."""
    datatypes = {"x": "INT64", "start": datatype, "ready": datatype, "end": datatype, "id": id_datatype}
    names = {"x": "y"} | {name: f"{name}_out" for name in ("start", "ready", "end", "id")}
    nodes = [helper.make_node("Identity", [name], [out]) for name, out in names.items()]
    nodes += [
        helper.make_node("Shape", ["x"], ["count"], start=0, end=1),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Expand", ["count", "shape"], ["rows"]),
    ]
    inputs = [_value(name, kind, ("N", 1)) for name, kind in datatypes.items()]
    outputs = [_value(names[name], kind, ("N", 1)) for name, kind in datatypes.items()]
    return _model(nodes, inputs, [*outputs, _value("rows", "INT64", ("N", 1))])


def sequence_output() -> ModelProto:
    """An output that is a sequence of tensors, which the protocol has no word for."""
    y = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    return _model([helper.make_node("SequenceConstruct", ["x"], ["y"])], [_value("x", "FP32", ("N", 2))], [y])


def mlp(width: int = 32) -> ModelProto:
    """y = tanh(x W1) W2, FP32: enough floating point for the order of additions to show."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.standard_normal((width, width), np.float32) / np.float32(width**0.5), name)
        for name in ("w1", "w2")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "w2"], ["y"]),
    ]
    return _model(nodes, [_value("x", "FP32", ("N", width))], [_value("y", "FP32", ("N", width))], weights)


def external_weights(location: str, width: int = 4) -> ModelProto:
    """y = x + w, FP32, w being the first `width` numbers of the file at `location`."""
    w = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[width], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", str(4 * width))):
        w.external_data.add(key=key, value=value)
    x, y = (_value(name, "FP32", ("N", width)) for name in ("x", "y"))
    return _model([helper.make_node("Add", ["x", "w"], ["y"])], [x], [y], [w])


def slow() -> ModelProto:
    """y = x after `iterations` (INT64, the largest of the batch decides) rounds of matrix products.

    How long a run takes is the caller's choice: some 12 µs a round on a core of 2026.
    """
    eye = np.eye(SLOW_WIDTH, dtype=np.float32)
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h_in", "eye"], ["h_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "round",
        [_value("i", "INT64", ()), _value("go_in", "BOOL", ()), _value("h_in", "FP32", (SLOW_WIDTH, SLOW_WIDTH))],
        [_value("go_out", "BOOL", ()), _value("h_out", "FP32", (SLOW_WIDTH, SLOW_WIDTH))],
    )
    nodes = [
        helper.make_node("ReduceMax", ["iterations"], ["rounds"], keepdims=0),
        helper.make_node("Loop", ["rounds", "", "eye"], ["h"], body=body),
        helper.make_node("ReduceMax", ["h"], ["one"], keepdims=0),  # the identity stays what it is: 1.0
        helper.make_node("Mul", ["x", "one"], ["y"]),
    ]
    inputs = [_value("x", "FP32", ("N", 1)), _value("iterations", "INT64", ("N", 1))]
    return _model(nodes, inputs, [_value("y", "FP32", ("N", 1))], [numpy_helper.from_array(eye, "eye")])


def _value(name: str, datatype: str, shape: Shape) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[datatype], list(shape))


def _scalar(name: str, datatype: str, value: int) -> TensorProto:
    return numpy_helper.from_array(np.array(value, helper.tensor_dtype_to_np_dtype(ELEMENT_TYPES[datatype])), name)


def _model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    constants: Sequence[TensorProto] = (),
) -> ModelProto:
    graph: GraphProto = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
