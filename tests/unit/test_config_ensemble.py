"""The configuration of an ensemble: what is read, and what is refused by field."""

from __future__ import annotations

import pytest

from proto import model_config_pb2 as pb
from server import tensors
from server.errors import ConfigInvalid
from server.models.config import ModelConfig, complete_ensemble, load_settings, parse
from server.models.config_types import EnsembleSchedule, EnsembleStep
from server.models.versions import Latest, Specific
from tests.ensembles import ensemble, step

ONE = step("m", {"a": "x"}, {"b": "y"})


def read(text: str) -> ModelConfig:
    return complete_ensemble(
        parse(text, "e/config.pbtxt"),
        folder_name="e",
        source="e/config.pbtxt",
        labels=lambda filename: (f"from {filename}",),
    )


def refusal(text: str) -> str:
    """What both readings say."""
    with pytest.raises(ConfigInvalid) as early:
        load_settings(parse(text, "e/config.pbtxt"), "e", "e/config.pbtxt")
    if 'platform: "ensemble"' in text and "ensemble_scheduling" in text:
        with pytest.raises(ConfigInvalid) as late:
            read(text)
        assert str(late.value) == str(early.value)
    return str(early.value)


def test_the_steps_are_read() -> None:
    config = read(
        ensemble(
            step("one", {"b": "x", "a": "x"}, {"c": "t"}, version=3),
            step("two", {"a": "t"}, {"b": "y"}),
            scheduling="max_inflight_requests: 16",
            more='metric_tags { key: "team" value: "a" } version_policy { specific { versions: [ 2 ] } }',
        )
    )
    assert config.load.ensemble == EnsembleSchedule(
        (
            EnsembleStep("one", 3, (("a", "x"), ("b", "x")), (("c", "t"),)),
            EnsembleStep("two", None, (("a", "t"),), (("b", "y"),)),
        ),
        16,
    )
    assert config.load.ensemble.models == ("one", "two")
    assert config.load.version_policy == Specific((2,))
    assert (config.name, config.platform, config.max_batch_size) == ("e", "ensemble", 8)
    assert (config.inputs[0].name, config.inputs[0].datatype, config.inputs[0].dims) == ("x", tensors.INT64, (1,))
    assert (config.batching, config.split_oversize, config.objective_ms) == (None, False, 0.0)
    assert config.metric_tags == {"team": "a"}


def test_the_served_message_lists_the_steps_and_has_nothing_of_a_backend() -> None:
    message = pb.ModelConfig.FromString(read(ensemble(ONE)).serialized)
    assert (message.name, message.platform, message.backend) == ("e", "ensemble", "")
    assert [each.model_name for each in message.ensemble_scheduling.step] == ["m"]
    assert (len(message.instance_group), message.version_policy.latest.num_versions) == (0, 1)


def test_a_response_cache_is_for_those_that_ask_for_one() -> None:
    assert read(ensemble(ONE, more="response_cache { enable: true }")).response_cache
    assert not read(ensemble(ONE)).response_cache


def test_a_version_that_is_left_out_is_the_latest() -> None:
    for version in (-1, 0):
        schedule = read(ensemble(step("m", {"a": "x"}, {"b": "y"}, version=version))).load.ensemble
        assert schedule is not None and schedule.steps[0].version is None


def test_labels_of_an_output_are_read() -> None:
    text = ensemble(ONE).replace('output { name: "y"', 'output { name: "y" label_filename: "labels.txt"')
    assert read(text).outputs[0].labels == ("from labels.txt",)


def test_settings_are_known_before_anything_is_opened() -> None:
    settings = load_settings(parse(ensemble(ONE), "s"), "e", "s")
    assert settings.version_policy == Latest(1)
    assert settings.ensemble is not None and settings.ensemble.models == ("m",)


REFUSED = {
    "no steps": (ensemble(), "ensemble_scheduling.step' is missing; an ensemble has at least one step"),
    "another platform": (
        ensemble(ONE).replace('platform: "ensemble"', 'platform: "onnxruntime_onnx"'),
        "ensemble_scheduling' cannot be set for a model whose platform is not 'ensemble'; set platform",
    ),
    "a platform without steps": (
        'platform: "ensemble"',
        "ensemble_scheduling' must be set for a model whose platform is 'ensemble'",
    ),
    "a backend": (ensemble(ONE, more='backend: "onnxruntime"'), "backend' cannot be set for an ensemble"),
    "instances": (ensemble(ONE, more="instance_group { count: 2 }"), "instance_group' cannot be set for an ensemble"),
    "parameters": (
        ensemble(ONE, more='parameters { key: "slo_ms" value: { string_value: "5" } }'),
        "parameters' cannot be set for an ensemble; set it for its models, or remove it",
    ),
    "a warm-up": (ensemble(ONE, more='model_warmup { name: "w" batch_size: 1 }'), "model_warmup' cannot be set"),
    "optimization": (ensemble(ONE, more="optimization { graph { level: 1 } }"), "optimization' cannot be set"),
    "another name": (ensemble(ONE, more='name: "f"'), "name' is 'f', but the model's folder is 'e'"),
    "no inputs": (ensemble(ONE).replace("input {", "output {"), "input' is missing; list the inputs of the ensemble"),
    "a reshape": (
        ensemble(ONE).replace("dims: [1]", "dims: [1] reshape { shape: [ ] }", 1),
        "input['x'].reshape' cannot be set for an ensemble; remove it",
    ),
    "a step without a model": (
        ensemble(step("", {"a": "x"}, {"b": "y"})),
        "ensemble_scheduling.step[0].model_name' is missing; name the step's model",
    ),
    "itself": (
        ensemble(step("e", {"a": "x"}, {"b": "y"})),
        "ensemble_scheduling.step[0].model_name' is 'e', the ensemble itself",
    ),
    "a version that cannot be": (
        ensemble(step("m", {"a": "x"}, {"b": "y"}, version=-2)),
        "ensemble_scheduling.step[0].model_version' must be a version, or -1 for the latest, not -2",
    ),
    "a namespace": (
        ensemble(ONE.replace("model_version", 'model_namespace: "n" model_version')),
        "ensemble_scheduling.step.model_namespace' is not supported by this server; remove it",
    ),
    "a step without inputs": (
        ensemble(step("m", {}, {"b": "y"})),
        "ensemble_scheduling.step[0].input_map' is missing; map the inputs of 'm'",
    ),
    "a step without outputs": (
        ensemble(step("m", {"a": "x"}, {})),
        "ensemble_scheduling.step[0].output_map' is missing; map the outputs of 'm'",
    ),
    "a tensor without a name": (
        ensemble(step("m", {"a": ""}, {"b": "y"})),
        "ensemble_scheduling.step[0].input_map['a']' has no value; name an ensemble tensor",
    ),
    "steps that lead nowhere": (ensemble(step("m", {"a": "x"}, {"b": "z"})), "output['y']' is not written by any step"),
}


@pytest.mark.parametrize(("text", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_by_field(text: str, problem: str) -> None:
    assert refusal(text).startswith("e/config.pbtxt: field '")
    assert problem in refusal(text)


def test_negative_batch_sizes_are_refused() -> None:
    with pytest.raises(ConfigInvalid, match="'max_batch_size' must be at least 0, not -1"):
        read(ensemble(ONE, max_batch_size=-1))


def test_another_way_to_schedule_cannot_be_given_beside() -> None:
    with pytest.raises(ConfigInvalid, match="dynamic_batching"):
        parse(ensemble(ONE, more="dynamic_batching { }"), "e/config.pbtxt")
