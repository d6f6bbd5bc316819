"""The `model_warmup` of config.pbtxt. A part of `config`, for its length."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from proto import model_config_pb2 as pb
from server.models.config_fields import FieldInvalid
from server.models.config_types import Fill, WarmupInput, WarmupSample
from server.tensors import DataType

MAX_RUNS = 10_000
"""Of all samples together: other models wait for their turn to be measured meanwhile."""
MAX_INPUT_BYTES = 2 << 30
"""Of one row of a sample: protobuf's limit for a message. No request has more."""
LENGTH_BYTES = 4
"""Of an element of BYTES: what is before it on the wire."""


def read_warmup(
    message: pb.ModelConfig, datatypes: Mapping[pb.DataType.ValueType, DataType]
) -> tuple[WarmupSample, ...]:
    """The samples, in order. Whether they are requests for this model is seen when they run. Raises FieldInvalid."""
    runs = sum(sample.count or 1 for sample in message.model_warmup)
    if runs > MAX_RUNS:
        raise FieldInvalid("model_warmup", f"may run {MAX_RUNS} times in all, not {runs}; lower count")
    return tuple(
        _sample(f"model_warmup[{i}]", sample, message.max_batch_size, datatypes)
        for i, sample in enumerate(message.model_warmup)
    )


def _sample(
    field: str, message: pb.ModelWarmup, max_batch_size: int, datatypes: Mapping[pb.DataType.ValueType, DataType]
) -> WarmupSample:
    most = max(1, max_batch_size)
    if not message.name:
        raise FieldInvalid(f"{field}.name", "is missing; errors name the sample by it")
    if not 1 <= message.batch_size <= most:
        limit = f"1 to max_batch_size, which is {max_batch_size}" if max_batch_size else "1: the model does not batch"
        raise FieldInvalid(f"{field}.batch_size", f"must be {limit}, not {message.batch_size}")
    inputs = tuple(
        _input(f"{field}.inputs['{name}']", name, message.inputs[name], datatypes) for name in sorted(message.inputs)
    )
    return WarmupSample(message.name, message.batch_size, inputs, message.count or 1)


def _input(
    field: str, name: str, message: pb.ModelWarmup.Input, datatypes: Mapping[pb.DataType.ValueType, DataType]
) -> WarmupInput:
    datatype = datatypes.get(message.data_type)
    if datatype is None:
        raise FieldInvalid(f"{field}.data_type", "is missing or TYPE_INVALID; name the tensor's type")
    if any(dim < 1 for dim in message.dims):
        raise FieldInvalid(
            f"{field}.dims", f"must hold sizes of at least 1, also for dimensions that are free, not {message.dims}"
        )
    size = (datatype.itemsize or LENGTH_BYTES) * prod(message.dims)
    if size > MAX_INPUT_BYTES:
        raise FieldInvalid(f"{field}.dims", f"make {size} bytes, and no request may have more than {MAX_INPUT_BYTES}")
    choice = message.WhichOneof("input_data_type")
    if choice is None:
        raise FieldInvalid(field, "has no data; give one of zero_data, random_data and input_data_file")
    fill = Fill(choice)
    if fill is not Fill.FILE and not getattr(message, choice):
        raise FieldInvalid(f"{field}.{choice}", "must be true; to use other data, name them instead")
    return WarmupInput(name, datatype, tuple(message.dims), fill, message.input_data_file)
