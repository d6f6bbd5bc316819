"""A model that shows what happens inside of another one: the same input, and every layer's values as an output.

    python -m training layers lenet5 [--version N] [--name lenet5_layers]

writes `lenet5_layers/<version>/` with `model.onnx` and `layers.json`, the table of the layers, which the server shows
with the version's card. It is made of `model.onnx` alone, whatever exported it. The filters of the first convolution
are an output as well: they are the same for every picture, but an output of a model of batches has an axis for those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf import text_format
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from proto import model_config_pb2 as pb
from training.export.graph import checked
from training.export.layer_groups import Group, find_groups
from training.export.layer_table import LAYERS_FILENAME, Filters, Layer, LayerTable, describe
from training.export.parity import TOLERANCE, Runner, probes
from training.export.repository import (
    OPEN,
    Interface,
    Port,
    config,
    declared_ports,
    graph_ports,
    newest_version,
    refuse_impossible_name,
    write_version,
)
from training.files import TrainingError

SUFFIX = "_layers"
FILTERS = "filters"
MAX_BATCH_SIZE = 1
"""Every layer of one picture is much already: 60 MB in VGG-16."""
MOST_BYTES = (1 << 31) - 1
"""Of a protobuf message."""
PROBED_BATCH = 3
"""By which the axis of the batch is told from others."""
DTYPES = {"TYPE_FP32": torch.float32, "TYPE_UINT8": torch.uint8}


@dataclass(frozen=True, slots=True)
class Original:
    """The version that is looked into."""

    name: str
    version: int
    graph: bytes
    interface: Interface
    labels: tuple[str, ...]
    threads: int | None
    pictures: Mapping[str, str]
    """Its `image.*` parameters."""

    @property
    def dtype(self) -> torch.dtype:
        """Of its input."""
        return DTYPES[self.interface.input.datatype]


def write_layers(repository: Path, name: str, version: int | None = None, layers_name: str | None = None) -> Path:
    """Write the version's (default: the newest's) layers as a model, and return its folder; or raise TrainingError."""
    layers_name = layers_name or name + SUFFIX
    original = read_original(repository, name, version)
    target = repository / layers_name / str(original.version)
    if target.exists():
        raise TrainingError(f"{target} exists: these layers are written already. Remove it, or choose another --name.")
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(original.graph))
    found = find_groups(proto.graph, shapes_of(proto.graph))
    shapes = measure(original, [name for group in found for name in (group.input, group.output)])
    groups = [group for group in found if group.output in shapes]
    if not groups:
        raise TrainingError(f"{name} has no layers: its graph only turns its input around. Nothing was written.")
    outputs, filters_name = name_outputs(groups, proto.graph)
    constants = constants_of(proto.graph)
    shown = first_filters(groups, outputs, filters_name, constants)
    graph = add_outputs(proto, groups, outputs, constants, shown)
    prove(original, graph)
    ends = [*(group.output for group in groups[:-1]), outputs[-1]]
    table = LayerTable(
        name,
        original.version,
        tuple(
            describe(group, output, shapes.get(group.input, ()), shapes[end], constants)
            for group, output, end in zip(groups, outputs, ends, strict=True)
        ),
        shown,
    )
    return publish(original, repository, layers_name, graph, table)


def read_original(repository: Path, name: str, version: int | None) -> Original:
    """What is in the repository; raise TrainingError for a model that cannot be looked into."""
    refuse_impossible_name(name)
    folder = repository / name
    version = newest_version(folder) if version is None else version
    path = folder / str(version) / "model.onnx"
    if not path.exists():
        raise TrainingError(f"{path} is not there. Choose a --version that is.")
    declared, found = declared_ports(folder / "config.pbtxt"), graph_ports(path)
    ends = {kind: declared[kind] or found[kind] for kind in declared}
    for kind, ports in ends.items():
        if len(ports) != 1:
            raise TrainingError(f"{name} has {len(ports)} {kind}s; a model with layers to look at has one.")
    (given,), (answered,) = ends["input"], ends["output"]
    if given.datatype not in DTYPES:
        raise TrainingError(f"{name}: its input {given} is neither float32 nor bytes.")
    if OPEN in given.dims:
        raise TrainingError(
            f"{name}: its input {given} leaves sizes open, so that no formula has its numbers. "
            "Export the network again, without --any-size and by another --name."
        )
    graph = read_graph(path)
    labels = folder / "labels.txt"
    parameters = read_parameters(folder / "config.pbtxt")
    threads = parameters.get("intra_op_thread_count")
    return Original(
        name,
        version,
        graph,
        Interface(given, answered),
        tuple(labels.read_text().splitlines()) if labels.exists() else (),
        int(threads) if threads is not None and threads.isdecimal() else None,
        {key: text for key, text in parameters.items() if key.startswith("image.")},
    )


def read_graph(path: Path) -> bytes:
    """The file, with weights that lie in other files; raise TrainingError unless batches may be of any size."""
    proto = onnx.load(path)
    batch = proto.graph.input[0].type.tensor_type.shape.dim[0]
    if batch.HasField("dim_value"):
        raise TrainingError(
            f"{path} is of batches of {batch.dim_value} only. Export it with an open first axis of its input."
        )
    if proto.ByteSize() > MOST_BYTES:
        raise TrainingError(f"{path} has more than 2 GB of weights, which one ONNX file cannot hold.")
    return bytes(proto.SerializeToString())


def read_parameters(path: Path) -> dict[str, str]:
    """Those of a config.pbtxt that can be read; none where it is not there."""
    message = pb.ModelConfig()
    if path.exists():
        text_format.Parse(path.read_text(encoding="utf-8"), message)
    return {key: parameter.string_value for key, parameter in sorted(message.parameters.items())}


def shapes_of(graph: onnx.GraphProto) -> dict[str, tuple[int | None, ...]]:
    """Of tensors, as far as the graph says."""
    values = (*graph.input, *graph.value_info, *graph.output)
    shapes: dict[str, tuple[int | None, ...]] = {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim
        )
        for value in values
        if value.type.tensor_type.HasField("shape")
    }
    return {**shapes, **{tensor.name: tuple(tensor.dims) for tensor in graph.initializer}}


def constants_of(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    """Weights by the names by which layers read them; those that are kept in 8 bits, as the numbers they stand for."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "DequantizeLinear" and all(name in constants for name in node.input):
            constants[node.output[0]] = dequantized(node, constants)
    return constants


