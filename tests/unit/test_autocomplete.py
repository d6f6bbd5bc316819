"""What is filled in from the graph, and where configuration and graph disagree."""

from __future__ import annotations

import pytest

from proto import model_config_pb2 as pb
from server.backends.base import GraphTensor
from server.errors import ConfigInvalid
from server.models.config import ModelConfig, TensorConfig, WindowBatching, complete, parse
from server.tensors import BF16, BYTES, FP32, INT64
from tests.unit.test_config import no_file

IMAGES = GraphTensor("images", FP32, (-1, 3, 224, 224))
LOGITS = GraphTensor("logits", FP32, (-1, 10))

IMAGES_CONFIG = 'input { name: "images" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] }\n'
LOGITS_CONFIG = 'output { name: "logits" data_type: TYPE_FP32 dims: [ 10 ] }\n'


def configure(
    text: str = "",
    inputs: tuple[GraphTensor, ...] = (IMAGES,),
    outputs: tuple[GraphTensor, ...] = (LOGITS,),
    default_max_batch_size: int = 4,
    autocomplete: bool = True,
) -> ModelConfig:
    return complete(
        parse(text, "config.pbtxt"),
        folder_name="m",
        source="config.pbtxt",
        inputs=inputs,
        outputs=outputs,
        labels=lambda filename: (filename,),
        initial_state=no_file,
        default_max_batch_size=default_max_batch_size,
        autocomplete=autocomplete,
    )


def served(config: ModelConfig) -> pb.ModelConfig:
    return pb.ModelConfig.FromString(config.serialized)


def test_a_model_without_config_takes_everything_from_its_graph() -> None:
    config = configure()
    assert config.inputs == (TensorConfig("images", FP32, (3, 224, 224)),)
    assert config.outputs == (TensorConfig("logits", FP32, (10,)),)
    assert (config.max_batch_size, config.batching) == (4, WindowBatching())


def test_the_served_message_is_complete() -> None:
    expected = parse(
        """
        name: "m" platform: "onnxruntime_onnx" backend: "onnxruntime"
        version_policy { latest { num_versions: 1 } }
        max_batch_size: 4
        input { name: "images" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] }
        output { name: "logits" data_type: TYPE_FP32 dims: [ 10 ] }
        instance_group { name: "m_0" count: 1 kind: KIND_CPU }
        default_model_filename: "model.onnx"
        dynamic_batching {}
        """,
        "expected",
    )
    assert served(configure()) == expected


def test_datatypes_are_named_as_the_configuration_names_them() -> None:
    graph = (GraphTensor("text", BYTES, (-1, 1)), GraphTensor("half", BF16, (-1, 1)))
    assert [tensor.data_type for tensor in served(configure("", graph)).input] == [pb.TYPE_STRING, pb.TYPE_BF16]


def test_a_given_batch_size_stays_and_turns_batching_on() -> None:
    config = configure("max_batch_size: 8")
    assert (config.max_batch_size, config.batching) == (8, WindowBatching())


def test_a_given_scheduler_stays() -> None:
    config = configure("dynamic_batching { max_queue_delay_microseconds: 100 }")
    assert config.batching == WindowBatching(max_queue_delay_us=100)


@pytest.mark.parametrize(("default", "size"), [(1, 1), (0, 0)])
def test_no_batching_is_added_for_batches_of_one(default: int, size: int) -> None:
    config = configure(default_max_batch_size=default)
    assert (config.max_batch_size, config.batching) == (size, None)


def test_nothing_is_filled_in_where_inputs_and_outputs_are_given() -> None:
    text = IMAGES_CONFIG.replace("[ 3", "[ -1, 3") + LOGITS_CONFIG.replace("[ 10", "[ -1, 10")
    config = configure(text)
    assert (config.max_batch_size, config.batching) == (0, None)


def test_outputs_alone_are_filled_in_beside_given_inputs() -> None:
    config = configure(IMAGES_CONFIG)
    assert (config.max_batch_size, config.outputs) == (4, (TensorConfig("logits", FP32, (10,)),))


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        pytest.param((IMAGES,), (GraphTensor("logits", FP32, (1, 10)),), id="an output of fixed size"),
        pytest.param((IMAGES, GraphTensor("k", INT64, ())), (LOGITS,), id="a scalar input"),
        pytest.param((), (LOGITS,), id="no inputs"),
    ],
)
def test_a_graph_that_cannot_batch_keeps_full_shapes(
    inputs: tuple[GraphTensor, ...], outputs: tuple[GraphTensor, ...]
) -> None:
    config = configure("", inputs, outputs)
    assert (config.max_batch_size, config.batching) == (0, None)
    assert [tensor.model_dims for tensor in config.inputs] == [tensor.shape for tensor in inputs]
    assert [tensor.model_dims for tensor in config.outputs] == [tensor.shape for tensor in outputs]


def test_a_batch_size_for_a_graph_that_cannot_batch_is_refused() -> None:
    message = (
        "config.pbtxt: autofill failed for model 'm': model does not support batching while non-zero max_batch_size"
        " is specified"
    )
    with pytest.raises(ConfigInvalid, match=f"^{message}$"):
        configure("max_batch_size: 8", (GraphTensor("images", FP32, (1, 3)),))


def test_a_scalar_per_sample_is_sent_as_one_element() -> None:
    config = configure("", (GraphTensor("k", INT64, (-1,)),))
    assert config.inputs == (TensorConfig("k", INT64, (1,), ()),)
    assert served(config).input[0].HasField("reshape")


