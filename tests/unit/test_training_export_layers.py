"""Which nodes are one layer, and how its sizes are calculated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from training.export.layer_groups import Group, find_groups
from training.export.layer_table import Window, count_parameters, describe, windows_of
from training.export.layers import constants_of, prove, read_original, shapes_of, write_layers
from training.files import TrainingError

MODELS = Path(__file__).parents[2] / "model_repository"


def graph(nodes: list[NodeProto], last: str, **weights: np.ndarray) -> GraphProto:
    """`x` (batch, 1, 8, 8) → `last`, with the shapes that ONNX infers."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    return onnx.shape_inference.infer_shapes(helper.make_model(made, opset_imports=opset)).graph


def kinds(made: GraphProto) -> list[tuple[str, tuple[str, ...]]]:
    return [(group.kind, group.operators) for group in find_groups(made, shapes_of(made))]


@pytest.mark.parametrize(
    ("window", "size", "made", "formula"),
    [
        (Window(5, 1, (0, 0)), 32, 28, "(32 − 5 + 2·0)/1 + 1 = 28"),
        (Window(3, 2, (1, 1)), 5, 3, "(5 − 3 + 2·1)/2 + 1 = 3"),
        (Window(2, 2, (0, 0), pools=True), 28, 14, "(28 − 2)/2 + 1 = 14"),
        (Window(11, 4, (2, 2)), 224, 55, "⌊(224 − 11 + 2·2)/4⌋ + 1 = 55"),
        (Window(3, 2, (0, 0), ceil=True, pools=True), 112, 56, "⌈(112 − 3)/2⌉ + 1 = 56"),
        (Window(3, 2, (0, 1)), 8, 4, "(8 − 3 + 0 + 1)/2 + 1 = 4"),
        (Window(3, 1, (2, 2), dilation=2), 8, 8, "(8 − (2·(3 − 1) + 1) + 2·2)/1 + 1 = 8"),
    ],
)
def test_the_lectures_formula_in_numbers(window: Window, size: int, made: int, formula: str) -> None:
    assert window.formula(size, made) == formula
    left, _, right = formula.translate(str.maketrans("−·/⌊⌋⌈⌉", "-*/()()")).partition(" = ")
    assert (np.ceil if window.ceil else np.floor)(eval(left)) == int(right)


@pytest.mark.parametrize(("same", "padding"), [("SAME_UPPER", (0, 1)), ("SAME_LOWER", (1, 0))])
def test_padding_that_the_graph_leaves_to_the_runtime_is_written_out(same: str, padding: tuple[int, int]) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad=same, strides=[2, 2])
    height, width = windows_of(node, (1, 8, 8), (1, 4, 4), {"w": np.zeros((1, 1, 3, 3))})
    assert height == width == Window(3, 2, padding)


def test_a_row_of_the_table_has_height_before_width_and_the_beginning_before_the_end() -> None:
    attributes = {"kernel_shape": [3, 5], "strides": [2, 1], "pads": [0, 2, 1, 3], "dilations": [1, 1]}
    made = graph([helper.make_node("Conv", ["x", "stem.weight"], ["y"], **attributes)], "y")
    weights = {"stem.weight": np.ones((4, 1, 3, 5), np.float32)}
    group = Group("convolution", list(made.node), "x", "y", list(weights))

    row = describe(group, "convolution_1", (1, 8, 8), (4, 4, 9), weights)

    assert (row.label, row.kernel, row.stride, row.padding) == ("stem", (3, 5), (2, 1), (0, 2, 1, 3))
    assert row.formulas == ("(8 − 3 + 0 + 1)/2 + 1 = 4", "(8 − 5 + 2 + 3)/1 + 1 = 9")
    assert row.parameters_formula == "3·5·1·4 = 60"


