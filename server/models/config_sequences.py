"""The `sequence_batching` of config.pbtxt. A part of `config`, for its length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, prod
from typing import Final

import numpy as np

from proto import model_config_pb2 as pb
from server.errors import LoadFailed
from server.models.config_fields import FieldInvalid
from server.models.config_types import ControlConfig, ControlKind, SequenceBatching, StateConfig, TensorConfig
from server.tensors import (
    BOOL,
    BYTES,
    FP32,
    INT32,
    INT64,
    UINT32,
    UINT64,
    Array,
    DataType,
    byte_size,
    decode_bytes_elements,
)

FIELD: Final = "sequence_batching"
DEFAULT_IDLE_US = 1_000_000
"""Triton's."""

MAX_STATE_BYTES = 16 << 30
"""Of all states that a version may hold at once. More cannot be meant: a number is wrong."""
TEXT_BYTES = 64
"""What an element of BYTES takes at least: an object of Python's, and where it lies."""
MAX_STATE_DIMS = 64
"""numpy's own limit."""

MAX_INITIAL_BYTES = 1 << 30
"""Of what one state begins with."""

MAX_SLOTS = 1 << 20
"""Of all instances together. Each has its place in several tables."""

DataTypes = Mapping[pb.DataType.ValueType, DataType]
ReadFile = Callable[[str, int], bytes]
"""Reads a file of the model's folder `initial_state`, of at most so many bytes. Raises `LoadFailed`."""

_FALSE_TRUE = {"int32_false_true": INT32, "fp32_false_true": FP32, "bool_false_true": BOOL}
_CORRELATION_IDS = (UINT64, INT64, UINT32, INT32, BYTES)


def read_sequences(
    message: pb.ModelConfig,
    parameters: Mapping[str, str],
    datatypes: DataTypes,
    read_file: ReadFile,
    instances: int,
) -> SequenceBatching | None:
    """How the model batches sequences; None where it has none. Raises FieldInvalid.

    The message comes back with Triton's defaults in place of what is not said.
    """
    if not message.HasField(FIELD):
        return None
    batching = message.sequence_batching
    for key in ("slo_ms", "split_oversize"):
        if parameters.get(key, "false") != "false":
            raise FieldInvalid(f"parameters['{key}']", f"cannot go with {FIELD}; remove one of the two")
    if any(key.startswith("image.") for key in parameters):
        raise FieldInvalid("parameters['image.*']", f"cannot go with {FIELD}; remove one of the two")
    batching.max_sequence_idle_microseconds = batching.max_sequence_idle_microseconds or DEFAULT_IDLE_US
    most = max(1, message.max_batch_size)
    oldest = batching.WhichOneof("strategy_choice") == "oldest"
    slots = _candidates(batching.oldest, most) if oldest else most
    if slots * instances > MAX_SLOTS:
        field = f"{FIELD}.oldest.max_candidate_sequences" if oldest else "max_batch_size"
        raise FieldInvalid(field, f"comes to {slots * instances} sequences at a time, and {MAX_SLOTS} are allowed")
    _check_state_bytes(batching.state, slots * instances, datatypes)
    states = _states(batching.state, most, datatypes, read_file)
    return SequenceBatching(
        max_idle_us=batching.max_sequence_idle_microseconds,
        controls=_controls(batching.control_input, datatypes),
        states=states,
        slots=slots,
        fixed_slots=not oldest,
        min_ready=0 if oldest else _min_ready(batching.direct, slots),
        max_queue_delay_us=(batching.oldest if oldest else batching.direct).max_queue_delay_microseconds,
        preferred_batch_sizes=_preferred(batching.oldest, most),
        preserve_ordering=batching.oldest.preserve_ordering,
    )


def own_tensors(
    sequence: SequenceBatching | None, inputs: Sequence[TensorConfig]
) -> tuple[Sequence[TensorConfig], Sequence[TensorConfig]]:
    """The graph's inputs and outputs that the server itself fills in and keeps. Raises FieldInvalid."""
    if sequence is None:
        return (), ()
    own = [control.tensor for control in sequence.controls] + [state.input for state in sequence.states]
    names = [tensor.name for tensor in (*inputs, *own)]
    for name in names:
        if names.count(name) > 1:
            raise FieldInvalid(f"sequence_batching: '{name}'", "names two of the inputs, controls and states")
    return own, [state.output for state in sequence.states]


def _candidates(oldest: pb.ModelSequenceBatching.StrategyOldest, most: int) -> int:
    count = oldest.max_candidate_sequences
    if count < 0:
        raise FieldInvalid(
            f"{FIELD}.oldest.max_candidate_sequences", f"must be at least 1, or 0 for the default, not {count}"
        )
    oldest.max_candidate_sequences = count or most
    return oldest.max_candidate_sequences


