"""Export: one dynamic graph, refused when it disagrees with torch, in the form that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from training.export import lower_precision, measure, parity
from training.export.graph import Served, to_onnx
from training.export.measure import Accuracy
from training.export.parity import Difference, Probe, compare, probes, worst_of
from training.export.publish import refuse_loss
from training.export_options import OPSETS, ExportOptions
from training.files import TrainingError
from training.nets import lenet5

TRAINED = parity.TRAINED_TOLERANCE


@pytest.fixture(scope="module")
def model() -> Served:
    torch.manual_seed(0)
    return Served(lenet5.build("lenet5")).eval()


@pytest.fixture(scope="module")
def graph(model: Served) -> bytes:
    return to_onnx(model, torch.zeros(2, 1, 32, 32))


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def tried(pictures: torch.Tensor) -> Iterator[Probe]:
    return probes((1, 32, 32), (1, 7, 64), real=pictures)


def test_the_graph_names_its_ends_and_leaves_the_batch_open(graph: bytes) -> None:
    proto = onnx.load_from_string(graph)
    ends = {end.name: end.type.tensor_type.shape.dim for end in (*proto.graph.input, *proto.graph.output)}
    assert {name: [dim.dim_param or dim.dim_value for dim in dims] for name, dims in ends.items()} == {
        "input": ["batch", 1, 32, 32],
        "probabilities": ["batch", 10],
    }


def test_the_graph_is_folded_and_carries_nothing_of_the_machine_that_made_it(graph: bytes) -> None:
    operators = {node.op_type for node in onnx.load_from_string(graph).graph.node}
    assert not operators & {"ScatterND", "ScatterElements", "ConstantOfShape", "Constant"}
    assert len(graph) < 300_000
    assert str(Path(__file__).parents[2]).encode() not in graph and b"stack_trace" not in graph


def test_onnx_runtime_agrees_at_each_batch_size_on_random_and_real_inputs(
    graph: bytes, model: Served, pictures: torch.Tensor
) -> None:
    differences = compare("m", graph, model, tried(pictures))
    assert [(d.batch, d.inputs) for d in differences] == [(b, kind) for b in (1, 7, 64) for kind in ("random", "real")]
    assert worst_of("m", differences, TRAINED).worst <= TRAINED


def test_accuracy_is_that_of_all_batches_together(graph: bytes, model: Served, pictures: torch.Tensor) -> None:
    labels = torch.arange(64) % 10
    with torch.no_grad():
        predicted = model(pictures).argmax(dim=1)
    batches = zip(pictures.split(25), labels.split(25), strict=True)
    found = measure.accuracy(graph, batches, 10)
    assert (found.right, found.count) == (int((predicted == labels).sum()), 64)
    assert found.confusion.sum(axis=0).tolist() == predicted.bincount(minlength=10).tolist()


def test_few_real_inputs_fill_a_large_batch(pictures: torch.Tensor) -> None:
    (_, _), (_, real) = probes((1, 32, 32), (7,), real=pictures[:3])
    assert torch.equal(real, pictures[[0, 1, 2, 0, 1, 2, 0]])


def test_another_network_than_the_exported_one_is_refused(graph: bytes, pictures: torch.Tensor) -> None:
    torch.manual_seed(1)
    another = Served(lenet5.build("lenet5")).eval()
    with pytest.raises(
        TrainingError, match=r"m is not exported: ONNX Runtime and torch differ by .*batch 1, .*1e-05 is allowed"
    ):
        worst_of("m", compare("m", graph, another, tried(pictures)), TRAINED)


def test_a_difference_on_real_inputs_alone_is_refused(graph: bytes, model: Served, pictures: torch.Tensor) -> None:
    def wrong_on_the_first_picture(images: torch.Tensor) -> torch.Tensor:
        return model(images) * (1 + 2e-5 * torch.equal(images[0], pictures[0]))

    differences = compare("m", graph, wrong_on_the_first_picture, tried(pictures))
    with pytest.raises(TrainingError, match="real inputs") as refusal:
        worst_of("m", differences, TRAINED)
    assert "random" not in str(refusal.value)


def test_nan_is_refused() -> None:
    with pytest.raises(TrainingError, match="nan"):
        worst_of("m", [Difference(float("nan"), 1, "real"), Difference(0.0, 7, "real")], TRAINED)


def test_a_network_that_answers_nothing_but_zeros_is_refused(graph: bytes, pictures: torch.Tensor) -> None:
    with pytest.raises(TrainingError, match="answers 0 to everything"):
        compare("m", graph, lambda images: torch.zeros(len(images), 10), tried(pictures))


def test_probabilities_add_up_and_keep_the_order_of_the_scores(model: Served, pictures: torch.Tensor) -> None:
    with torch.no_grad():
        probabilities, scores = model(pictures), model.network(pictures)
    assert np.allclose(probabilities.sum(dim=1), 1, atol=1e-6)
    assert torch.equal(probabilities.argmax(dim=1), scores.argmax(dim=1))


def test_float16_halves_the_file_keeps_the_ends_and_stays_near(
    graph: bytes, model: Served, pictures: torch.Tensor
) -> None:
    half = lower_precision.to_float16(graph)
    assert len(half) < 0.6 * len(graph)
    proto = onnx.load_from_string(half)
    assert {end.type.tensor_type.elem_type for end in (*proto.graph.input, *proto.graph.output)} == {TensorProto.FLOAT}
    assert {tensor.data_type for tensor in proto.graph.initializer} >= {TensorProto.FLOAT16}
    worst = worst_of("m", compare("m", half, model, tried(pictures)), parity.HALF_TOLERANCE).worst
    assert worst > TRAINED, "nothing was rounded"


def test_int8_quantises_each_layer_with_weights_the_same_way_each_time(graph: bytes, pictures: torch.Tensor) -> None:
    small = lower_precision.to_int8("m", graph, pictures)
    assert small == lower_precision.to_int8("m", graph, pictures)
    assert len(small) < 0.4 * len(graph)
    proto = onnx.load_from_string(small)
    made_by = {output: node for node in proto.graph.node for output in node.output}
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    weighted = [node for node in proto.graph.node if node.op_type in lower_precision.WEIGHTED]
    assert [node.op_type for node in weighted] == ["Conv", "Conv", "Conv", "Gemm"]
    for node in weighted:
        image, kernel = (made_by[name] for name in node.input[:2])
        assert image.op_type == kernel.op_type == "DequantizeLinear"
        assert stored[kernel.input[0]].data_type == TensorProto.INT8
        assert list(stored[kernel.input[1]].dims) == [stored[kernel.input[0]].dims[0]], "a scale for each channel"


def test_a_graph_without_layers_to_quantise_is_refused() -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("input", "y")]
    node = helper.make_node("Tanh", ["input"], ["y"])
    opset = helper.make_opsetid("", 20)
    proto = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]), opset_imports=[opset], ir_version=10)
    with pytest.raises(TrainingError, match="m has no layer that could be quantised"):
        lower_precision.to_int8("m", proto.SerializeToString(), torch.rand(4, 4))


def test_what_comes_before_the_first_weights_is_found_whatever_lies_beside_it() -> None:
    nodes = [
        helper.make_node("Cast", ["pixels"], ["a"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Add", ["a", "mean"], ["b"], name="normalise"),
        helper.make_node("Conv", ["b", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["d"], name="relu"),
        helper.make_node("Add", ["d", "b"], ["e"], name="residual"),
    ]
    assert lower_precision.before_the_first_weights(helper.make_graph(nodes, "g", [], [])) == ["cast", "normalise"]


def test_nodes_are_sorted_behind_what_they_read() -> None:
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])]
    nodes = [helper.make_node("Neg", [one], [other]) for one, other in (("b", "c"), ("a", "b"), ("x", "a"))]
    graph = helper.make_graph(nodes, "g", given, [])
    lower_precision.sort(graph)
    assert [node.output[0] for node in graph.node] == ["a", "b", "c"]


def accuracy(right: int, count: int = 100) -> Accuracy:
    return Accuracy(np.array([[right, count - right], [0, 0]]))


def test_a_loss_is_allowed_up_to_the_bound_and_refused_beyond(capsys: pytest.CaptureFixture[str]) -> None:
    options = ExportOptions(precision="int8", max_accuracy_drop=0.02)
    for after in (98, 96, 100):
        refuse_loss("m", accuracy(98), accuracy(after), options)
    assert "98.00% (98 of 100) in float32" in capsys.readouterr().out
    with pytest.raises(
        TrainingError, match=r"m is not exported: .*95\.00% \(95 of 100\) right in int8.*2\.00% less is"
    ):
        refuse_loss("m", accuracy(98), accuracy(95), options)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"opset": OPSETS[0] - 1}, "--opset 17: 18 to 23 can be written"),
        ({"opset": OPSETS[-1] + 1}, "--opset 24: 18 to 23"),
        ({"output": "scores"}, "output 'scores' is none of softmax, logits"),
        ({"input": "bytes"}, "input 'bytes' is none of tensor, pixels"),
        ({"precision": "int4"}, "precision 'int4' is none of float32, float16, int8"),
        ({"max_accuracy_drop": -0.1}, "--max-accuracy-drop -0.1: a part of 1"),
        ({"max_accuracy_drop": float("nan")}, "--max-accuracy-drop nan"),
    ],
)
def test_forms_that_there_are_not_are_refused(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        ExportOptions(**fields)  # type: ignore[arg-type]


def test_a_form_tells_the_flags_that_ask_for_it() -> None:
    assert ExportOptions().flags() == []
    form = ExportOptions("logits", "pixels", any_size=True, opset=21, precision="int8", max_accuracy_drop=0.02)
    assert form.flags() == [
        "--input pixels", "--output logits", "--opset 21", "--any-size", "--int8", "--max-accuracy-drop 0.02"
    ]  # fmt: skip
