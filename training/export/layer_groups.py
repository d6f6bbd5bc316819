"""Which nodes of an ONNX graph a person would call one layer.

Exporters write a layer as one node or as several: an activation of LeCun's as product, tanh, product; a bias as a sum;
a subsampling with its coefficients as mean, product, sum. What only turns tensors around (`GLUE`) is no layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
from onnx import NodeProto

KINDS = {
    "convolution": "Conv ConvTranspose",
    "pooling": "MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool",
    "dense": "Gemm MatMul",
    "activation": "Relu LeakyRelu PRelu Elu Selu Celu Gelu Mish Clip "
    "Sigmoid HardSigmoid HardSwish Tanh Softplus Softsign",
    "normalization": "BatchNormalization InstanceNormalization LayerNormalization GroupNormalization LRN",
    "softmax": "Softmax LogSoftmax",
    "recurrent": "LSTM GRU RNN",
    "concatenation": "Concat",
    "addition": "Add",
}
"""Operators that begin a layer, by its kind. An `Add` does where it has no constant summand, as after a shortcut; the
mean of a map is a pooling as well."""
ARITHMETIC = "arithmetic"
"""The kind of all other layers: a chain of operators, which are named."""
GLUE = (
    "Cast",
    "DequantizeLinear",
    "Dropout",
    "Flatten",
    "Gather",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
"""Operators that keep the values that they read. What looks its values up in a constant does not."""
ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Neg", "Pow", "Sqrt")
MAPS_RANK = 4
"""(batch, maps, height, width)."""

_KIND_OF = {operator: kind for kind, operators in KINDS.items() for operator in operators.split()}

Dims = tuple[int | None, ...]
"""None: a dimension that is open."""


@dataclass(slots=True)
class Group:
    """Consecutive nodes that are one layer."""

    kind: str
    nodes: list[NodeProto]
    input: str
    """The tensor that it reads; the first, if there are several."""
    output: str
    constants: list[str] = field(default_factory=list)
    """What it reads besides: weights, in the nodes' order."""

    @property
    def operators(self) -> tuple[str, ...]:
        """ONNX's names of what it does."""
        return tuple(node.op_type for node in self.nodes)


def find_groups(graph: onnx.GraphProto, shapes: Mapping[str, Dims]) -> list[Group]:
    """The layers, in the graph's order. `shapes` are of tensors, as far as they are known."""
    return _Grouping(graph, shapes).groups


class _Grouping:
    """One walk through a graph."""

    def __init__(self, graph: onnx.GraphProto, shapes: Mapping[str, Dims]) -> None:
        self.groups: list[Group] = []
        self._shapes = shapes
        self._constants = {"", *(tensor.name for tensor in graph.initializer)}
        self._readers = Counter(name for node in graph.node for name in node.input)
        self._readers.update(value.name for value in graph.output)
        self._next = {name: node for node in graph.node for name in node.input}
        self._made_by: dict[str, Group] = {}
        """By tensor: the layer whose output it is, be it turned around by glue."""
        self._ahead: dict[str, NodeProto] = {}
        """By tensor: the product with a scalar that belongs to the activation behind it."""
        for node in graph.node:
            self._visit(node)

    def _visit(self, node: NodeProto) -> None:
        operator, output = node.op_type, next(name for name in node.output if name)
        changing = [name for name in node.input if name not in self._constants]
        if not changing or operator == "Shape":
            self._constants.update(node.output)  # weights that are dequantised, shapes that are computed
            return
        source = changing[0]
        producer = self._made_by.get(source)
        if operator in GLUE and node.input[0] == source:
            if producer is not None:
                self._made_by[output] = producer
        elif self._scales_what_an_activation_reads(node):
            self._ahead[output] = node
        elif producer is not None and self._continues(producer, node, changing):
            self._extend(producer, node)
        else:
            kind = self._kind(operator, changing)
            group = Group(kind, [], source, output)
            if source in self._ahead:
                product = self._ahead.pop(source)
                group.input = next(name for name in product.input if name not in self._constants)
                self._extend(group, product)
            self._extend(group, node)
            self.groups.append(group)

    def _kind(self, operator: str, changing: list[str]) -> str:
        if operator == "Add" and len(changing) == 1:
            return ARITHMETIC
        if operator == "ReduceMean" and len(self._shapes.get(changing[0], ())) == MAPS_RANK:
            return "pooling"
        return _KIND_OF.get(operator, ARITHMETIC)

    def _extend(self, group: Group, node: NodeProto) -> None:
        group.nodes.append(node)
        group.constants += [name for name in node.input if name and name in self._constants]
        group.output = next(name for name in node.output if name)
        self._made_by[group.output] = group

    def _scales_what_an_activation_reads(self, node: NodeProto) -> bool:
        output = node.output[0]
        scalar = any(self._shapes.get(name) == () and name in self._constants for name in node.input)
        reader = self._next.get(output)
        return (
            node.op_type == "Mul"
            and scalar
            and self._readers[output] == 1
            and reader is not None
            and _KIND_OF.get(reader.op_type) == "activation"
        )

    def _continues(self, producer: Group, node: NodeProto, changing: list[str]) -> bool:
        """Whether the node is another step of the layer before it, whose output nobody else reads."""
        (source, *others) = changing
        if others or self._readers[source] > 1 or self._kind(node.op_type, changing) != ARITHMETIC:
            return False
        if producer.kind == ARITHMETIC:
            return True
        same_shape = self._shapes.get(node.output[0], ()) == self._shapes.get(producer.output)
        return node.op_type in ELEMENTWISE and same_shape