def _preferred(oldest: pb.ModelSequenceBatching.StrategyOldest, most: int) -> tuple[int, ...]:
    for size in oldest.preferred_batch_size:
        if not 0 < size <= most:
            raise FieldInvalid(
                f"{FIELD}.oldest.preferred_batch_size", f"must be 1 to max_batch_size, which is {most}, not {size}"
            )
    return tuple(oldest.preferred_batch_size)


def _min_ready(direct: pb.ModelSequenceBatching.StrategyDirect, slots: int) -> int:
    share = direct.minimum_slot_utilization
    if not 0 <= share <= 1:
        raise FieldInvalid(f"{FIELD}.direct.minimum_slot_utilization", f"must be 0 to 1, not {share:g}")
    return max(1, ceil(round(share * slots, 6)))  # 0.2 of ten is two, whatever floating point says


def _controls(
    messages: Sequence[pb.ModelSequenceBatching.ControlInput], datatypes: DataTypes
) -> tuple[ControlConfig, ...]:
    controls: dict[ControlKind, ControlConfig] = {}
    for i, message in enumerate(messages):
        field = f"{FIELD}.control_input[{i}]"
        if not message.name:
            raise FieldInvalid(f"{field}.name", "is missing")
        if len(message.control) != 1:
            raise FieldInvalid(f"{field}.control", f"must be one control, not {len(message.control)}")
        control = _control(f"{field}.control", message.name, message.control[0], datatypes)
        if control.kind in controls:
            raise FieldInvalid(f"{field}.control.kind", f"{control.kind.value} is given twice; remove one of the two")
        controls[control.kind] = control
    return tuple(controls.values())


def _control(field: str, name: str, message: pb.ModelSequenceBatching.Control, datatypes: DataTypes) -> ControlConfig:
    kind = ControlKind(pb.ModelSequenceBatching.Control.Kind.Name(message.kind))
    given = [choice for choice in _FALSE_TRUE if getattr(message, choice)]
    if kind is ControlKind.CORRID:
        if given:
            raise FieldInvalid(f"{field}.{given[0]}", f"cannot go with {kind.value}; give its data_type alone")
        datatype = datatypes.get(message.data_type)
        if datatype not in _CORRELATION_IDS:
            allowed = "TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 or TYPE_STRING"
            raise FieldInvalid(f"{field}.data_type", f"must be {allowed} for {kind.value}")
        return ControlConfig(TensorConfig(name, datatype, (1,)), kind)
    if message.data_type != pb.TYPE_INVALID:
        raise FieldInvalid(f"{field}.data_type", f"is for CONTROL_SEQUENCE_CORRID, not for {kind.value}; remove it")
    if len(given) != 1:
        raise FieldInvalid(field, f"must have exactly one of {', '.join(_FALSE_TRUE)} for {kind.value}")
    values = tuple(getattr(message, given[0]))
    if len(values) != 2:
        raise FieldInvalid(f"{field}.{given[0]}", f"must be two values, for false and for true, not {len(values)}")
    return ControlConfig(TensorConfig(name, _FALSE_TRUE[given[0]], (1,)), kind, values)


def _states(
    messages: Sequence[pb.ModelSequenceBatching.State], most: int, datatypes: DataTypes, read_file: ReadFile
) -> tuple[StateConfig, ...]:
    states: list[StateConfig] = []
    for i, message in enumerate(messages):
        field = f"{FIELD}.state[{i}]"
        for name in ("input_name", "output_name"):
            if not getattr(message, name):
                raise FieldInvalid(f"{field}.{name}", "is missing")
        for state in states:
            if message.input_name == state.input.name or message.output_name == state.output.name:
                raise FieldInvalid(field, "has the input_name or output_name of another state; names must differ")
        datatype = datatypes.get(message.data_type)
        if datatype is None:
            raise FieldInvalid(f"{field}.data_type", "is missing or TYPE_INVALID; name the tensor's type")
        dims = tuple(message.dims)
        _check_state_dims(f"{field}.dims", dims, most)
        # Both ask for memory to be used again, which it is where it can be: answers are the same.
        if message.use_growable_memory and not message.use_same_buffer_for_input_output:
            raise FieldInvalid(f"{field}.use_growable_memory", "needs use_same_buffer_for_input_output: true; add it")
        initial = _initial(f"{field}.initial_state", message, datatype, datatypes, read_file)
        states.append(
            StateConfig(
                TensorConfig(message.input_name, datatype, dims),
                TensorConfig(message.output_name, datatype, dims),
                initial,
            )
        )
    return tuple(states)


