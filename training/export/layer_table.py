"""What a layer is, in the lecture's terms: kernel, stride and padding, shapes by its formula, parameters.

The numbers are written into the formulas, so that one can calculate along: (32 − 5 + 2·0)/1 + 1 = 28.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from training.export.layer_groups import Group

LAYERS_FILENAME = "layers.json"
WINDOWED = ("Conv", "MaxPool", "AveragePool", "LpPool")
"""Operators whose windows slide, by the lecture's formula."""

_WEIGHTS_OF = re.compile(r"(?:(?:network|module|model)\.)?(.+)\.(?:weight|bias)")


@dataclass(frozen=True, slots=True)
class Window:
    """What slides over one axis: the lecture's F, S and P."""

    kernel: int
    stride: int
    padding: tuple[int, int]
    """Zeros before and behind."""
    dilation: int = 1
    ceil: bool = False
    """A rest makes one more place, and is not cut off."""
    pools: bool = False

    def formula(self, size: int, made: int) -> str:
        """How `made` places come of `size`: (W − F + 2P)/S + 1, in numbers. A pooling without padding has no 2P."""
        reach = str(self.kernel) if self.dilation == 1 else f"({self.dilation}·({self.kernel} − 1) + 1)"
        before, behind = self.padding
        padding = f" + 2·{before}" if before == behind else f" + {before} + {behind}"
        if self.pools and before == behind == 0:
            padding = ""
        quotient = f"({size} − {reach}{padding})/{self.stride}"
        free = size - (self.dilation * (self.kernel - 1) + 1) + before + behind
        if free % self.stride:
            quotient = f"⌈{quotient}⌉" if self.ceil else f"⌊{quotient}⌋"
        return f"{quotient} + 1 = {made}"


@dataclass(frozen=True, slots=True)
class Layer:
    """One row of the table. Shapes are of one picture, without the batch."""

    output: str
    """The name of the output that has its values."""
    label: str
    """What the network calls it, by the names of its weights; empty: nobody says."""
    kind: str
    operators: tuple[str, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    kernel: tuple[int, ...] | None
    """Of its windows, along height and width; None, as the next three: it has no windows."""
    stride: tuple[int, ...] | None
    padding: tuple[int, ...] | None
    """Zeros at the top, at the left, at the bottom and at the right."""
    dilation: tuple[int, ...] | None
    formulas: tuple[str, ...]
    """Of height and width."""
    parameters: int
    parameters_formula: str
    """Empty: there is none to write."""
    connections: tuple[int, int] | None
    """How many of its filters' planes are not zero throughout, and of how many: a convolution with a table as C3 of
    LeNet-5. None: all, or it is no convolution."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Of the first convolution."""

    output: str
    layer: str
    """The convolution's own output."""
    shape: tuple[int, ...]
    """(filters, channels, height, width)."""


@dataclass(frozen=True, slots=True)
class LayerTable:
    """`layers.json`."""

    model: str
    """Whose layers these are."""
    version: int
    layers: tuple[Layer, ...]
    filters: Filters | None
    """None: there is no convolution."""

    def to_json(self) -> bytes:
        """A JSON object with the fields as keys."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=1).encode() + b"\n"


def describe(
    group: Group,
    output: str,
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    weights: Mapping[str, NDArray[Any]],
) -> Layer:
    """The table's row of a layer. `weights` are the graph's constants."""
    head = next((node for node in group.nodes if node.op_type in WINDOWED), None)
    windows = () if head is None else windows_of(head, input_shape, output_shape, weights)
    parameters, formula, connections = count_parameters(group, weights)
    return Layer(
        output,
        label_of(group),
        group.kind,
        group.operators,
        input_shape,
        output_shape,
        tuple(window.kernel for window in windows) or None,
        tuple(window.stride for window in windows) or None,
        tuple(window.padding[end] for end in (0, 1) for window in windows) or None,
        tuple(window.dilation for window in windows) or None,
        tuple(
            window.formula(size, made)
            for window, size, made in zip(windows, input_shape[1:], output_shape[1:], strict=False)
        ),
        parameters,
        formula,
        connections,
    )


def windows_of(
    node: onnx.NodeProto, input_shape: Sequence[int], output_shape: Sequence[int], weights: Mapping[str, NDArray[Any]]
) -> tuple[Window, ...]:
    """Of each axis."""
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    axes = len(input_shape) - 1
    kernel = attributes.get("kernel_shape") or weights[node.input[1]].shape[2:]
    strides = attributes.get("strides") or [1] * axes
    dilations = attributes.get("dilations") or [1] * axes
    pads = attributes.get("pads") or [0] * (2 * axes)
    same = attributes.get("auto_pad", b"NOTSET").decode()
    windows = []
    for axis in range(axes):
        padding = (pads[axis], pads[axis + axes])
        if same.startswith("SAME"):
            reach = dilations[axis] * (kernel[axis] - 1) + 1
            missing = max(0, (output_shape[axis + 1] - 1) * strides[axis] + reach - input_shape[axis + 1])
            smaller, larger = missing // 2, missing - missing // 2
            padding = (smaller, larger) if same == "SAME_UPPER" else (larger, smaller)
        ceil, pools = bool(attributes.get("ceil_mode", 0)), node.op_type != "Conv"
        windows.append(Window(kernel[axis], strides[axis], padding, dilations[axis], ceil, pools))
    return tuple(windows)


def count_parameters(group: Group, weights: Mapping[str, NDArray[Any]]) -> tuple[int, str, tuple[int, int] | None]:
    """How many numbers the layer has, the lecture's sum of them, and the connections where some are missing."""
    arrays = [weights[name] for name in group.constants if name in weights]
    numbers = [array for array in arrays if array.ndim and array.dtype.kind == "f"]
    total = sum(array.size for array in numbers)
    if not numbers:
        return 0, "", None
    first, rest = numbers[0], total - numbers[0].size
    biases = f" + {rest}" if rest else ""
    if group.kind == "dense" and first.ndim == 2:
        narrow = first.shape if group.nodes[0].op_type == "MatMul" else first.shape[::-1]
        return total, f"{narrow[0]}·{narrow[1]}{biases} = {total}", None
    if group.kind != "convolution" or first.ndim != 4:
        return total, "", None
    filters, channels, height, width = first.shape
    made = int(np.count_nonzero(np.any(first != 0, axis=(2, 3))))
    if made == filters * channels:
        return total, f"{height}·{width}·{channels}·{filters}{biases} = {total}", None
    total = height * width * made + rest
    return total, f"{height}·{width}·{made}{biases} = {total}", (made, filters * channels)


def label_of(group: Group) -> str:
    """What the weights are called, without what all of them are."""
    found = (_WEIGHTS_OF.fullmatch(name) for name in group.constants)
    return next((match[1] for match in found if match), "")
