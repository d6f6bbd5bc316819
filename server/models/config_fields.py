"""Which fields of config.pbtxt are served here. All others are refused by name, never ignored.

A field that is set to its default (`preserve_ordering: false`) is as good as absent. To serve a new field, handle it
in `config` and add its path to `SERVED`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from google.protobuf.message import Message

from server.models.config_runtime import RUNTIME_PARAMETERS, SHRINKAGE

SERVED = frozenset(
    {
        "name",
        "platform",
        "backend",
        "version_policy.latest.num_versions",
        "version_policy.all",
        "version_policy.specific.versions",
        "max_batch_size",
        "input.name",
        "input.data_type",
        "input.format",
        "input.dims",
        "input.reshape.shape",
        "output.name",
        "output.data_type",
        "output.dims",
        "output.reshape.shape",
        "output.label_filename",
        "optimization.graph.level",
        "optimization.cuda.graphs",
        "optimization.execution_accelerators.gpu_execution_accelerator.name",
        "optimization.execution_accelerators.gpu_execution_accelerator.parameters",
        "optimization.input_pinned_memory.enable",
        "dynamic_batching.preferred_batch_size",
        "dynamic_batching.max_queue_delay_microseconds",
        "dynamic_batching.preserve_ordering",
        "dynamic_batching.priority_levels",
        "dynamic_batching.default_priority_level",
        "dynamic_batching.priority_queue_policy",
        "dynamic_batching.default_queue_policy.timeout_action",
        "dynamic_batching.default_queue_policy.default_timeout_microseconds",
        "dynamic_batching.default_queue_policy.allow_timeout_override",
        "dynamic_batching.default_queue_policy.max_queue_size",
        "sequence_batching.max_sequence_idle_microseconds",
        "sequence_batching.control_input.name",
        "sequence_batching.control_input.control.kind",
        "sequence_batching.control_input.control.int32_false_true",
        "sequence_batching.control_input.control.fp32_false_true",
        "sequence_batching.control_input.control.bool_false_true",
        "sequence_batching.control_input.control.data_type",
        "sequence_batching.direct.max_queue_delay_microseconds",
        "sequence_batching.direct.minimum_slot_utilization",
        "sequence_batching.oldest.max_candidate_sequences",
        "sequence_batching.oldest.preferred_batch_size",
        "sequence_batching.oldest.max_queue_delay_microseconds",
        "sequence_batching.oldest.preserve_ordering",
        "sequence_batching.state.input_name",
        "sequence_batching.state.output_name",
        "sequence_batching.state.data_type",
        "sequence_batching.state.dims",
        "sequence_batching.state.use_same_buffer_for_input_output",
        "sequence_batching.state.use_growable_memory",
        "sequence_batching.state.initial_state.name",
        "sequence_batching.state.initial_state.data_type",
        "sequence_batching.state.initial_state.dims",
        "sequence_batching.state.initial_state.zero_data",
        "sequence_batching.state.initial_state.data_file",
        "ensemble_scheduling.step.model_name",
        "ensemble_scheduling.step.model_version",
        "ensemble_scheduling.step.input_map",
        "ensemble_scheduling.step.output_map",
        "ensemble_scheduling.max_inflight_requests",
        "instance_group.name",
        "instance_group.count",
        "instance_group.kind",
        "instance_group.gpus",
        "response_cache.enable",
        "model_warmup.name",
        "model_warmup.batch_size",
        "model_warmup.inputs",
        "model_warmup.count",
        "default_model_filename",
        "model_operations.op_library_filename",
        "metric_tags",
        "parameters",
    }
)

_SERVED_MESSAGES = SERVED | {path.rsplit(".", depth)[0] for path in SERVED for depth in range(1, path.count(".") + 1)}

MAX_THREADS = 1024
"""Of a model: no machine has more cores for it, and each takes a thread of the process whether it works or not."""

PARAMETERS: dict[str, range] = {
    "intra_op_thread_count": range(MAX_THREADS + 1),
    "inter_op_thread_count": range(MAX_THREADS + 1),
    "execution_mode": range(2),
    "enable_mem_arena": range(2),
    "enable_mem_pattern": range(2),
    "priority_aging_ms": range(2**31),
    "run_timeout_ms": range(2**31),
}
"""Keys of `parameters`, with the integers that each may be."""

DECIMALS = frozenset({"slo_ms"})
"""Keys of `parameters` that are positive numbers, fractions among them."""

SWITCHES = frozenset(
    {"fail_on_nan", "image.jpeg_draft", "optimized_model_cache", "pad_to_bucket", "share_session", "split_oversize"}
)
"""Keys of `parameters` that are "true" or "false"."""

IMAGE_TEXTS = frozenset(
    {
        "image.resize",
        "image.center_crop",
        "image.interpolation",
        "image.scale",
        "image.mean",
        "image.std",
        "image.color",
        "image.max_pixels",
    }
)
"""Keys of `parameters` whose values `config_pictures` checks."""

SHOWN = frozenset({"layers_of"})
"""Keys of `parameters` that say something to clients, who read the configuration, and nothing to the server: names."""

KNOWN_PARAMETERS = SWITCHES.union(IMAGE_TEXTS, SHOWN, PARAMETERS, DECIMALS, RUNTIME_PARAMETERS)

INSTEAD = {
    "sequence_batching.iterative_sequence": "a client that wants another step sends another request",
    "model_transaction_policy.decoupled": "an ONNX model answers every request once, over a stream too",
    "instance_group.rate_limiter": "models take turns without it, and the flag --max-running-batches bounds what runs",
}
"""What does the work of fields that are not served, by the beginning of their path."""

_NUMBER = re.compile(r"[0-9]{1,10}")
_DECIMAL = re.compile(r"[0-9]{1,10}(\.[0-9]{1,6})?")


class FieldInvalid(ValueError):
    """A field is set to what cannot be. `str(error)` names the field; whoever knows the file adds it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"field '{field}' {problem}")