def dequantized(node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """(q − zero point) · scale, along the node's axis."""
    quantized, scale, *zero = (constants[name].astype(np.float32) for name in node.input)
    axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 1)
    along = [1] * quantized.ndim
    if scale.ndim:
        along[axis] = len(scale)
    shift = zero[0].reshape(along) if zero else np.float32(0)
    return (quantized - shift) * scale.reshape(along)


def name_outputs(groups: Sequence[Group], graph: onnx.GraphProto) -> tuple[list[str], str]:
    """The layers' outputs: "convolution_1", and so on; the last layer's is the model's own. Then the filters'."""
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    counts: Counter[str] = Counter()

    def free(name: str) -> str:
        return free(f"{name}_layer") if name in taken else name

    names = []
    for group in groups[:-1]:
        counts[group.kind] += 1
        names.append(free(f"{group.kind}_{counts[group.kind]}"))
    return [*names, graph.output[0].name], free(FILTERS)


def first_filters(
    groups: Sequence[Group], outputs: Sequence[str], name: str, constants: Mapping[str, NDArray[Any]]
) -> Filters | None:
    """Of the first convolution, if its weights are in the file."""
    for group, output in zip(groups, outputs, strict=True):
        weights = constants.get(next(iter(group.constants), ""))
        if group.kind == "convolution" and weights is not None:
            return Filters(name, output, weights.shape)
    return None


def add_outputs(
    proto: onnx.ModelProto,
    groups: Sequence[Group],
    outputs: Sequence[str],
    constants: Mapping[str, NDArray[Any]],
    shown: Filters | None,
) -> bytes:
    """The graph with an output in float32 for each layer, behind its own one, and the filters last."""
    graph = proto.graph
    for group, output in zip(groups[:-1], outputs[:-1], strict=True):
        graph.node.append(helper.make_node("Cast", [group.output], [output], to=TensorProto.FLOAT))
        graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    if shown is not None:
        group = groups[outputs.index(shown.layer)]
        weights = constants[group.constants[0]].astype(np.float32)
        add_filters(graph, shown.output, weights)
    return checked(onnx.shape_inference.infer_shapes(proto))