def test_an_activation_takes_its_factors_and_a_pooling_its_coefficients() -> None:
    nodes = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Mul", ["p", "coefficient"], ["pc"]),
        helper.make_node("Add", ["pc", "bias"], ["pb"]),
        helper.make_node("Mul", ["pb", "slope"], ["s"]),
        helper.make_node("Tanh", ["s"], ["t"]),
        helper.make_node("Mul", ["t", "height"], ["y"]),
    ]
    ones = np.ones((1, 1, 1))
    assert kinds(graph(nodes, "y", coefficient=ones, bias=ones, slope=np.array(2 / 3), height=np.array(1.7159))) == [
        ("pooling", ("AveragePool", "Mul", "Add")),
        ("activation", ("Mul", "Tanh", "Mul")),
    ]


def test_a_shortcut_ends_in_an_addition_and_a_bias_does_not() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("Add", ["c", "bias"], ["b"]),
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("Add", ["r", "x"], ["y"]),
    ]
    assert kinds(graph(nodes, "y", w=np.ones((1, 1, 1, 1)), bias=np.ones((1, 1, 1)))) == [
        ("convolution", ("Conv", "Add")),
        ("activation", ("Relu",)),
        ("addition", ("Add",)),
    ]


def test_what_is_read_twice_is_an_output_of_its_own() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "slope"], ["s"]),
        helper.make_node("Add", ["s", "x"], ["sx"]),
        helper.make_node("Tanh", ["s"], ["t"]),
        helper.make_node("Mul", ["t", "slope"], ["h"]),
        helper.make_node("Add", ["sx", "t"], ["sxt"]),
        helper.make_node("Add", ["sxt", "h"], ["y"]),
    ]
    assert kinds(graph(nodes, "y", slope=np.array(2))) == [
        ("arithmetic", ("Mul",)),
        ("addition", ("Add",)),
        ("activation", ("Tanh",)),
        ("arithmetic", ("Mul",)),
        ("addition", ("Add",)),
        ("addition", ("Add",)),
    ]


def test_shapes_that_are_calculated_are_no_layers() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Shape", ["r"], ["all"]),
        helper.make_node("Gather", ["all", "zero"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["r", "shape"], ["y"]),
    ]
    made = graph(nodes, "y")
    made.initializer.append(numpy_helper.from_array(np.array([0]), "zero"))
    made.initializer.append(numpy_helper.from_array(np.array([64]), "rest"))
    assert kinds(made) == [("activation", ("Relu",))]


def test_looking_up_weights_is_a_layer_and_choosing_values_is_none() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Gather", ["words", "i"], ["w"]),
        helper.make_node("Gather", ["w", "first"], ["y"], axis=1),
    ]
    made = graph(nodes, "y", words=np.ones((5, 2)))
    made.initializer.append(numpy_helper.from_array(np.array([0]), "first"))
    assert kinds(made) == [("arithmetic", ("Gather",))]


def test_planes_of_zeros_are_no_connections() -> None:
    weights = np.ones((3, 2, 5, 5))
    weights[0, 1] = weights[2, 0] = weights[1, 1, 0] = 0
    made = graph(
        [helper.make_node("Concat", ["x", "x"], ["xx"], axis=1), helper.make_node("Conv", ["xx", "w", "b"], ["y"])],
        "y",
        w=weights,
        b=np.ones(3),
    )
    *_, convolution = find_groups(made, shapes_of(made))
    assert count_parameters(convolution, constants_of(made)) == (103, "5·5·4 + 3 = 103", (4, 6))


def test_weights_of_8_bits_are_the_numbers_that_they_stand_for() -> None:
    node = helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=0)
    made = graph([node, helper.make_node("Conv", ["x", "w"], ["y"])], "y", scale=np.array([0.5, 2]))
    made.initializer.append(numpy_helper.from_array(np.array([[[[3]]], [[[4]]]], np.int8), "q"))
    made.initializer.append(numpy_helper.from_array(np.array([1, 0], np.int8), "zero"))
    assert constants_of(made)["w"].ravel().tolist() == [1, 8]


