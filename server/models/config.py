"""config.pbtxt → frozen `ModelConfig`: parse the text, fill in what the graph says, refuse the unknown and impossible.

Of all rooms but the frontends, only this file and those whose names begin with `config_` know the protobuf message.
Every refusal is a ConfigInvalid that names the file and the field.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from types import MappingProxyType

from google.protobuf import text_format

from proto import model_config_pb2 as pb
from server.backends.base import GraphTensor
from server.errors import ConfigInvalid
from server.models import autocomplete
from server.models.autocomplete import Disagreement
from server.models.config_accelerators import check_graphs, read_accelerators
from server.models.config_batching import (
    read_batching,
    read_objective,
    read_pad_to_bucket,
    read_response_cache,
    read_split_oversize,
)
from server.models.config_ensemble import is_ensemble, read_schedule
from server.models.config_fields import FieldInvalid, check_parameters, refuse_unserved
from server.models.config_instances import check_threads, read_instances
from server.models.config_pictures import read_preprocessing
from server.models.config_sequences import own_tensors, read_sequences
from server.models.config_tensors import DATATYPE_OF, TYPE_OF, Labels, read_tensors
from server.models.config_types import DeviceKind, LoadSettings, ModelConfig, QueuePolicy, TensorConfig, WindowBatching
from server.models.config_warmup import read_warmup
from server.models.versions import All, Latest, Specific, VersionPolicy
from server.tensors import FLOATS

__all__ = [
    "ConfigMessage",
    "DeviceKind",
    "LoadSettings",
    "ModelConfig",
    "QueuePolicy",
    "TensorConfig",
    "WindowBatching",
    "complete",
    "complete_ensemble",
    "load_settings",
    "parse",
]

ConfigMessage = pb.ModelConfig
"""The parsed file, for whoever hands it from `parse` to `load_settings` and `complete`."""

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
MODEL_FILENAME = "model.onnx"
DEFAULT_MAX_BATCH_SIZE = 4  # Triton's, for ONNX models that could batch and do not say

_GRAPH_LEVELS = (-1, 0, 1, 2)
_TAG = re.compile(r"\w+", re.ASCII)
_POSITION = re.compile(r"^\d+:\d+ : ")

ReadFile = Callable[[str, int], bytes]


def parse(text: str, source: str) -> pb.ModelConfig:
    """Read protobuf text format. Raises ConfigInvalid with `source`, line and field."""
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        problem = _POSITION.sub("", str(error))
        raise ConfigInvalid(f"{source}: line {error.GetLine()}: {problem}") from error
    except ValueError as error:  # a number beyond 32 bits in the place of an enumerator
        raise ConfigInvalid(f"{source}: line {_line_beyond_range(text)}: {error}") from error


def _line_beyond_range(text: str) -> int:
    """The first line, from 1, up to which the text raises a ValueError, as it does as a whole."""
    lines = text.split("\n")

    def raises(line: int) -> bool:
        try:
            text_format.Parse("\n".join(lines[:line]), pb.ModelConfig())
        except text_format.ParseError:
            return False
        except ValueError:
            return True
        return False

    return bisect_left(range(len(lines) + 1), True, key=raises)


def load_settings(message: pb.ModelConfig, folder_name: str, source: str) -> LoadSettings:
    """What must be known before a model file is opened. `message` is left as it is. Raises ConfigInvalid."""
    filled = pb.ModelConfig()
    filled.CopyFrom(message)
    try:
        refuse_unserved(filled)
        _fill_name(filled, folder_name)
        if is_ensemble(filled):
            return _ensemble_settings(filled)
        _fill_backend(filled)
        return _load_settings(filled, DeviceKind.CPU)
    except FieldInvalid as error:
        raise ConfigInvalid(f"{source}: {error}") from error


def complete(
    message: pb.ModelConfig,
    *,
    folder_name: str,
    source: str,
    inputs: Sequence[GraphTensor],
    outputs: Sequence[GraphTensor],
    labels: Labels,
    initial_state: ReadFile,
    default_max_batch_size: int = DEFAULT_MAX_BATCH_SIZE,
    autocomplete: bool = True,
    auto_kind: DeviceKind = DeviceKind.CPU,
) -> ModelConfig:
    """Fill in, check and freeze a configuration; an empty message is a model without config.pbtxt.

    `inputs` and `outputs` are the graph's own; `labels` reads a label file by the name that the configuration gives
    it, `initial_state` a file of that folder; `auto_kind` is what KIND_AUTO means on this machine, for the served
    message. `message` is left as it is.
    Raises ConfigInvalid, and whatever `labels` raises.
    """
    filled = pb.ModelConfig()
    filled.CopyFrom(message)
    try:
        refuse_unserved(filled)
        _fill_name(filled, folder_name)
        _fill_backend(filled)
        if autocomplete and not (filled.input and filled.output):
            _fill_from_graph(filled, inputs, outputs, default_max_batch_size)
        return _freeze(filled, inputs, outputs, labels, initial_state, auto_kind)
    except (FieldInvalid, Disagreement) as error:
        raise ConfigInvalid(f"{source}: {error}") from error


def complete_ensemble(message: pb.ModelConfig, *, folder_name: str, source: str, labels: Labels) -> ModelConfig:
    """As `complete`, for an ensemble: there is no graph that could fill anything in."""
    filled = pb.ModelConfig()
    filled.CopyFrom(message)
    try:
        refuse_unserved(filled)
        _fill_name(filled, folder_name)
        _check_max_batch_size(filled)
        batching = filled.max_batch_size > 0
        return ModelConfig(
            name=filled.name,
            platform=filled.platform,
            max_batch_size=filled.max_batch_size,
            load=_ensemble_settings(filled),
            inputs=read_tensors("input", filled.input, (), batching, labels),
            outputs=read_tensors("output", filled.output, (), batching, labels),
            batching=None,
            split_oversize=False,
            objective_ms=0.0,
            metric_tags=_metric_tags(filled),
            serialized=filled.SerializeToString(deterministic=True),
            response_cache=read_response_cache(filled),
        )
    except FieldInvalid as error:
        raise ConfigInvalid(f"{source}: {error}") from error


def _ensemble_settings(message: pb.ModelConfig) -> LoadSettings:
    return LoadSettings(
        version_policy=_version_policy(message.version_policy),
        model_filename="",
        instance_count=0,
        device_kind=DeviceKind.CPU,
        gpus=(),
        graph_optimization_level=None,
        parameters=MappingProxyType({}),
        ensemble=read_schedule(message),
    )


def _fill_name(message: pb.ModelConfig, folder_name: str) -> None:
    if message.name not in ("", folder_name):
        raise FieldInvalid("name", f"is '{message.name}', but the model's folder is '{folder_name}'; make them equal")
    message.name = folder_name


def _fill_backend(message: pb.ModelConfig) -> None:
    if message.platform not in ("", PLATFORM):
        raise FieldInvalid("platform", f"is '{message.platform}'; this server serves '{PLATFORM}' only")
    if message.backend not in ("", BACKEND):
        raise FieldInvalid("backend", f"is '{message.backend}'; this server serves '{BACKEND}' only")
    message.platform, message.backend = PLATFORM, BACKEND
    filename = message.default_model_filename = message.default_model_filename or MODEL_FILENAME
    if "/" in filename or "\\" in filename or filename in (".", ".."):
        raise FieldInvalid(
            "default_model_filename", f"must be the name of a file in the version folder, not '{filename}'"
        )


def _fill_from_graph(
    message: pb.ModelConfig, inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor], default: int
) -> None:
    batchable = autocomplete.can_batch(inputs, outputs)
    if message.max_batch_size or not _has_whole_states(message, inputs):
        message.max_batch_size = autocomplete.fill_max_batch_size(
            message.name, message.max_batch_size, batchable, default
        )
    if message.max_batch_size > 1 and message.WhichOneof("scheduling_choice") is None:
        message.dynamic_batching.SetInParent()
    # What the server fills in itself, or keeps, is none of the callers' business.
    sequences = message.sequence_batching if message.HasField("sequence_batching") else pb.ModelSequenceBatching()
    own_inputs = {each.name for each in sequences.control_input} | {each.input_name for each in sequences.state}
    own_outputs = {each.output_name for each in sequences.state}
    if not message.input:
        for tensor in inputs:
            if tensor.name not in own_inputs:
                _fill_tensor(message.name, message.input.add(), tensor, message.max_batch_size > 0)
    if not message.output:
        for tensor in outputs:
            if tensor.name not in own_outputs:
                _fill_tensor(message.name, message.output.add(), tensor, message.max_batch_size > 0)


def _has_whole_states(message: pb.ModelConfig, inputs: Sequence[GraphTensor]) -> bool:
    """Whether states are written down with all dimensions of the graph: then none of those is a batch axis."""
    dimensions = {tensor.name: len(tensor.shape) for tensor in inputs}
    return any(len(state.dims) == dimensions.get(state.input_name) for state in message.sequence_batching.state)


def _fill_tensor(model: str, message: pb.ModelInput | pb.ModelOutput, tensor: GraphTensor, batching: bool) -> None:
    dims, reshape = autocomplete.fill_shape(model, tensor, batching)
    message.name, message.data_type = tensor.name, TYPE_OF[tensor.datatype.name]
    message.dims.extend(dims)
    if reshape is not None:
        message.reshape.SetInParent()
        message.reshape.shape.extend(reshape)


def _freeze(
    message: pb.ModelConfig,
    inputs: Sequence[GraphTensor],
    outputs: Sequence[GraphTensor],
    labels: Labels,
    initial_state: ReadFile,
    auto_kind: DeviceKind,
) -> ModelConfig:
    _check_max_batch_size(message)
    batching = message.max_batch_size > 0
    if not message.output:
        raise FieldInvalid("output", "is missing; list the model's outputs or leave auto-complete on")
    input_configs = read_tensors("input", message.input, inputs, batching, labels)
    output_configs = read_tensors("output", message.output, outputs, batching, labels)
    load = _load_settings(message, auto_kind)
    sequence = read_sequences(message, load.parameters, DATATYPE_OF, initial_state, load.instance_count)
    if inputs or outputs:
        own_inputs, own_outputs = own_tensors(sequence, input_configs)
        autocomplete.check(message.name, "input", (*input_configs, *own_inputs), inputs, batching)
        autocomplete.check(message.name, "output", (*output_configs, *own_outputs), outputs, batching)
    if load.parameters.get("fail_on_nan") == "true" and not any(t.datatype in FLOATS for t in output_configs):
        raise FieldInvalid("parameters['fail_on_nan']", "needs an output of FP16, FP32, FP64 or BF16; remove it")
    return ModelConfig(
        name=message.name,
        platform=message.platform,
        max_batch_size=message.max_batch_size,
        inputs=input_configs,
        outputs=output_configs,
        load=load,
        batching=read_batching(message, load.parameters),
        split_oversize=read_split_oversize(message, load.parameters),
        objective_ms=read_objective(message, load.parameters),
        metric_tags=_metric_tags(message),
        serialized=message.SerializeToString(deterministic=True),
        pad_to_bucket=read_pad_to_bucket(message, load.parameters),
        warmup=read_warmup(message, DATATYPE_OF),
        sequence=sequence,
        preprocessing=read_preprocessing(message, input_configs, load.parameters),
        response_cache=read_response_cache(message),
    )


def _check_max_batch_size(message: pb.ModelConfig) -> None:
    if message.max_batch_size < 0:
        raise FieldInvalid("max_batch_size", f"must be at least 0, not {message.max_batch_size}")


def _load_settings(message: pb.ModelConfig, auto_kind: DeviceKind) -> LoadSettings:
    count, kind, gpus = read_instances(message, auto_kind)
    parameters = {key: value.string_value for key, value in sorted(message.parameters.items())}
    check_parameters(parameters)
    optimization = message.optimization
    if optimization.cuda.graphs:
        check_graphs(parameters, count)
    settings = LoadSettings(
        version_policy=_version_policy(message.version_policy),
        model_filename=message.default_model_filename,
        instance_count=count,
        device_kind=kind,
        gpus=gpus,
        graph_optimization_level=_graph_level(message),
        parameters=MappingProxyType(parameters),
        op_libraries=tuple(message.model_operations.op_library_filename),
        accelerators=read_accelerators(message),
        cuda_graphs=optimization.cuda.graphs,
        pinned_memory=optimization.input_pinned_memory.enable or not optimization.HasField("input_pinned_memory"),
    )
    check_threads(settings)
    return settings


def _version_policy(message: pb.ModelVersionPolicy) -> VersionPolicy:
    """The policy; the message comes back with Triton's default in place of none."""
    match message.WhichOneof("policy_choice"):
        case "all":
            return All()
        case "specific":
            try:
                return Specific(tuple(message.specific.versions))
            except ValueError as error:
                raise FieldInvalid("version_policy.specific.versions", str(error)) from error
        case "latest":
            try:
                return Latest(message.latest.num_versions)
            except ValueError as error:
                raise FieldInvalid("version_policy.latest.num_versions", str(error)) from error
        case None:
            message.latest.num_versions = 1
            return Latest(1)


def _metric_tags(message: pb.ModelConfig) -> MappingProxyType[str, str]:
    for tag in message.metric_tags:
        if not _TAG.fullmatch(tag):
            raise FieldInvalid(f"metric_tags['{tag}']", "must be letters, digits and underscores: it names a label")
    return MappingProxyType(dict(sorted(message.metric_tags.items())))


def _graph_level(message: pb.ModelConfig) -> int | None:
    level = message.optimization.graph.level
    if level not in _GRAPH_LEVELS:
        raise FieldInvalid("optimization.graph.level", f"must be -1, 0, 1 or 2, not {level}")
    return level or None
