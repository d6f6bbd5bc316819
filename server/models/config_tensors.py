"""The tensors of config.pbtxt: names, types and dimensions of what a model takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from proto import model_config_pb2 as pb
from server.backends.base import GraphTensor
from server.models import autocomplete
from server.models.config_fields import FieldInvalid
from server.models.config_types import TensorConfig
from server.tensors import BYTES, DATATYPES, DataType

DATATYPE_OF: dict[pb.DataType.ValueType, DataType] = {
    pb.DataType.Value("TYPE_STRING" if datatype is BYTES else f"TYPE_{name}"): datatype
    for name, datatype in DATATYPES.items()
}
TYPE_OF = {datatype.name: type_ for type_, datatype in DATATYPE_OF.items()}

Labels = Callable[[str], tuple[str, ...]]
"""Reads the class names in a file of the model's folder. May raise `ConvoyError`."""


def read_tensors(
    kind: str,
    messages: Sequence[pb.ModelInput | pb.ModelOutput],
    graph: Sequence[GraphTensor],
    batching: bool,
    labels: Labels,
) -> tuple[TensorConfig, ...]:
    """Those of one kind, "input" or "output", in order. `graph`: what the model's file says of them, as far as it does.
    Raises `FieldInvalid`."""
    by_name = {tensor.name: tensor for tensor in graph}
    configs: dict[str, TensorConfig] = {}
    for index, message in enumerate(messages):
        name = message.name
        if not name:
            raise FieldInvalid(f"{kind}[{index}].name", "is missing")
        field = f"{kind}['{name}']"
        if name in configs:
            raise FieldInvalid(field, f"is given twice; names of {kind}s must differ")
        configs[name] = _tensor(field, message, by_name.get(name), batching, labels)
    return tuple(configs.values())


def _tensor(
    field: str, message: pb.ModelInput | pb.ModelOutput, graph: GraphTensor | None, batching: bool, labels: Labels
) -> TensorConfig:
    datatype = DATATYPE_OF.get(message.data_type)
    if datatype is None:
        raise FieldInvalid(f"{field}.data_type", "is missing or TYPE_INVALID; name the tensor's type")
    dims = tuple(message.dims)
    if not dims:
        raise FieldInvalid(f"{field}.dims", "is missing; a scalar is dims: [ 1 ] with an empty reshape")
    _check_dims(f"{field}.dims", dims)
    reshape: tuple[int, ...] | None = None
    if message.HasField("reshape"):
        reshape = tuple(message.reshape.shape)
        _check_dims(f"{field}.reshape", reshape)
        if _fixed_sizes(dims) != _fixed_sizes(reshape):
            raise FieldInvalid(f"{field}.reshape", f"has another number of elements than dims: {reshape} and {dims}")
    elif autocomplete.is_plain_scalar(graph, dims, batching):
        reshape = ()
    if isinstance(message, pb.ModelOutput):
        names = labels(message.label_filename) if message.label_filename else ()
        return TensorConfig(message.name, datatype, dims, reshape, names)
    if message.format != pb.ModelInput.FORMAT_NONE and len(dims) != 3:
        raise FieldInvalid(f"{field}.format", f"needs 3 dims, not {len(dims)}")
    return TensorConfig(message.name, datatype, dims, reshape)


def _check_dims(field: str, dims: tuple[int, ...]) -> None:
    wrong = [dim for dim in dims if dim == 0 or dim < -1]
    if wrong:
        raise FieldInvalid(field, f"must hold sizes of at least 1, or -1 for any size, not {wrong[0]}")


def _fixed_sizes(dims: tuple[int, ...]) -> list[int]:
    """Elements between one free dimension and the next. Equal lists reshape into each other whatever the sizes."""
    starts = [0, *(index + 1 for index, dim in enumerate(dims) if dim == -1)]
    ends = [*(start - 1 for start in starts[1:]), len(dims)]
    return [prod(dims[start:end]) for start, end in zip(starts, ends, strict=True)]