def test_lenet5_has_the_papers_layers(tmp_path: Path) -> None:
    shutil.copytree(MODELS / "lenet5", tmp_path / "lenet5")

    folder = write_layers(tmp_path, "lenet5")

    table = json.loads((folder / "layers.json").read_text())
    weighted = [layer for layer in table["layers"] if layer["parameters"]]
    assert [(layer["label"], layer["parameters"]) for layer in weighted] == [
        ("c1", 156), ("", 12), ("c3", 1516), ("", 32), ("c5", 48120), ("f6", 10164), ("", 840)
    ]  # fmt: skip
    # What is committed is what this code makes of the committed network.
    for name in ("1/layers.json", "config.pbtxt", "README.md"):
        assert (tmp_path / "lenet5_layers" / name).read_text() == (MODELS / "lenet5_layers" / name).read_text()


def write_model(folder: Path, made: GraphProto) -> Path:
    (folder / "1").mkdir(parents=True)
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(onnx.shape_inference.infer_shapes(proto), folder / "1" / "model.onnx")
    return folder / "1" / "model.onnx"


def closed(made: GraphProto) -> GraphProto:
    """For batches of 4 only."""
    made.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    return made


def widened(made: GraphProto) -> GraphProto:
    """For pictures of any width."""
    made.input[0].type.tensor_type.shape.dim[3].dim_param = "width"
    return made


RELU = helper.make_node("Relu", ["x"], ["y"])


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (graph([helper.make_node("Identity", ["x"], ["y"])], "y"), "no layers"),
        (closed(graph([RELU], "y")), "batches of 4 only"),
        (widened(graph([RELU], "y")), "leaves sizes open"),
    ],
)
def test_what_cannot_be_looked_into_is_refused_and_nothing_is_written(
    made: GraphProto, sentence: str, tmp_path: Path
) -> None:
    write_model(tmp_path / "m", made)

    with pytest.raises(TrainingError, match=sentence):
        write_layers(tmp_path, "m")

    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_graph_that_answers_otherwise_is_no_proof(tmp_path: Path) -> None:
    write_model(tmp_path / "m", graph([RELU], "y"))
    other = write_model(tmp_path / "other", graph([helper.make_node("Sigmoid", ["x"], ["y"])], "y"))
    original = read_original(tmp_path, "m", None)

    prove(original, original.graph)
    with pytest.raises(TrainingError, match="m answers otherwise"):
        prove(original, other.read_bytes())


def test_what_does_not_begin_with_the_batch_is_no_output(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0, 2, 3]),
        helper.make_node("Relu", ["turned"], ["r"]),
        helper.make_node("Transpose", ["r"], ["back"], perm=[1, 0, 2, 3]),
        helper.make_node("Sigmoid", ["back"], ["y"]),
    ]
    write_model(tmp_path / "m", graph(nodes, "y"))

    table = json.loads((write_layers(tmp_path, "m") / "layers.json").read_text())

    assert [layer["output"] for layer in table["layers"]] == ["y"]


def test_a_name_that_no_configuration_can_tell_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / 'm"', graph([RELU], "y"))

    with pytest.raises(TrainingError, match="cannot be a model's name"):
        write_layers(tmp_path, 'm"', layers_name="other")


def test_layers_that_are_there_are_not_overwritten(tmp_path: Path) -> None:
    write_model(tmp_path / "m", graph([RELU], "y"))
    folder = write_layers(tmp_path, "m")

    with pytest.raises(TrainingError, match="m_layers/1 exists"):
        write_layers(tmp_path, "m")

    assert write_layers(tmp_path, "m", layers_name="other") == tmp_path / "other" / "1"
    assert (folder / "layers.json").exists()


def test_weights_in_other_files_come_along_and_names_that_are_taken_are_not_used(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "filters"], ["convolution_1"]),
        helper.make_node("Relu", ["convolution_1"], ["r"]),
        helper.make_node("Flatten", ["r"], ["y"]),
    ]
    path = write_model(tmp_path / "m", graph(nodes, "y", filters=np.ones((2, 1, 5, 5))))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)

    folder = write_layers(tmp_path, "m")

    assert [file.name for file in sorted(folder.iterdir())] == ["layers.json", "model.onnx"]
    table = json.loads((folder / "layers.json").read_text())
    assert [layer["output"] for layer in table["layers"]] == ["convolution_1_layer", "y"]
    assert table["layers"][1]["output_shape"] == [32]
    assert table["filters"]["output"] == "filters_layer"
