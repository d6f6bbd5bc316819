"""config.pbtxt: what is read, and what is refused by name. Tests of the graph's part are in test_autocomplete.py."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from proto import model_config_pb2 as pb
from server import tensors
from server.errors import ConfigInvalid, LoadFailed
from server.models.config import (
    DeviceKind,
    LoadSettings,
    ModelConfig,
    QueuePolicy,
    TensorConfig,
    WindowBatching,
    complete,
    parse,
)
from server.models.config_fields import SERVED
from server.models.versions import All, Latest, Specific, VersionPolicy

TENSORS = """
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
"""


def labels(filename: str) -> tuple[str, ...]:
    if filename != "labels.txt":
        raise LoadFailed(f"{filename}: no such label file")
    return ("zero", "one")


def no_file(filename: str, most_bytes: int) -> bytes:
    raise LoadFailed(f"{filename}: no such file")


def configure(text: str, auto_kind: DeviceKind = DeviceKind.CPU) -> ModelConfig:
    return complete(
        parse(text, "m/config.pbtxt"),
        folder_name="m",
        source="m/config.pbtxt",
        inputs=(),
        outputs=(),
        labels=labels,
        initial_state=no_file,
        auto_kind=auto_kind,
    )


def refusal(text: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        configure(text)
    return str(caught.value)


def test_everything_that_is_served_is_read() -> None:
    config = configure(
        """
        name: "m"
        platform: "onnxruntime_onnx"
        version_policy { specific { versions: [ 3, 1 ] } }
        max_batch_size: 16
        input { name: "x" data_type: TYPE_UINT8 format: FORMAT_NCHW dims: [ 1, 28, 28 ] }
        input { name: "n" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [] } }
        output { name: "y" data_type: TYPE_FP16 dims: [ 2 ] label_filename: "labels.txt" }
        instance_group { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] }
        instance_group { kind: KIND_GPU gpus: [ 0, 1 ] }
        default_model_filename: "lenet.onnx"
        metric_tags { key: "team" value: "vision" }
        dynamic_batching {
          preferred_batch_size: [ 4, 8 ]
          max_queue_delay_microseconds: 500
          default_queue_policy { default_timeout_microseconds: 9 allow_timeout_override: true max_queue_size: 64 }
        }
        optimization { graph { level: 1 } }
        parameters { key: "intra_op_thread_count" value { string_value: "2" } }
        """
    )
    assert config == ModelConfig(
        name="m",
        platform="onnxruntime_onnx",
        max_batch_size=16,
        inputs=(
            TensorConfig("x", tensors.UINT8, (1, 28, 28)),
            TensorConfig("n", tensors.INT64, (1,), reshape=()),
        ),
        outputs=(TensorConfig("y", tensors.FP16, (2,), labels=("zero", "one")),),
        load=LoadSettings(
            version_policy=Specific((3, 1)),
            model_filename="lenet.onnx",
            instance_count=3,
            device_kind=DeviceKind.GPU,
            gpus=(0, 1),
            graph_optimization_level=1,
            parameters={"intra_op_thread_count": "2"},
        ),
        batching=WindowBatching((4, 8), 500, (QueuePolicy(64, 9, True),)),
        split_oversize=False,
        objective_ms=0.0,
        metric_tags={"team": "vision"},
        serialized=config.serialized,
    )


def test_what_is_absent_takes_its_default() -> None:
    config = configure(TENSORS)
    assert config == ModelConfig(
        name="m",
        platform="onnxruntime_onnx",
        max_batch_size=0,
        inputs=(TensorConfig("x", tensors.FP32, (4,)),),
        outputs=(TensorConfig("y", tensors.FP32, (2,)),),
        load=LoadSettings(
            version_policy=Latest(1),
            model_filename="model.onnx",
            instance_count=1,
            device_kind=DeviceKind.AUTO,
            gpus=(),
            graph_optimization_level=None,
            parameters={},
        ),
        batching=None,
        split_oversize=False,
        objective_ms=0.0,
        metric_tags={},
        serialized=config.serialized,
    )


def test_a_configuration_is_frozen() -> None:
    config = configure(TENSORS)
    with pytest.raises(FrozenInstanceError):
        config.max_batch_size = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.load.parameters["a"] = "b"  # type: ignore[index]


def test_the_served_message_keeps_what_was_given_and_resolves_instances() -> None:
    text = TENSORS + "max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 5 } optimization { graph {} }"
    message = pb.ModelConfig.FromString(configure(text, auto_kind=DeviceKind.GPU).serialized)
    assert list(message.dynamic_batching.preferred_batch_size) == []
    assert message.optimization.HasField("graph")
    assert message.instance_group == [
        pb.ModelInstanceGroup(name="m_0", count=1, kind=pb.ModelInstanceGroup.KIND_GPU),
    ]


@pytest.mark.parametrize("name", sorted(tensors.DATATYPES))
def test_every_datatype_of_the_protocol_has_its_type(name: str) -> None:
    type_ = "TYPE_STRING" if name == "BYTES" else f"TYPE_{name}"
    assert configure(TENSORS.replace("TYPE_FP32", type_)).inputs[0].datatype == tensors.DATATYPES[name]


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("version_policy { latest { num_versions: 2 } }", Latest(2)),
        ("version_policy { all {} }", All()),
        ("version_policy {}", Latest(1)),
    ],
)
def test_version_policies(text: str, policy: VersionPolicy) -> None:
    assert configure(TENSORS + text).load.version_policy == policy


@pytest.mark.parametrize(
    "text",
    [
        "dynamic_batching { preserve_ordering: false priority_levels: 0 } max_batch_size: 1",
        "dynamic_batching { default_queue_policy { timeout_action: REJECT } } max_batch_size: 1",
        "model_transaction_policy { decoupled: false }",
        "response_cache { enable: false }",
        "optimization { cuda { graphs: false } input_pinned_memory { enable: false } }",
        'instance_group { passive: false host_policy: "" rate_limiter {} }',
        'input { name: "z" data_type: TYPE_BOOL dims: [ 1 ] optional: false allow_ragged_batch: false }',
        'runtime: ""',
    ],
)
def test_a_field_that_is_set_to_its_default_is_as_good_as_absent(text: str) -> None:
    configure(TENSORS + text)


def test_answers_are_kept_where_the_configuration_says_so() -> None:
    assert configure(TENSORS + "response_cache { enable: true }").response_cache
    assert not configure(TENSORS).response_cache


def test_answers_of_sequences_are_not_kept() -> None:
    with pytest.raises(ConfigInvalid, match=r"'response_cache.enable' cannot go with sequence_batching"):
        configure(TENSORS + "response_cache { enable: true } sequence_batching {}")


def test_kept_answers_and_an_order_of_answers_exclude_each_other() -> None:
    with pytest.raises(ConfigInvalid, match=r"'response_cache.enable' cannot go with dynamic_batching.preserve_order"):
        configure(
            TENSORS + "max_batch_size: 1 response_cache { enable: true } dynamic_batching { preserve_ordering: true }"
        )


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('cc_model_filenames { key: "8.6" value: "m.onnx" }', "cc_model_filenames"),
        ('runtime: "x.so"', "runtime"),
        ("batch_input {}", "batch_input"),
        ("batch_output {}", "batch_output"),
        ("model_repository_agents { agents {} }", "model_repository_agents.agents"),
        ("model_metrics { metric_control {} }", "model_metrics.metric_control"),
        ('instance_group { profile: "p" }', "instance_group.profile"),
        ("instance_group { secondary_devices {} }", "instance_group.secondary_devices"),
        ("instance_group { passive: true }", "instance_group.passive"),
        ("optimization { priority: PRIORITY_MAX }", "optimization.priority"),
        (
            'optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" } } }',
            "optimization.execution_accelerators.cpu_execution_accelerator",
        ),
        ("optimization { cuda { busy_wait_events: true } }", "optimization.cuda.busy_wait_events"),
        ("input { optional: true }", "input.optional"),
        ("input { allow_ragged_batch: true }", "input.allow_ragged_batch"),
        ("output { is_shape_tensor: true }", "output.is_shape_tensor"),
    ],
)
def test_a_field_that_is_not_served_is_refused_by_name(text: str, field: str) -> None:
    assert refusal(text) == f"m/config.pbtxt: field '{field}' is not supported by this server; remove it"


def test_a_decoupled_model_is_refused_with_the_reason() -> None:
    assert refusal("model_transaction_policy { decoupled: true }") == (
        "m/config.pbtxt: field 'model_transaction_policy.decoupled' is not supported by this server; remove it: "
        "an ONNX model answers every request once, over a stream too"
    )


@pytest.mark.parametrize(
    ("limiter", "field"),
    [
        ("priority: 2", "instance_group.rate_limiter.priority"),
        ('resources { name: "r" count: 1 }', "instance_group.rate_limiter.resources"),
    ],
)
def test_a_rate_limiter_is_refused_with_what_to_use_instead(limiter: str, field: str) -> None:
    assert refusal(f"instance_group {{ rate_limiter {{ {limiter} }} }}") == (
        f"m/config.pbtxt: field '{field}' is not supported by this server; remove it: "
        "models take turns without it, and the flag --max-running-batches bounds what runs"
    )


@pytest.mark.parametrize("path", sorted(SERVED))
def test_every_served_field_exists(path: str) -> None:
    descriptor = pb.ModelConfig.DESCRIPTOR
    for name in path.split("."):
        field = descriptor.fields_by_name[name]
        if field.message_type is not None:
            descriptor = field.message_type


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            'name: "m"\nmax_batchsize: 3\n',
            'line 2: Message type "inference.ModelConfig" has no field named "max_batchs',
        ),
        ("\n\ninput [ {", 'line 3: Expected "}"'),
        ("input { data_type: TYPE_FP33 }", "TYPE_FP33"),
        ('name: "m"\ninstance_group {\n kind: 9223372036\n}', "line 3: Value out of range: 9223372036"),
        ("max_batch_size: 99999999999", "line 1: 'max_batch_size: 99999999999': Value out of range"),
        ('name: "a" name: "b"', 'should not have multiple "name" fields'),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_with_its_line(text: str, problem: str) -> None:
    message = refusal(text)
    assert message.startswith("m/config.pbtxt: line ")
    assert problem in message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('name: "n"', "'name' is 'n', but the model's folder is 'm'"),
        ('platform: "tensorrt_plan"', "'platform' is 'tensorrt_plan'; this server serves 'onnxruntime_onnx' only"),
        ('backend: "python"', "'backend' is 'python'; this server serves 'onnxruntime' only"),
        ('default_model_filename: "../m.onnx"', "'default_model_filename' must be the name of a file in the version"),
        ('default_model_filename: ".."', "'default_model_filename' must be the name of a file in the version"),
        ("max_batch_size: -1", "'max_batch_size' must be at least 0, not -1"),
        ("dynamic_batching {}", "'dynamic_batching' needs max_batch_size of at least 1"),
        (
            "max_batch_size: 4 dynamic_batching { preferred_batch_size: [ 4, 8 ] }",
            "'dynamic_batching.preferred_batch_size' must be 1 to max_batch_size, which is 4, not 8",
        ),
        (
            "max_batch_size: 4 dynamic_batching { preferred_batch_size: 0 }",
            "'dynamic_batching.preferred_batch_size' must be 1 to max_batch_size, which is 4, not 0",
        ),
        ("input { dims: [ 1 ] data_type: TYPE_FP32 }", "'input[1].name' is missing"),
        ('input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }', "'input['x']' is given twice"),
        ('output { name: "z" dims: [ 1 ] }', "'output['z'].data_type' is missing or TYPE_INVALID"),
        ('input { name: "z" data_type: TYPE_BOOL }', "'input['z'].dims' is missing"),
        ('input { name: "z" data_type: TYPE_BOOL dims: [ 0 ] }', "'input['z'].dims' must hold sizes of at least 1, or"),
        ('input { name: "z" data_type: TYPE_BOOL dims: [ -2 ] }', "or -1 for any size, not -2"),
        (
            'input { name: "z" data_type: TYPE_BOOL dims: [ 2 ] format: FORMAT_NHWC }',
            "'input['z'].format' needs 3 dims",
        ),
        ("instance_group { count: -1 }", "'instance_group[0].count' must be at least 0"),
        (
            "instance_group { count: 1000 } instance_group { count: 25 }",
            "'instance_group' may have 1024 instances together, not 1025",
        ),
        ("instance_group { kind: KIND_MODEL }", "'instance_group[0].kind' KIND_MODEL is not supported"),
        ("instance_group { kind: KIND_CPU gpus: 0 }", "'instance_group[0].gpus' cannot go with KIND_CPU"),
        ("instance_group { gpus: [ 0, 0 ] }", "'instance_group[0].gpus' must be different numbers of at least 0"),
        ("instance_group { gpus: -1 }", "'instance_group[0].gpus' must be different numbers of at least 0"),
        ("instance_group {} instance_group { kind: KIND_CPU }", "'instance_group[1]' must have the kind and gpus of"),
        ("version_policy { latest {} }", "'version_policy.latest.num_versions' must be at least 1, not 0"),
        ("version_policy { specific {} }", "'version_policy.specific.versions' must list at least one version"),
        ("version_policy { specific { versions: 0 } }", "'version_policy.specific.versions' must list positive int"),
        ("optimization { graph { level: 3 } }", "'optimization.graph.level' must be -1, 0, 1 or 2, not 3"),
        ('metric_tags { key: "a-b" value: "c" }', "'metric_tags['a-b']' must be letters, digits and underscores"),
    ],
)
def test_an_impossible_value_is_refused_with_file_and_field(text: str, problem: str) -> None:
    message = refusal(TENSORS + text)
    assert message.startswith("m/config.pbtxt: field '")
    assert problem in message


@pytest.mark.parametrize(
    ("dims", "shape", "same"),
    [
        ("6", "2, 3", True),
        ("1", "", True),
        ("1, 4", "4", True),
        ("-1, 6", "-1, 2, 3", True),
        ("2, -1, 3", "1, 2, -1, 3", True),
        ("6", "2, 2", False),
        ("2", "", False),
        ("-1", "", False),
        ("-1", "4", False),
        ("2, -1, 3", "3, -1, 2", False),
        ("-1, -1", "-1", False),
    ],
)
def test_a_reshape_keeps_the_number_of_elements(dims: str, shape: str, same: bool) -> None:
    text = f'{TENSORS} input {{ name: "z" data_type: TYPE_BOOL dims: [ {dims} ] reshape {{ shape: [ {shape} ] }} }}'
    if same:
        assert configure(text).inputs[1].reshape is not None
    else:
        assert "field 'input['z'].reshape' has another number of elements than dims" in refusal(text)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("intra_op_threads", "2", "is not supported by this server; it knows: "),
        ("intra_op_thread_count", "-1", "must be an integer from 0 to 1024, not '-1'"),
        ("inter_op_thread_count", "many", "must be an integer from 0 to 1024, not 'many'"),
        ("intra_op_thread_count", "9" * 5000, "must be an integer from 0 to 1024, not '999"),
        ("intra_op_thread_count", "1025", "must be an integer from 0 to 1024, not '1025'"),
        ("execution_mode", "2", "must be 0 or 1, not '2'"),
        ("layers_of", "", "is empty; name a model, or remove it"),
        ("enable_mem_arena", "true", "must be 0 or 1, not 'true'"),
        ("enable_mem_pattern", "", "must be 0 or 1, not ''"),
    ],
)
def test_a_parameter_that_is_unknown_or_impossible_is_refused(key: str, value: str, problem: str) -> None:
    message = refusal(f'{TENSORS} parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}')
    assert f"field 'parameters['{key}']' {problem}" in message


def test_the_threads_of_all_sessions_are_bounded_together() -> None:
    text = f"{TENSORS} instance_group {{ count: 64 }} "
    text += 'parameters { key: "intra_op_thread_count" value { string_value: "32" } } '
    assert configure(text).load.instance_count == 64
    apart = text + 'parameters { key: "share_session" value { string_value: "false" } }'
    assert "comes to 2048 threads for 64 sessions, and 1024 are allowed" in refusal(apart)


def test_a_refusal_is_short_whatever_it_quotes() -> None:
    assert len(refusal(f'{TENSORS} name: "{"n" * 500_000}"')) < 2100


def test_a_missing_label_file_is_told_as_it_is() -> None:
    with pytest.raises(LoadFailed, match=r"^names\.txt: no such label file$"):
        configure(TENSORS.replace("[ 2 ]", '[ 2 ] label_filename: "names.txt"'))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("instance_group { kind: 77 }", "instance_group.kind"),
        (f"{TENSORS} input {{ format: 9 }}", "input.format"),
        (
            "dynamic_batching { priority_queue_policy { key: 1 value { timeout_action: 5 } } }",
            "dynamic_batching.priority_queue_policy['1'].timeout_action",
        ),
    ],
)
def test_a_number_that_stands_for_no_choice_is_refused(text: str, field: str) -> None:
    assert f"field '{field}' is " in refusal(text)