def _check_state_dims(field: str, dims: tuple[int, ...], most: int) -> None:
    if not dims:
        raise FieldInvalid(field, "is missing; give the state's shape")
    if len(dims) > MAX_STATE_DIMS:
        raise FieldInvalid(field, f"may have {MAX_STATE_DIMS} sizes, not {len(dims)}")
    wrong = [dim for dim in dims if dim == 0 or dim < -1]
    if wrong:
        raise FieldInvalid(field, f"must hold sizes of at least 1, or -1 for any size, not {wrong[0]}")
    if -1 in dims and most > 1:
        raise FieldInvalid(
            field, f"may be -1 only with max_batch_size 0 or 1, not {most}: states of different sizes share no batch"
        )


def _initial(
    field: str,
    message: pb.ModelSequenceBatching.State,
    datatype: DataType,
    datatypes: DataTypes,
    read_file: ReadFile,
) -> Array:
    """What the state is when a sequence starts: zeros or empty text where nothing is said, free dimensions being 1."""
    if len(message.initial_state) > 1:
        raise FieldInvalid(field, f"must be given at most once, not {len(message.initial_state)} times")
    dims = tuple(max(1, dim) for dim in message.dims)
    _check_initial_bytes(field, datatype, dims)
    if not message.initial_state:
        return _zeros(datatype, dims)
    (initial,) = message.initial_state
    if datatypes.get(initial.data_type) is not datatype:
        raise FieldInvalid(f"{field}.data_type", f"must be that of the state, TYPE_{_type_name(datatype)}")
    dims = tuple(initial.dims)
    fits = len(dims) == len(message.dims) and all(
        given >= (want != -1) and want in (-1, given) for want, given in zip(message.dims, dims, strict=True)
    )
    if not fits:
        raise FieldInvalid(
            f"{field}.dims", f"must be sizes that fit the state's dims, {list(message.dims)}, not {list(dims)}"
        )
    _check_initial_bytes(field, datatype, dims)
    choice = initial.WhichOneof("state_data")
    if choice is None:
        raise FieldInvalid(field, "has no data; give one of zero_data and data_file")
    if choice == "zero_data":
        if not initial.zero_data:
            raise FieldInvalid(f"{field}.zero_data", "must be true; to begin with other data, name a data_file")
        return _zeros(datatype, dims)
    try:
        most_bytes = MAX_INITIAL_BYTES if datatype is BYTES else byte_size(datatype, dims)
        return _from_file(read_file(initial.data_file, most_bytes), initial.data_file, datatype, dims)
    except (LoadFailed, ValueError) as error:
        raise FieldInvalid(f"{field}.data_file", f"cannot be used: {error}") from error


def _type_name(datatype: DataType) -> str:
    return "STRING" if datatype is BYTES else datatype.name


def _zeros(datatype: DataType, dims: tuple[int, ...]) -> Array:
    return np.full(dims, "", object) if datatype is BYTES else np.zeros(dims, datatype.dtype)


def _from_file(data: bytes, filename: str, datatype: DataType, dims: tuple[int, ...]) -> Array:
    if datatype is BYTES:
        texts = np.empty(prod(dims), object)
        texts[:] = [element.decode() for element in decode_bytes_elements(data, prod(dims))]
        return texts.reshape(dims)
    size = byte_size(datatype, dims)
    if len(data) != size:
        raise ValueError(f"'{filename}' has {len(data)} bytes, but {datatype.name} {list(dims)} takes {size}")
    array: Array = np.frombuffer(data, datatype.dtype).reshape(dims)
    return array


def _check_initial_bytes(field: str, datatype: DataType, dims: tuple[int, ...]) -> None:
    size = TEXT_BYTES * prod(dims) if datatype is BYTES else byte_size(datatype, dims)
    if size > MAX_INITIAL_BYTES:
        raise FieldInvalid(field, f"takes {size} bytes, and {MAX_INITIAL_BYTES} are allowed; lower the state's dims")


def _check_state_bytes(states: Sequence[pb.ModelSequenceBatching.State], slots: int, datatypes: DataTypes) -> None:
    """Before any of it is taken. What has no size at all is refused elsewhere, by its own field."""
    size = slots * sum(_state_bytes(state, datatypes) for state in states)
    if size > MAX_STATE_BYTES:
        raise FieldInvalid(
            f"{FIELD}.state",
            f"may take {size >> 20} MiB for {slots} sequences at a time, more than {MAX_STATE_BYTES >> 20}; "
            "lower max_batch_size, max_candidate_sequences or the number of instances",
        )


def _state_bytes(message: pb.ModelSequenceBatching.State, datatypes: DataTypes) -> int:
    """What it takes when a sequence starts."""
    datatype = datatypes.get(message.data_type)
    if datatype is None:
        return 0
    dims = message.initial_state[0].dims if message.initial_state else [max(1, dim) for dim in message.dims]
    return (datatype.itemsize or TEXT_BYTES) * prod(max(0, dim) for dim in dims)
