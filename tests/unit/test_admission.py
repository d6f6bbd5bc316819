"""What a request may ask of a model: every refusal with its words, and the plan of what is let in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from server import tensors
from server.errors import InvalidRequest
from server.messages import InferenceRequest, RequestedOutput, TensorSpec
from server.models.admission import MAX_ELEMENTS, Plan, inputs_in_order, make_plan, pictures
from server.models.config import ModelConfig, TensorConfig
from server.tensors import Array, Buffer
from tests.fakes import model_config
from tests.pictures import preprocessing

LABEL = "[request id: r] "

IMAGE = TensorConfig("image", tensors.FP32, (3, 2, 2))
MASK = TensorConfig("mask", tensors.UINT8, (4,))
SCORES = TensorConfig("scores", tensors.FP32, (10,))
CAPTION = TensorConfig("caption", tensors.BYTES, (1,))

ONE = model_config([IMAGE], [SCORES])
TWO = model_config([IMAGE, MASK], [SCORES, CAPTION])
UNBATCHED = model_config([IMAGE], [SCORES], max_batch_size=0)

NOTE = (
    " NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension in front of every "
    "input shape; to state full shapes in the config, set max_batch_size to zero."
)


def image(*shape: int, datatype: str = "FP32") -> TensorSpec:
    return TensorSpec("image", datatype, shape)


def mask(*shape: int) -> TensorSpec:
    return TensorSpec("mask", "UINT8", shape)


def plan(config: ModelConfig, *specs: TensorSpec, outputs: Sequence[RequestedOutput] = ()) -> Plan:
    return make_plan(config, specs, tuple(outputs), LABEL)


SPEC_REFUSALS = {
    "wrong datatype": (
        ONE,
        [image(1, 3, 2, 2, datatype="FP64")],
        LABEL + "inference input 'image' data-type is 'FP64', but model 'm' expects 'FP32'",
    ),
    "unknown datatype": (
        ONE,
        [image(1, 3, 2, 2, datatype="FP8")],
        LABEL + "inference input 'image' data-type is 'FP8', but model 'm' expects 'FP32'",
    ),
    "wrong dimension": (
        ONE,
        [image(1, 3, 10, 10)],
        LABEL + "unexpected shape for input 'image' for model 'm'. Expected [-1,3,2,2], got [1,3,10,10]." + NOTE,
    ),
    "wrong rank": (
        ONE,
        [image(3, 2, 2)],
        LABEL + "unexpected shape for input 'image' for model 'm'. Expected [-1,3,2,2], got [3,2,2]." + NOTE,
    ),
    "wrong shape without batching": (
        UNBATCHED,
        [image(1, 3, 2, 2)],
        LABEL + "unexpected shape for input 'image' for model 'm'. Expected [3,2,2], got [1,3,2,2].",
    ),
    "no shape without batching": (
        UNBATCHED,
        [image()],
        LABEL + "unexpected shape for input 'image' for model 'm'. Expected [3,2,2], got [].",
    ),
    "free dimension": (
        ONE,
        [image(1, 3, -1, 2)],
        LABEL + "All input dimensions should be specified for input 'image' for model 'm', got [1,3,-1,2]",
    ),
    "free batch dimension": (
        ONE,
        [image(-1, 3, 2, 2)],
        LABEL + "All input dimensions should be specified for input 'image' for model 'm', got [-1,3,2,2]",
    ),
    "free dimension without batching": (
        UNBATCHED,
        [image(-1, 2, 2)],
        LABEL + "All input dimensions should be specified for input 'image' for model 'm', got [-1,2,2]",
    ),
    "too many rows": (ONE, [image(9, 3, 2, 2)], LABEL + "inference request batch-size must be <= 8 for 'm'"),
    "no rows": (ONE, [image(0, 3, 2, 2)], LABEL + "inference request batch-size must be >= 1 for 'm'"),
    "unequal rows": (
        TWO,
        [image(2, 3, 2, 2), mask(1, 4)],
        LABEL + "input 'mask' batch size does not match other inputs for 'm'",
    ),
    "no batch dimension": (
        ONE,
        [image()],
        LABEL + "input 'image' has no shape but model requires batch dimension for 'm'",
    ),
    "a missing input": (
        TWO,
        [image(1, 3, 2, 2)],
        LABEL + "expected 2 inputs but got 1 inputs for model 'm'. Got input(s) ['image'], but missing required "
        "input(s) ['mask']. Please provide all required input(s).",
    ),
    "no input": (
        TWO,
        [],
        LABEL + "expected 2 inputs but got 0 inputs for model 'm'. Got input(s) [], but missing required "
        "input(s) ['image','mask']. Please provide all required input(s).",
    ),
    "unknown input": (
        ONE,
        [image(1, 3, 2, 2), mask(1, 4)],
        "unexpected inference input 'mask' for model 'm'",
    ),
    "duplicate input": (
        ONE,
        [image(1, 3, 2, 2), image(1, 3, 2, 2)],
        LABEL + "input 'image' already exists in request",
    ),
}


@pytest.mark.parametrize(("config", "specs", "message"), SPEC_REFUSALS.values(), ids=SPEC_REFUSALS)
def test_a_request_that_does_not_fit_is_refused(config: ModelConfig, specs: list[TensorSpec], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        plan(config, *specs)
    assert str(caught.value) == message


OUTPUT_REFUSALS = {
    "unknown output": ([RequestedOutput("X")], "unexpected inference output 'X' for model 'm'"),
    "output asked for twice": (
        [RequestedOutput("scores"), RequestedOutput("scores", 1)],
        "output 'scores' is requested twice for model 'm'",
    ),
    "classes of text": (
        [RequestedOutput("caption", 2)],
        "classification is not possible for output 'caption' of model 'm': its datatype is BYTES",
    ),
}


@pytest.mark.parametrize(("outputs", "message"), OUTPUT_REFUSALS.values(), ids=OUTPUT_REFUSALS)
def test_an_output_that_cannot_be_given_is_refused(outputs: list[RequestedOutput], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        plan(TWO, image(1, 3, 2, 2), mask(1, 4), outputs=outputs)
    assert str(caught.value) == message


@pytest.mark.parametrize("datatype", [tensors.BOOL, tensors.FP16, tensors.BF16], ids=lambda datatype: datatype.name)
def test_classes_need_a_datatype_that_can_be_ranked(datatype: tensors.DataType) -> None:
    config = model_config([IMAGE], [TensorConfig("y", datatype, (10,))])
    with pytest.raises(InvalidRequest, match=f"its datatype is {datatype.name}$"):
        plan(config, image(1, 3, 2, 2), outputs=[RequestedOutput("y", 1)])


def test_without_a_request_all_outputs_are_given() -> None:
    chosen = plan(TWO, image(1, 3, 2, 2), mask(1, 4))
    assert chosen.names == ("scores", "caption")
    assert [output.classification for output in chosen.outputs] == [0, 0]


def test_requested_outputs_are_given_in_the_order_of_the_request() -> None:
    asked = [RequestedOutput("caption"), RequestedOutput("scores", 3)]
    chosen = plan(TWO, image(1, 3, 2, 2), mask(1, 4), outputs=asked)
    assert chosen.names == ("caption", "scores")
    assert [(output.config, output.classification) for output in chosen.outputs] == [(CAPTION, 0), (SCORES, 3)]


def test_inputs_may_come_in_any_order() -> None:
    reordered = plan(TWO, mask(2, 4), image(2, 3, 2, 2))
    assert reordered.order == (1, 0)
    assert [tensor.name for tensor in reordered.layout.inputs] == ["image", "mask"]


def test_a_plan_knows_rows_elements_and_bytes() -> None:
    two_rows = plan(TWO, image(2, 3, 2, 2), mask(2, 4))
    assert (two_rows.rows, two_rows.elements, two_rows.byte_sizes) == (2, (24, 8), (96, 8))
    assert [(t.row_shape, t.row_bytes) for t in two_rows.layout.inputs] == [((3, 2, 2), 48), ((4,), 4)]
    assert two_rows.layout.batched


def test_a_model_without_batching_takes_one_row_of_the_full_shape() -> None:
    whole = plan(UNBATCHED, image(3, 2, 2))
    assert (whole.rows, whole.byte_sizes, whole.layout.batched) == (1, (48,), False)
    assert whole.layout.inputs[0].row_shape == (3, 2, 2)


def test_a_full_batch_is_let_in() -> None:
    assert plan(ONE, image(8, 3, 2, 2)).rows == 8


FREE = model_config([TensorConfig("image", tensors.FP32, (3, -1, -1))], [SCORES])


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (0, 4)], ids=str)
def test_a_wildcard_takes_any_size(size: tuple[int, int]) -> None:
    chosen = plan(FREE, image(2, 3, *size))
    assert chosen.layout.inputs[0].row_shape == (3, *size)
    assert chosen.byte_sizes == (2 * 3 * size[0] * size[1] * 4,)


def test_a_wildcard_does_not_take_another_rank() -> None:
    with pytest.raises(InvalidRequest, match=r"Expected \[-1,3,-1,-1\], got \[2,3,7\]"):
        plan(FREE, image(2, 3, 7))


GIANTS = {
    "beyond any memory": (1, 3, 2**31, 2**31),
    "beyond 64 bits": (1, 3, 2**62, 2**62),
    "just too many": (1, 3, MAX_ELEMENTS // 3 + 1, 1),
    "empty, with a giant side": (1, 3, 0, 2**62),
}


@pytest.mark.parametrize("shape", GIANTS.values(), ids=GIANTS)
def test_a_giant_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="input 'image' for model 'm' has too many elements: "):
        plan(FREE, image(*shape))


def test_a_reshape_gives_the_shape_that_the_model_sees() -> None:
    config = model_config([TensorConfig("image", tensors.FP32, (12,), reshape=(3, 2, 2))], [SCORES])
    chosen = plan(config, image(2, 12))
    assert (chosen.layout.inputs[0].row_shape, chosen.byte_sizes) == ((3, 2, 2), (96,))


def test_a_reshape_fills_its_wildcards_in_order() -> None:
    config = model_config([TensorConfig("image", tensors.FP32, (-1, 4, -1), reshape=(-1, 2, 2, -1))], [SCORES])
    assert plan(config, image(1, 7, 4, 9)).layout.inputs[0].row_shape == (7, 2, 2, 9)


def test_a_scalar_for_each_row_is_a_reshape_to_nothing() -> None:
    config = model_config([TensorConfig("image", tensors.FP32, (1,), reshape=())], [SCORES])
    chosen = plan(config, image(5, 1))
    assert (chosen.layout.inputs[0].row_shape, chosen.byte_sizes, chosen.elements) == ((), (20,), (5,))


def data(config: ModelConfig, specs: Sequence[TensorSpec], *buffers: Buffer | Array | None) -> list[Buffer | Array]:
    request = InferenceRequest("m", "", "r", tuple(specs), buffers)
    return inputs_in_order(config, plan(config, *specs), request)


def test_data_is_handed_over_in_the_models_order() -> None:
    picture, bits = bytes(48), bytes(4)
    assert data(TWO, [mask(1, 4), image(1, 3, 2, 2)], bits, picture) == [picture, bits]


def test_a_wrong_number_of_bytes_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        data(ONE, [image(1, 3, 2, 2)], bytes(8))
    assert str(caught.value) == LABEL + "input byte size mismatch for input 'image' for model 'm'. Expected 48, got 8"


def test_an_array_of_a_wrong_size_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="Expected 48, got 44"):
        data(ONE, [image(1, 3, 2, 2)], np.zeros(11, dtype=np.float32))


def test_an_input_without_data_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        data(ONE, [image(1, 3, 2, 2)], None)
    assert str(caught.value) == "unable to find data for input tensor 'image' for model 'm' in request."


def test_an_input_without_elements_needs_no_data() -> None:
    assert data(FREE, [image(2, 3, 0, 4)], None) == [b""]


TEXT = model_config([TensorConfig("text", tensors.BYTES, (-1,))], [SCORES])


def text(*shape: int) -> list[TensorSpec]:
    return [TensorSpec("text", "BYTES", shape)]


def test_text_is_decoded() -> None:
    [words] = data(TEXT, text(1, 2), b"\x02\0\0\0\xc3\xa9\0\0\0\0")
    assert isinstance(words, np.ndarray)
    assert words.tolist() == ["é", ""]


def test_text_that_another_model_wrote_is_taken_as_it_is() -> None:
    written = np.array([["a", "b"]], dtype=object)
    [words] = data(TEXT, text(1, 2), written)
    assert words.tolist() == ["a", "b"]
    assert np.shares_memory(words, written)


def test_text_that_another_model_wrote_is_no_picture() -> None:
    config = model_config([TensorConfig("x", tensors.FP32, (3, 28, 28))], [], preprocessing=preprocessing())
    spec = TensorSpec("x", "BYTES", (1, 1))
    with pytest.raises(InvalidRequest, match="they are text that another model wrote, and no images"):
        pictures(config, plan(config, spec), np.array([["a"]], dtype=object), "")


def test_typed_text_is_decoded() -> None:
    [words] = data(TEXT, text(1, 2), np.array([b"a", b"b"], dtype=object))
    assert isinstance(words, np.ndarray)
    assert words.tolist() == ["a", "b"]


def test_text_without_elements_needs_no_data() -> None:
    [words] = data(TEXT, text(1, 0), None)
    assert isinstance(words, np.ndarray)
    assert words.tolist() == []


TEXT_REFUSALS = {
    "too few elements": (b"\0\0\0\0", "incorrect contents of BYTES input 'text' for model 'm': expected 2 elements"),
    "too few typed elements": (
        np.array([b"a"], dtype=object),
        "input 'text' for model 'm': expected 2 elements, got 1",
    ),
    "a broken length": (b"\x05\0\0\0a", "incorrect contents of BYTES input 'text' for model 'm': element 0 claims 5"),
    "not UTF-8": (b"\x01\0\0\0\xff\0\0\0\0", "input 'text' for model 'm' holds bytes that are not UTF-8 text: "),
    "no data": (None, "unable to find data for input tensor 'text' for model 'm' in request."),
}


@pytest.mark.parametrize(("contents", "message"), TEXT_REFUSALS.values(), ids=TEXT_REFUSALS)
def test_text_that_cannot_be_read_is_refused(contents: Buffer | Array | None, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        data(TEXT, text(1, 2), contents)
