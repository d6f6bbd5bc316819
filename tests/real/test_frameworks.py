"""Models of other frameworks on a real server: as they were exported, they answer what the framework answers.

Their answers were recorded where they were exported (`tests/frameworks`). Tritonclient asks, over gRPC and HTTP.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import np_to_triton_dtype

from tests.frameworks.cases import REFUSED, SERVED, Array, models, read_cases
from tests.real.clients import CALL_SECONDS
from tests.real.conftest import RunningServer, start

ALONE = {
    "branches": "its config.pbtxt says so",
    "lightgbm_classifier": "its graph says that there is one label",
    "scalars": "one of its tensors has no dimension",
}
"""The models whose requests run alone, and why."""

BATCHED = [model for model in models(SERVED) if model not in ALONE]

TOLERANCES = {
    "half_precision": 2e-3,
    "bfloat16": 2**-7,
    "quantised_static": 0.02,
    "quantised_dynamic": 0.02,  # also since the scale is taken over all rows of a batch
}
"""Of the answers that come from arithmetic with few bits; others are equal to the last bits of float32."""
EXACT = 1e-5

REASONS = {
    "dimension_of_zero": "tensor 'x': the model's own shape is [-1,0], and a size of 0 holds nothing",
    "float8": "output 'y' is a tensor(float8e4m3fn), a datatype that the protocol does not have",
    "format_too_new": "its format is IR version 99, and this ONNX Runtime reads up to",
    "lightgbm_classifier_zipmap": "output 'probabilities' is a seq(map(int64,tensor(float))), and maps have no place",
    "operator_of_later_opset": "it has the operator 'Gelu', which opset 18 does not have",
    "opset_too_new": "it is of opset 99 of ai.onnx, and this ONNX Runtime knows opsets up to",
    "opset_too_old": "it has the operator 'Relu' of opset 1, which ONNX Runtime cannot run here",
    "optional_input": "input 'maybe' is a optional(tensor(float)), and only tensors have a place in the protocol",
    "sequence_input": "input 'rows' is a seq(tensor(float)), and only tensors have a place in the protocol",
    "sklearn_classifier_zipmap": "export the model so that it gives a tensor (skl2onnx: options={'zipmap': False}",
    "small_letters_elsewhere": "its text operators want the locale 'xx_XX.UTF-8', which this machine does not have",
    "unknown_operator": "it has the operator 'birds:Fly', which ONNX Runtime does not have",
}

HOLD = "max_batch_size: %d dynamic_batching { max_queue_delay_microseconds: 600000000 }"
"""Requests wait until a batch is full: longer than any test."""


def rows_of(model: str) -> int:
    """How many rows the model's first case has."""
    return len(next(iter(read_cases(model)[0].inputs.values())))


def write_held(root: Path) -> Path:
    """All that can be batched once more, so that the rows of a case run when they are all there."""
    for model in BATCHED:
        shutil.copytree(SERVED / model, root / f"{model}_held")
        (root / f"{model}_held" / "config.pbtxt").write_text(HOLD % rows_of(model))
    return root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    held = write_held(tmp_path_factory.mktemp("held"))
    flags = (f"--model-repository={REFUSED}", f"--model-repository={held}")
    server = start(tmp_path_factory.mktemp("frameworks"), *flags, model_repository=SERVED)
    yield server
    assert server.terminate() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


@pytest.fixture(scope="module")
def grpc_client(server: RunningServer) -> Iterator[tritonclient.grpc.InferenceServerClient]:
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        yield client


@pytest.fixture(scope="module")
def http_client(server: RunningServer) -> Iterator[tritonclient.http.InferenceServerClient]:
    with tritonclient.http.InferenceServerClient(server.http_url.removeprefix("http://")) as client:
        yield client


def on_the_wire(array: Array, model: str) -> Array:
    """A tensor as clients see it: what is one number in the model is one element."""
    return array.reshape(-1, 1) if array.ndim == 1 and model not in ALONE else np.atleast_1d(array)


def infer_inputs(library: Any, model: str, inputs: dict[str, Array]) -> list[Any]:
    tensors = []
    for name, array in inputs.items():
        data = on_the_wire(array, model)
        tensor = library.InferInput(name, data.shape, np_to_triton_dtype(data.dtype))
        tensors.append(tensor.set_data_from_numpy(data))
    return tensors