def refuse_unserved(message: Message) -> None:
    """Raise FieldInvalid for the first field that is set and not served, or set to no value that it may have."""
    for path in _unserved(message, ""):
        hints = [f": {hint}" for field, hint in INSTEAD.items() if f"{path}.".startswith(f"{field}.")]
        raise FieldInvalid(path, "is not supported by this server; remove it" + "".join(hints))
    for path, number in _unknown_choices(message, ""):
        raise FieldInvalid(path, f"is {number}, which stands for nothing; use one of the names that it may have")


def _unserved(message: Message, prefix: str) -> Iterator[str]:
    for field, value in message.ListFields():
        path = prefix + field.name
        kind = field.message_type
        if kind is None or kind.GetOptions().map_entry:
            if path not in SERVED:
                yield path
        elif path not in _SERVED_MESSAGES and (field.is_repeated or field.containing_oneof):
            # One more element, or the choice itself, changes behaviour even where the message is empty. Any other
            # message says something only through its own fields.
            yield path
        else:
            for element in value if field.is_repeated else (value,):
                yield from _unserved(element, path + ".")


def _unknown_choices(message: Message, prefix: str) -> Iterator[tuple[str, int]]:
    """Enumerators that there are not, which proto3 takes as numbers."""
    for field, value in message.ListFields():
        path = prefix + field.name
        if field.enum_type is not None:
            numbers = value if field.is_repeated else (value,)
            yield from ((path, number) for number in numbers if number not in field.enum_type.values_by_number)
        elif field.message_type is None:
            continue
        elif field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for key in sorted(value):
                    yield from _unknown_choices(value[key], f"{path}['{key}'].")
        else:
            for element in value if field.is_repeated else (value,):
                yield from _unknown_choices(element, path + ".")


def check_parameters(parameters: Mapping[str, str]) -> None:
    """Raise FieldInvalid for the first parameter that is unknown or impossible."""
    for key, value in sorted(parameters.items()):
        field = f"parameters['{key}']"
        if key in RUNTIME_PARAMETERS:
            form = RUNTIME_PARAMETERS[key]
            if not form.accepts(value):
                raise FieldInvalid(field, f"must be {form.text}, not '{value}'")
            continue
        if key in SWITCHES:
            if value not in ("true", "false"):
                raise FieldInvalid(field, f"must be true or false, not '{value}'")
            continue
        if key in DECIMALS:
            if not _DECIMAL.fullmatch(value) or not float(value):
                raise FieldInvalid(field, f"must be a number above 0, like 30 or 2.5, not '{value}'")
            continue
        if key in SHOWN:
            if not value:
                raise FieldInvalid(field, "is empty; name a model, or remove it")
            continue
        if key in IMAGE_TEXTS:
            continue
        if key not in PARAMETERS:
            known = ", ".join(sorted(KNOWN_PARAMETERS))
            raise FieldInvalid(field, f"is not supported by this server; it knows: {known}")
        allowed = PARAMETERS[key]
        if not _NUMBER.fullmatch(value) or int(value) not in allowed:
            choices = "0 or 1" if len(allowed) == 2 else f"an integer from 0 to {allowed[-1]}"
            raise FieldInvalid(field, f"must be {choices}, not '{value}'")
    if "cpu" in parameters.get(SHRINKAGE, "") and parameters.get("enable_mem_arena") == "0":
        raise FieldInvalid(
            f"parameters['{SHRINKAGE}']", "needs the arena that enable_mem_arena 0 turns off; remove one"
        )
