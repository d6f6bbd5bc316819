"""model_warmup in config.pbtxt."""

from __future__ import annotations

import pytest

from server import tensors
from server.models.config_types import Fill, WarmupInput, WarmupSample
from tests.unit.test_config import TENSORS, configure, refusal

X = 'inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 4 ] zero_data: true } }'


def warmup(sample: str) -> str:
    return f"max_batch_size: 4 {TENSORS} model_warmup {{ {sample} }}"


def test_every_kind_of_sample_is_read() -> None:
    config = configure(
        f"""
        max_batch_size: 4 {TENSORS}
        model_warmup {{ name: "zeros" batch_size: 4 count: 3 {X} }}
        model_warmup {{
          name: "more" batch_size: 1
          inputs {{ key: "b" value {{ data_type: TYPE_STRING dims: [ 1 ] input_data_file: "words.bin" }} }}
          inputs {{ key: "a" value {{ data_type: TYPE_INT64 dims: [ 2, 3 ] random_data: true }} }}
        }}
        """
    )
    assert config.warmup == (
        WarmupSample("zeros", 4, (WarmupInput("x", tensors.FP32, (4,), Fill.ZERO),), 3),
        WarmupSample(
            "more",
            1,
            (
                WarmupInput("a", tensors.INT64, (2, 3), Fill.RANDOM),
                WarmupInput("b", tensors.BYTES, (1,), Fill.FILE, "words.bin"),
            ),
            1,
        ),
    )


def test_without_samples_there_is_no_warm_up() -> None:
    assert configure(TENSORS).warmup == ()


REFUSALS = {
    "no name": (f"batch_size: 1 {X}", "model_warmup[0].name' is missing"),
    "no batch size": (f'name: "s" {X}', "model_warmup[0].batch_size' must be 1 to max_batch_size, which is 4, not 0"),
    "too large a batch": (f'name: "s" batch_size: 5 {X}', "must be 1 to max_batch_size, which is 4, not 5"),
    "no datatype": (X.replace("data_type: TYPE_FP32", ""), "model_warmup[0].inputs['x'].data_type' is missing"),
    "a free dimension": (X.replace("4", "-1"), "model_warmup[0].inputs['x'].dims' must hold sizes of at least 1"),
    "no data": (X.replace("zero_data: true", ""), "model_warmup[0].inputs['x']' has no data; give one of zero_data"),
    "no zeros": (X.replace("true", "false"), "model_warmup[0].inputs['x'].zero_data' must be true"),
}


@pytest.mark.parametrize(("sample", "problem"), REFUSALS.values(), ids=REFUSALS)
def test_an_impossible_sample_is_refused_with_its_field(sample: str, problem: str) -> None:
    text = sample if "size" in sample or "name" in sample else f'name: "s" batch_size: 1 {sample}'
    message = refusal(warmup(text))
    assert message.startswith("m/config.pbtxt: field 'model_warmup[0]")
    assert problem in message


def test_samples_do_not_run_for_ever() -> None:
    twice = f'name: "s" batch_size: 1 count: 5001 {X} }} model_warmup {{ name: "t" batch_size: 1 count: 5000 {X}'
    assert "field 'model_warmup' may run 10000 times in all, not 10001; lower count" in refusal(warmup(twice))


@pytest.mark.parametrize("datatype", ["FP64", "STRING"])
def test_a_sample_larger_than_any_request_is_refused_before_it_is_made(datatype: str) -> None:
    data = f"data_type: TYPE_{datatype} dims: [ 1073741824, 1073741824 ] zero_data: true"
    message = refusal(warmup(f'name: "s" batch_size: 1 inputs {{ key: "x" value {{ {data} }} }}'))
    assert "field 'model_warmup[0].inputs['x'].dims' make " in message
    assert "and no request may have more than 2147483648" in message


def test_a_model_that_does_not_batch_has_samples_of_one() -> None:
    message = refusal(f'{TENSORS} model_warmup {{ name: "s" batch_size: 2 {X} }}')
    assert "field 'model_warmup[0].batch_size' must be 1: the model does not batch, not 2" in message


@pytest.mark.parametrize(("value", "wanted"), [("true", True), ("false", False), (None, None)])
def test_filling_up_is_asked_for_refused_or_left_open(value: str | None, wanted: bool | None) -> None:
    parameter = f'parameters {{ key: "pad_to_bucket" value {{ string_value: "{value}" }} }}' if value else ""
    assert configure(f"max_batch_size: 4 {TENSORS} {parameter}").pad_to_bucket is wanted


def test_a_model_without_a_batch_axis_cannot_be_filled_up() -> None:
    message = refusal(f'{TENSORS} parameters {{ key: "pad_to_bucket" value {{ string_value: "true" }} }}')
    assert "field 'parameters['pad_to_bucket']' needs max_batch_size of at least 1" in message