def test_a_scalar_without_batching_is_sent_as_one_element_and_served_as_triton_does() -> None:
    config = configure("", (GraphTensor("k", INT64, ()),))
    assert config.inputs == (TensorConfig("k", INT64, (1,), ()),)
    assert not served(config).input[0].HasField("reshape")


def test_switched_off_it_fills_nothing_in() -> None:
    with pytest.raises(ConfigInvalid, match="field 'output' is missing; list the model's outputs or leave auto-comp"):
        configure(autocomplete=False)


def test_the_message_given_is_left_as_it_is() -> None:
    message = parse("", "config.pbtxt")
    complete(
        message,
        folder_name="m",
        source="s",
        inputs=[IMAGES],
        outputs=[LOGITS],
        labels=lambda filename: (filename,),
        initial_state=no_file,
    )
    assert message == pb.ModelConfig()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("", "", id="as the graph says"),
        pytest.param("[ 3, 224, 224 ]", "[ 150528 ] reshape { shape: [ 3, 224, 224 ] }", id="with a reshape"),
    ],
)
def test_a_configuration_that_agrees_with_the_graph_is_taken(old: str, new: str) -> None:
    config = configure("max_batch_size: 8 " + (IMAGES_CONFIG + LOGITS_CONFIG).replace(old, new, 1))
    assert config.inputs[0].model_dims == (3, 224, 224)


def test_a_free_dimension_of_the_graph_may_be_fixed_by_the_configuration() -> None:
    config = configure("max_batch_size: 8 " + IMAGES_CONFIG + LOGITS_CONFIG, (IMAGES._replace(shape=(-1,) * 4),))
    assert config.inputs[0].dims == (3, 224, 224)


def test_an_output_of_the_graph_may_be_left_out() -> None:
    extra = GraphTensor("features", FP32, (-1, 84))
    config = configure("max_batch_size: 8 " + IMAGES_CONFIG + LOGITS_CONFIG, (IMAGES,), (extra, LOGITS))
    assert [tensor.name for tensor in config.outputs] == ["logits"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            "max_batch_size: 8 " + IMAGES_CONFIG.replace("images", "image") + LOGITS_CONFIG,
            "model 'm': unexpected inference input 'image', allowed inputs are: images, mask",
            id="an unknown input",
        ),
        pytest.param(
            "max_batch_size: 8 " + IMAGES_CONFIG + LOGITS_CONFIG,
            "model 'm': configuration expects 1 inputs, model provides 2; add input(s): mask",
            id="a missing input",
        ),
        pytest.param(
            "max_batch_size: 8 " + IMAGES_CONFIG.replace("FP32", "UINT8") + LOGITS_CONFIG,
            "model 'm', tensor 'images': the model expects data-type FP32 but the model configuration specifies UINT8",
            id="another datatype",
        ),
        pytest.param(
            IMAGES_CONFIG + LOGITS_CONFIG,
            "model 'm', tensor 'images': the model expects 4 dimensions (shape [-1,3,224,224]) but the model"
            " configuration specifies 3 dimensions (shape [3,224,224])",
            id="a rank without batch dimension",
        ),
        pytest.param(
            "max_batch_size: 8 " + IMAGES_CONFIG.replace("[ 3", "[ -1, 3") + LOGITS_CONFIG,
            "model 'm', tensor 'images': the model expects 4 dimensions (shape [-1,3,224,224]) but the model"
            " configuration specifies 5 dimensions (an initial batch dimension because max_batch_size > 0 followed by"
            " the explicit tensor shape, making complete shape [-1,-1,3,224,224])",
            id="a rank with the batch dimension twice",
        ),
        pytest.param(
            "max_batch_size: 8 " + IMAGES_CONFIG.replace("3,", "1,") + LOGITS_CONFIG,
            "model 'm', tensor 'images': the model expects shape [-1,3,224,224] but the model configuration specifies"
            " shape [-1,1,224,224]",
            id="another size",
        ),
        pytest.param(
            "max_batch_size: 8 " + IMAGES_CONFIG.replace("3,", "-1,") + LOGITS_CONFIG,
            "model 'm', tensor 'images': the model expects shape [-1,3,224,224] but the model configuration specifies"
            " shape [-1,-1,224,224]",
            id="a free size where the model's is fixed",
        ),
    ],
)
def test_a_disagreement_with_the_graph_is_explained(text: str, problem: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        configure(text, (IMAGES, GraphTensor("mask", FP32, (-1, 1))))
    assert str(caught.value) == f"config.pbtxt: {problem}"


def test_an_unknown_output_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="unexpected inference output 'scores', allowed outputs are: logits"):
        configure("max_batch_size: 8 " + IMAGES_CONFIG + LOGITS_CONFIG.replace("logits", "scores"))


def test_batching_needs_a_free_first_dimension() -> None:
    with pytest.raises(ConfigInvalid, match=r"first dimension must be -1; but shape expected by the model is \[1,3,22"):
        configure("max_batch_size: 8 " + IMAGES_CONFIG + LOGITS_CONFIG, (IMAGES._replace(shape=(1, 3, 224, 224)),))


@pytest.mark.parametrize("shape", [(-1, 0), (0, 3)])
def test_a_size_that_the_graph_fixes_at_zero_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ConfigInvalid, match=r"tensor 'images': the model's own shape is \[.*export it with a free"):
        configure(inputs=(GraphTensor("images", FP32, shape),))