def check_answer(model: str, answer: Any, expected: dict[str, Array]) -> None:
    for name, array in expected.items():
        wanted, got = on_the_wire(array, model), answer.as_numpy(name)
        assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype), name
        if wanted.dtype.kind in "fV":
            limit = TOLERANCES.get(model, EXACT)
            np.testing.assert_allclose(got.astype(np.float64), wanted.astype(np.float64), limit, limit, err_msg=name)
        else:
            np.testing.assert_array_equal(got, wanted, err_msg=name)


@pytest.mark.parametrize("model", models(SERVED))
def test_an_answer_over_grpc_is_the_frameworks_own(model: str, grpc_client: Any) -> None:
    for case in read_cases(model):
        answer = grpc_client.infer(model, infer_inputs(tritonclient.grpc, model, case.inputs))

        assert {tensor.name for tensor in answer.get_response().outputs} == set(case.outputs)
        check_answer(model, answer, case.outputs)


@pytest.mark.parametrize("model", models(SERVED))
def test_an_answer_over_http_is_the_frameworks_own(model: str, http_client: Any) -> None:
    for case in read_cases(model):
        check_answer(model, http_client.infer(model, infer_inputs(tritonclient.http, model, case.inputs)), case.outputs)


@pytest.mark.parametrize("model", BATCHED)
def test_rows_that_were_sent_one_by_one_share_a_batch_and_are_answered_alike(model: str, grpc_client: Any) -> None:
    case, rows, held = read_cases(model)[0], rows_of(model), f"{model}_held"
    answers: list[SimpleQueue[Any]] = [SimpleQueue() for _ in range(rows)]
    for row, done in enumerate(answers):
        inputs = {name: array[row : row + 1] for name, array in case.inputs.items()}
        tensors = infer_inputs(tritonclient.grpc, model, inputs)
        grpc_client.async_infer(held, tensors, lambda result, error, done=done: done.put(error or result))
    for row, done in enumerate(answers):
        expected = {name: array[row : row + 1] for name, array in case.outputs.items()}
        check_answer(model, done.get(timeout=CALL_SECONDS), expected)

    (statistics,) = grpc_client.get_inference_statistics(held).model_stats
    assert [(batch.batch_size, batch.compute_infer.count) for batch in statistics.batch_stats] == [(rows, 1)]


@pytest.mark.parametrize("model", models(SERVED))
def test_metadata_and_configuration_fit_the_tensors_that_the_framework_has(model: str, grpc_client: Any) -> None:
    metadata, config = grpc_client.get_model_metadata(model), grpc_client.get_model_config(model).config
    case = read_cases(model)[0]

    for tensors, described in ((case.inputs, metadata.inputs), (case.outputs, metadata.outputs)):
        assert [tensor.name for tensor in described] == list(tensors)
        for tensor in described:
            array = on_the_wire(tensors[tensor.name], model)
            assert tensor.datatype == np_to_triton_dtype(array.dtype)
            assert len(tensor.shape) == array.ndim
            assert all(dim in (-1, size) for dim, size in zip(tensor.shape[1:], array.shape[1:], strict=True))
            assert tensor.shape[0] == -1 or model in ALONE
    assert metadata.platform == "onnxruntime_onnx"
    assert config.max_batch_size == (0 if model in ALONE else 4)
    assert config.HasField("dynamic_batching") == (model not in ALONE)


def test_shapes_of_an_exported_network_are_as_the_exporter_wrote_them(http_client: Any) -> None:
    metadata = http_client.get_model_metadata("keras_recurrent")

    assert [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in metadata["inputs"]] == [
        ("tokens", "INT32", [-1, -1]),
        ("numbers", "FP32", [-1, 2]),
    ]
    assert [tensor["shape"] for tensor in metadata["outputs"]] == [[-1, 3], [-1, 1]]


def test_an_output_of_several_can_be_asked_for_alone(grpc_client: Any) -> None:
    (case,) = read_cases("sklearn_table")
    inputs = infer_inputs(tritonclient.grpc, "sklearn_table", case.inputs)
    answer = grpc_client.infer(
        "sklearn_table", inputs, outputs=[tritonclient.grpc.InferRequestedOutput("probabilities")]
    )

    assert [tensor.name for tensor in answer.get_response().outputs] == ["probabilities"]
    check_answer("sklearn_table", answer, {"probabilities": case.outputs["probabilities"]})


@pytest.mark.parametrize("model", models(REFUSED))
def test_what_cannot_be_served_says_why_and_what_to_do(model: str, grpc_client: Any) -> None:
    (found,) = (each for each in grpc_client.get_model_repository_index().models if each.name == model)

    assert found.state == "UNAVAILABLE"
    assert REASONS[model] in found.reason
    assert ";" in found.reason, "what to do follows what is wrong"
