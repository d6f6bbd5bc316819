"""What graphs can be beside what the other exporters make: old and new opsets, control flow, odd types and names.

Expected answers are those of ONNX's reference evaluator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, version_converter
from onnx.reference import ReferenceEvaluator
from writing import Writer

OLDEST, NEWEST = 7, 28
IR_VERSION = 10
random = np.random.default_rng(7)
writer = Writer(("onnx", "numpy"))
node, value = helper.make_node, helper.make_tensor_value_info


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    opsets: Mapping[str, int] | None = None,
    ir_version: int = IR_VERSION,
) -> ModelProto:
    initializers = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    return helper.make_model(
        helper.make_graph(nodes, "test", inputs, outputs, initializers),
        opset_imports=[helper.make_opsetid(*pair) for pair in (opsets or {"": 18}).items()],
        ir_version=ir_version,
    )


def keep(name: str, how: str, made: ModelProto, *requests: Mapping[str, np.ndarray]) -> None:
    """Write a model that can be served, and what the reference evaluator answers to these requests."""
    writer.served(name, how).write_bytes(made.SerializeToString())
    for number, inputs in enumerate(requests, 1):
        fed = {k: v.astype(object) if v.dtype.kind == "U" else v for k, v in inputs.items()}
        outputs = [np.asarray(y) for y in ReferenceEvaluator(made).run(None, fed)]
        outputs = [y.astype(str) if y.dtype == object else y for y in outputs]
        writer.case(name, inputs, dict(zip([y.name for y in made.graph.output], outputs, strict=True)), number)


def refuse(name: str, how: str, made: ModelProto) -> None:
    writer.refused(name, how).write_bytes(made.SerializeToString())


def opsets() -> None:
    """One convolutional network in every opset from the oldest that ONNX Runtime vouches for."""
    constants = {
        "filters": random.standard_normal((2, 1, 3, 3)).astype(np.float32),
        "weights": random.standard_normal((18, 3)).astype(np.float32),
        "bias": random.standard_normal(3).astype(np.float32),
    }
    nodes = [
        node("Conv", ["x", "filters"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "weights", "bias"], ["g"]),
        node("Softmax", ["g"], ["y"], axis=1),
    ]
    tensors = [value("x", TensorProto.FLOAT, ["N", 1, 6, 6])], [value("y", TensorProto.FLOAT, ["N", 3])]
    oldest = model(nodes, *tensors, constants, opsets={"": OLDEST})
    x = random.standard_normal((4, 1, 6, 6)).astype(np.float32)
    for opset in range(OLDEST, NEWEST + 1):
        converted = version_converter.convert_version(oldest, opset) if opset > OLDEST else oldest
        # Each with the format of its day: files of IR version 3 list their weights among the inputs.
        converted.ir_version = max(4, helper.find_min_ir_version_for(converted.opset_import))
        keep(f"opset_{opset:02}", "onnx.version_converter.convert_version", converted, {"x": x})
    newest = model([node("Relu", ["x"], ["y"])], *tensors, opsets={"": 99})
    newest.graph.output[0].CopyFrom(value("y", TensorProto.FLOAT, ["N", 1, 6, 6]))
    refuse("opset_too_new", "onnx.helper, opset 99", newest)
    newest.opset_import[0].version, newest.ir_version = 18, 99
    refuse("format_too_new", "onnx.helper, IR version 99", newest)


def inputs_and_outputs() -> None:
    x = random.standard_normal((4, 3)).astype(np.float32)
    weights = {"w": random.standard_normal((3, 2)).astype(np.float32)}
    tensors = [value("x", TensorProto.FLOAT, ["N", 3])], [value("y", TensorProto.FLOAT, ["N", 2])]

    old = model([node("MatMul", ["x", "w"], ["y"])], *tensors, weights, opsets={"": 8}, ir_version=3)
    old.graph.input.append(value("w", TensorProto.FLOAT, [3, 2]))
    keep("weights_among_inputs", "onnx.helper, IR version 3: initializers are inputs too", old, {"x": x})

    outside = model([node("MatMul", ["x", "w"], ["y"])], *tensors, weights)
    path = writer.served("external_data", "onnx.save(save_as_external_data=True)")
    writer.case("external_data", {"x": x}, {"y": ReferenceEvaluator(outside).run(None, {"x": x})[0]})
    (path.parent / "weights.bin").unlink(missing_ok=True)  # else it grows
    onnx.save(outside, path, save_as_external_data=True, location="weights.bin", size_threshold=0)

    many = model(
        [
            node("Add", ["a", "b"], ["sum"]),
            node("Sub", ["a", "b"], ["difference"]),
            node("Cast", ["c"], ["as_float"], to=TensorProto.FLOAT),
            node("Mul", ["sum", "as_float"], ["scaled"]),
        ],
        [
            value("a", TensorProto.FLOAT, ["batch", "length"]),
            value("b", TensorProto.FLOAT, ["batch", "length"]),
            value("c", TensorProto.INT64, ["batch", 1]),
        ],
        [value(name, TensorProto.FLOAT, ["batch", "length"]) for name in ("sum", "difference", "scaled")],
    )
    a, b = random.standard_normal((2, 4, 5)).astype(np.float32)
    c = np.array([[1], [-2], [3], [2**20]])
    keep("several_inputs", "onnx.helper, dimensions by name", many, {"a": a, "b": b, "c": c})

    scalars = model(
        [node("Mul", ["x", "factor"], ["y"]), node("ReduceSum", ["y"], ["total"], keepdims=0)],
        [value("x", TensorProto.FLOAT, ["N", 3]), value("factor", TensorProto.FLOAT, [])],
        [value("y", TensorProto.FLOAT, ["N", 3]), value("total", TensorProto.FLOAT, [])],
    )
    keep("scalars", "onnx.helper, tensors without dimensions", scalars, {"x": x, "factor": np.float32(2.5)})

    names = model([node("Relu", ["a/b:0"], ["grüße 'x'/y:0"])], *_pair("a/b:0", "grüße 'x'/y:0"))
    keep("odd_names", "onnx.helper", names, {"a/b:0": x})

    empty = model([node("Concat", ["x", "x"], ["y"], axis=1)], *_pair("x", "y", "M"))
    keep("no_elements", "onnx.helper, asked with a dimension of 0", empty, {"x": np.empty((2, 0), np.float32)})

    fixed_zero = model([node("Relu", ["x"], ["y"])], *_pair("x", "y", 0))
    refuse("dimension_of_zero", "onnx.helper, a dimension that is fixed at 0", fixed_zero)


def _pair(first: str, second: str, width: str | int = 3) -> tuple[list[ValueInfoProto], list[ValueInfoProto]]:
    return [value(first, TensorProto.FLOAT, ["N", width])], [value(second, TensorProto.FLOAT, ["N", None])]


def control_flow() -> None:
    x = np.abs(random.standard_normal((4, 3))).astype(np.float32)
    tensors = [value("x", TensorProto.FLOAT, ["N", 3])], [value("y", TensorProto.FLOAT, ["N", 3])]

    def branch(operator: str) -> onnx.GraphProto:
        return helper.make_graph([node(operator, ["x"], ["b"])], operator, [], [value("b", TensorProto.FLOAT, None)])

    chosen = model(
        [
            node("ReduceMax", ["x"], ["largest"], keepdims=0),
            node("Greater", ["largest", "limit"], ["above"]),
            node("If", ["above"], ["y"], then_branch=branch("Neg"), else_branch=branch("Exp")),
        ],
        *tensors,
        {"limit": np.array(0, np.float32)},
    )
    keep("branches", "onnx.helper, If", chosen, {"x": x}, {"x": -x})
    # What it does to one row depends on all. It looks as if it could be batched, and only its owner knows better.
    tensor = 'name: "%s" data_type: TYPE_FP32 dims: [ -1, 3 ]'
    writer.config("branches", f"max_batch_size: 0\ninput {{ {tensor % 'x'} }}\noutput {{ {tensor % 'y'} }}\n")

    body = helper.make_graph(
        [node("Mul", ["h", "half"], ["h_out"]), node("Identity", ["go"], ["go_out"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("h", TensorProto.FLOAT, None)],
        [value("go_out", TensorProto.BOOL, []), value("h_out", TensorProto.FLOAT, None)],
    )
    loop = model(
        [node("Loop", ["rounds", "yes", "x"], ["y"], body=body)],
        *tensors,
        {"rounds": np.array(3), "yes": np.array(True), "half": np.array(0.5, np.float32)},
    )
    keep("loops", "onnx.helper, Loop", loop, {"x": x})

    hidden = 2
    recurrent = model(
        [
            node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
            node("GRU", ["t", "w", "r"], ["", "h"], hidden_size=hidden),  # the first of two optional outputs left out
            node("Squeeze", ["h", "axis"], ["y"]),
        ],
        [value("x", TensorProto.FLOAT, ["N", "time", 3])],
        [value("y", TensorProto.FLOAT, ["N", hidden])],
        {
            "w": random.standard_normal((1, 3 * hidden, 3)).astype(np.float32),
            "r": random.standard_normal((1, 3 * hidden, hidden)).astype(np.float32),
            "axis": np.array([0]),
        },
    )
    keep("optional_outputs", "onnx.helper, GRU", recurrent, {"x": random.standard_normal((3, 4, 3)).astype(np.float32)})


def datatypes() -> None:
    def cast(
        operators: Sequence[NodeProto], given: int, answered: int, constants: Mapping[str, np.ndarray]
    ) -> ModelProto:
        return model(operators, [value("x", given, ["N", 3])], [value("y", answered, ["N", 2])], constants)

    weights = random.standard_normal((3, 2))
    brain = cast(
        [
            node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            node("MatMul", ["f", "w"], ["m"]),
            node("Cast", ["m"], ["y"], to=TensorProto.BFLOAT16),
        ],
        TensorProto.BFLOAT16,
        TensorProto.BFLOAT16,
        {"w": weights.astype(np.float32)},
    )
    x = random.standard_normal((4, 3)).astype(ml_dtypes.bfloat16)
    path = writer.served("bfloat16", "onnx.helper, BFLOAT16 in and out, FLOAT in between")
    path.write_bytes(brain.SerializeToString())
    answers = (x.astype(np.float32) @ weights.astype(np.float32)).astype(ml_dtypes.bfloat16)
    # npz knows no bfloat16: the same numbers, which float32 holds exactly
    writer.case("bfloat16", {"x": x.astype(np.float32)}, {"y": answers.astype(np.float32)})

    pixels = cast(
        [
            node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            node("MatMul", ["f", "w"], ["m"]),
            node("Clip", ["m", "low", "high"], ["c"]),
            node("Cast", ["c"], ["y"], to=TensorProto.INT8),
        ],
        TensorProto.UINT8,
        TensorProto.INT8,
        {"w": weights.astype(np.float32), "low": np.float32(-128), "high": np.float32(127)},
    )
    bytes_in = random.integers(0, 256, (4, 3), np.uint8)
    keep("bytes_in_and_out", "onnx.helper, UINT8 in, INT8 out", pixels, {"x": bytes_in})

    float8 = model(
        [node("Cast", ["x"], ["y"], to=TensorProto.FLOAT8E4M3FN)],
        [value("x", TensorProto.FLOAT, ["N", 3])],
        [value("y", TensorProto.FLOAT8E4M3FN, ["N", 3])],
        opsets={"": 19},
    )
    refuse("float8", "onnx.helper, FLOAT8E4M3FN out", float8)


def texts() -> None:
    def small(locale: str) -> ModelProto:
        return model(
            [node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER", locale=locale)],
            [value("x", TensorProto.STRING, ["N"])],
            [value("y", TensorProto.STRING, ["N"])],
        )

    # By hand: the reference evaluator takes accents away, which the operator's definition does not say.
    writer.served("small_letters", "onnx.helper, StringNormalizer").write_bytes(small("C.UTF-8").SerializeToString())
    words = np.array(["Grüße", "AB c", "ÉTÉ"])
    writer.case("small_letters", {"x": words}, {"y": np.char.lower(words)})
    refuse(
        "small_letters_elsewhere", "onnx.helper, StringNormalizer of a locale that no machine has", small("xx_XX.UTF-8")
    )

    labels = model(
        [
            node(
                "LabelEncoder",
                ["x"],
                ["y"],
                domain="ai.onnx.ml",
                keys_strings=["cat", "dög"],
                values_int64s=[1, 2],
                default_int64=-1,
            )
        ],
        [value("x", TensorProto.STRING, ["N", "M"])],
        [value("y", TensorProto.INT64, ["N", "M"])],
        opsets={"": 18, "ai.onnx.ml": 2},
    )
    words = np.array([["cat", "dög"], ["", "cow"], ["dög", "dög"]])
    keep("text_to_numbers", "onnx.helper, LabelEncoder", labels, {"x": words})


def refused() -> None:
    """Inputs that are no tensors, and operators that ONNX Runtime does not have."""
    x = value("x", TensorProto.FLOAT, ["N", 3])
    rows = helper.make_tensor_sequence_value_info("rows", TensorProto.FLOAT, ["N", 3])
    joined = [value("y", TensorProto.FLOAT, None)]
    refuse(
        "sequence_input", "onnx.helper", model([node("ConcatFromSequence", ["rows"], ["y"], axis=0)], [rows], joined)
    )
    maybe = helper.make_value_info(
        "maybe", helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 3]))
    )
    refuse("optional_input", "onnx.helper", model([node("OptionalGetElement", ["maybe"], ["y"])], [maybe], joined))
    unknown = model([node("Fly", ["x"], ["y"], domain="birds")], [x], joined, opsets={"": 18, "birds": 1})
    refuse("unknown_operator", "onnx.helper, an operator that nobody registered", unknown)
    later = model([node("Gelu", ["x"], ["y"])], [x], joined)
    refuse("operator_of_later_opset", "onnx.helper, opset 18: Gelu came with 20", later)
    gone = model([node("Relu", ["x"], ["y"])], [x], joined, opsets={"": 1}, ir_version=3)
    refuse("opset_too_old", "onnx.helper, opset 1", gone)


opsets()
inputs_and_outputs()
control_flow()
datatypes()
texts()
refused()
writer.finish()