def add_filters(graph: onnx.GraphProto, output: str, weights: NDArray[np.float32]) -> None:
    """(K, C, F, F) → an output (batch, K, C, F, F)."""
    first, shape, batch, batched = (f"{output}_{part}" for part in ("first", "shape", "batch", "batch_shape"))
    for name, array in ((f"{output}_weights", weights), (first, np.array([0])), (shape, np.array(weights.shape))):
        graph.initializer.append(numpy_helper.from_array(array, name))
    graph.node.extend(
        [
            helper.make_node("Shape", [graph.input[0].name], [f"{output}_input_shape"]),
            helper.make_node("Gather", [f"{output}_input_shape", first], [batch]),
            helper.make_node("Concat", [batch, shape], [batched], axis=0),
            helper.make_node("Expand", [f"{output}_weights", batched], [output]),
        ]
    )
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", *weights.shape]))


def prove(original: Original, graph: bytes) -> None:
    """Raise unless the graph still answers as the original.

    Both are run as they are written: an output in the midst of a layer keeps ONNX Runtime from joining its nodes, which
    float16 and int8 round otherwise.
    """
    before, after = (Runner(each, threads=1, as_written=True) for each in (original.graph, graph))
    for _, images in probes(original.interface.input.dims, (1, 2), dtype=original.dtype):
        expected = before(images)
        if not np.allclose(after(images), expected, rtol=0, atol=TOLERANCE * np.abs(expected).max()):
            raise TrainingError(f"{original.name} answers otherwise with its layers as outputs. Nothing was written.")


def measure(original: Original, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of a row of tensors inside of the original, as ONNX Runtime makes them.

    Without those that do not begin with the batch, as what an LSTM computes along its sequence: outputs have to.
    """
    proto = onnx.load_from_string(original.graph)
    given = original.interface.input
    ends = {given.name, *(value.name for value in proto.graph.output)}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in ends)
    probe = torch.zeros(PROBED_BATCH, *given.dims, dtype=original.dtype)
    try:
        values = Runner(proto.SerializeToString()).all(probe)
    except Exception as error:
        raise TrainingError(f"ONNX Runtime does not run {original.name}: {error}. Nothing was written.") from error
    rows = {name: value.shape[1:] for name, value in values.items() if value.shape[:1] == (PROBED_BATCH,)}
    return {given.name: given.dims, **rows}


def publish(original: Original, repository: Path, name: str, graph: bytes, table: LayerTable) -> Path:
    """Write the version, by the original's number."""
    dims = {layer.output: layer.output_shape for layer in table.layers[:-1]}
    if table.filters is not None:
        dims[table.filters.output] = table.filters.shape
    interface = Interface(
        original.interface.input,
        original.interface.output,
        tuple(Port(output, "TYPE_FP32", shape) for output, shape in dims.items()),
    )
    settings = config(
        name,
        interface,
        original.threads,
        original.pictures,
        labelled=bool(original.labels),
        max_batch_size=MAX_BATCH_SIZE,
        layers_of=original.name,
    )
    files = {"model.onnx": graph, LAYERS_FILENAME: table.to_json()}
    card = describe_model(name, table)
    target = write_version(repository, name, original.version, files, interface, settings, original.labels, card)
    print(f"{target}: {len(table.layers)} layers, {len(graph)} bytes")
    return target


def describe_model(name: str, table: LayerTable) -> str:
    """README.md."""
    lines = "\n".join(_row(layer) for layer in table.layers)
    return f"""\
# {name}

`{table.model}`, version {table.version}, with the values of every layer as outputs: for looking inside of it. The last
layer's output is the original's. `{LAYERS_FILENAME}` in the version's folder has this table for programs.

| output | in the network | input → output | size | parameters |
|---|---|---|---|---|
{lines}

    python -m training layers {table.model}
"""


def _row(layer: Layer) -> str:
    """Of the table in README.md."""
    shapes = " → ".join("×".join(map(str, shape)) for shape in (layer.input_shape, layer.output_shape))
    sizes = "; ".join(dict.fromkeys(layer.formulas))
    parameters = layer.parameters_formula or str(layer.parameters or "")
    return f"| `{layer.output}` | {layer.label} | {shapes} | {sizes} | {parameters} |"
