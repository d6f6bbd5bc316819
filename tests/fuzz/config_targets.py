"""Configurations of models: as text, as JSON and as a message. What is taken is bounded, and says the same again."""

from __future__ import annotations

import re
from dataclasses import replace

from google.protobuf import json_format, text_format
from google.protobuf.message import DecodeError

from proto import model_config_pb2 as pb
from server.backends.base import Devices, GraphTensor
from server.errors import ConfigInvalid, ConvoyError, LoadFailed
from server.models import config as model_config
from server.models import overrides, repository
from server.models.config import ConfigMessage, DeviceKind, LoadSettings, ModelConfig
from server.models.config_fields import FieldInvalid
from server.models.config_instances import MAX_INSTANCES
from server.models.config_sequences import MAX_STATE_BYTES
from server.models.config_tensors import DATATYPE_OF
from server.models.overrides import Override
from server.models.placement import place
from tests.fuzz.checks import check_refusal
from tests.fuzz.folder import FOLDER

SOURCE = "m/config.pbtxt"
FLOAT = pb.TYPE_FP32


def fuzz_config_text(data: bytes) -> None:
    """config.pbtxt: read, or refused with file and line."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    try:
        message = model_config.parse(text, SOURCE)
    except ConfigInvalid as error:
        check_refusal(error, source=SOURCE)
        return
    again = model_config.parse(text_format.MessageToString(message), SOURCE)
    assert again == message or _has_words(message)
    check_config(message)


def fuzz_config(data: bytes) -> None:
    """A configuration as a message: text, JSON and message lead to the same."""
    try:
        message = ConfigMessage.FromString(data)
    except DecodeError:
        return
    check_config(message)


def fuzz_config_json(data: bytes) -> None:
    """The configuration that comes with a request to load."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    try:
        configuration = overrides.configuration("m", Override(text, {"1/model.onnx": b""}))
    except ConvoyError as error:
        check_refusal(error)
        return
    check_config(configuration.message)


def check_config(message: ConfigMessage) -> None:
    """All that is done with a configuration before and after the model's file is opened."""
    settings = None
    try:
        settings = model_config.load_settings(message, "m", SOURCE)
    except ConfigInvalid as error:
        check_refusal(error, source=SOURCE)
    try:
        by_json = overrides.configuration("m", Override(json_format.MessageToJson(message)))
        assert by_json.settings == settings
    except json_format.SerializeToJsonError:
        assert _has_words(message)
    except ConvoyError as error:
        check_refusal(error)
        if settings is not None and not _has_words(message):
            raise
    if settings is None:
        return
    try:
        if settings.ensemble is not None:
            labels = ("zero", "one")
            model_config.complete_ensemble(message, folder_name="m", source=SOURCE, labels=lambda _: labels)
            return
        _place(settings)
        repository.model_file(FOLDER.model, 1, settings.model_filename)
        for name in settings.op_libraries:
            repository.op_library(FOLDER.model, name)
        complete(message, graph=False)
        config = complete(message, graph=True)
    except LoadFailed as error:
        check_refusal(error)
        return
    assert config.load.instance_count <= MAX_INSTANCES
    if config.sequence is not None:
        slots = config.sequence.slots * config.load.instance_count
        assert slots * sum(state.initial.nbytes for state in config.sequence.states) <= MAX_STATE_BYTES
    again = complete(ConfigMessage.FromString(config.serialized), graph=True)
    assert _comparable(again) == _comparable(config), "what was filled in is not what it says"


def _has_words(message: ConfigMessage) -> bool:
    """Whether a number of it is none, or has no end: JSON has no such numbers, and what is none differs from itself."""
    return re.search(r"\b(nan|inf)\b", str(message)) is not None


def _place(settings: LoadSettings) -> None:
    """Whether a machine without a GPU has what the instances need, as it is found out when a model is opened."""
    try:
        place(settings, Devices())
    except FieldInvalid as error:
        raise ConfigInvalid(f"{SOURCE}: {error}") from error


def complete(message: ConfigMessage, *, graph: bool) -> ModelConfig:
    """With the graph that the configuration is for, or with none."""
    tensors = [_graph(message, each) for each in (message.input, message.output)] if graph else [(), ()]
    return model_config.complete(
        message,
        folder_name="m",
        source=SOURCE,
        inputs=tensors[0] or ([GraphTensor("x", DATATYPE_OF[FLOAT], (-1, 3))] if graph else ()),
        outputs=tensors[1] or ([GraphTensor("y", DATATYPE_OF[FLOAT], (-1, 2))] if graph else ()),
        labels=lambda name: repository.read_labels(FOLDER.model, name),
        initial_state=lambda name, most_bytes: repository.read_initial_state(FOLDER.model, name, most_bytes),
    )


def _graph(message: ConfigMessage, listed: object) -> list[GraphTensor]:
    batch = (-1,) if message.max_batch_size > 0 else ()
    found = []
    for tensor in listed:  # type: ignore[attr-defined]
        datatype = DATATYPE_OF.get(tensor.data_type)
        if datatype is not None:
            dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
            found.append(GraphTensor(tensor.name, datatype, (*batch, *dims)))
    if listed is message.input:
        controls = message.sequence_batching.control_input
        found += [GraphTensor(control.name, DATATYPE_OF[FLOAT], (*batch, 1)) for control in controls]
    return found


def _comparable(config: ModelConfig) -> ModelConfig:
    """Without arrays, which compare element by element, and KIND_AUTO, which is filled in for the machine."""
    sequence = config.sequence
    if sequence is not None:
        states = tuple(replace(state, initial=state.initial.tobytes()) for state in sequence.states)
        sequence = replace(sequence, states=states)
    return replace(config, sequence=sequence, serialized=b"", load=replace(config.load, device_kind=DeviceKind.CPU))
