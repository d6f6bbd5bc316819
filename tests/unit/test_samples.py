"""Requests from a folder of samples: what fits is sent as it is, what does not is refused by name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loadtest.errors import LoadTestError
from loadtest.payload import Description
from loadtest.samples import sampled_workload, workload_for
from proto import grpc_service_pb2 as pb

PICTURE = b"\xff\xd8 as if it were a JPEG"


def describe(*, takes_pictures: bool = False, batching: bool = True, **inputs: tuple[str, list[int]]) -> Description:
    tensor = pb.ModelMetadataResponse.TensorMetadata
    metadata = pb.ModelMetadataResponse(
        name="m",
        inputs=[tensor(name=name, datatype=datatype, shape=shape) for name, (datatype, shape) in inputs.items()],
        outputs=[tensor(name="out", datatype="FP32", shape=[-1, 2])],
    )
    return Description(metadata, batching, takes_pictures)


def requests(description: Description, folder: Path) -> list[pb.ModelInferRequest]:
    return [pb.ModelInferRequest.FromString(body) for body in sampled_workload(description, folder).bodies]


def refusal(description: Description, folder: Path) -> str:
    with pytest.raises(LoadTestError) as refused:
        sampled_workload(description, folder)
    return str(refused.value)


def test_arrays_are_sent_whole_or_as_one_row_in_the_order_of_their_names(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32)
    np.save(tmp_path / "b.npy", values.reshape(1, 2, 3))
    np.save(tmp_path / "a.npy", values[::-1].reshape(2, 3))
    (tmp_path / "README.txt").write_text("not a sample")

    first, second = requests(describe(x=("FP32", [-1, 2, 3])), tmp_path)

    assert list(first.inputs[0].shape) == list(second.inputs[0].shape) == [1, 2, 3]
    assert first.raw_input_contents[0] == values[::-1].tobytes()
    assert second.raw_input_contents[0] == values.tobytes()


def test_rows_are_counted_along_the_batch_axis(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 2), np.int64))

    assert sampled_workload(describe(x=("INT64", [-1, 2])), tmp_path).rows == 4
    assert sampled_workload(describe(batching=False, x=("INT64", [-1, 2])), tmp_path).rows == 1


def test_several_inputs_come_in_one_archive_or_in_files_that_share_a_stem(tmp_path: Path) -> None:
    description = describe(x=("FP32", [-1, 1]), names=("BYTES", [-1, 2]))
    np.savez(tmp_path / "a.npz", names=np.array([["β", "long"]]), x=np.ones((1, 1), np.float32))
    np.save(tmp_path / "b.x.npy", np.zeros((1, 1), np.float32))
    np.save(tmp_path / "b.names.npy", np.array([[b"\x00\xff", b"-"]]))

    archive, files = requests(description, tmp_path)

    assert [tensor.name for tensor in archive.inputs] == [tensor.name for tensor in files.inputs] == ["x", "names"]
    assert archive.raw_input_contents[1] == b"\x02\0\0\0\xce\xb2\x04\0\0\0long"
    assert files.raw_input_contents[1] == b"\x02\0\0\0\x00\xff\x01\0\0\0-"


@pytest.mark.parametrize(
    ("datatype", "shape", "takes_pictures", "sent"),
    [("BYTES", [-1], False, [1]), ("BYTES", [-1, 1], False, [1, 1]), ("FP32", [-1, 3, 224, 224], True, [1])],
)
def test_an_encoded_picture_is_sent_as_it_is(
    tmp_path: Path, datatype: str, shape: list[int], takes_pictures: bool, sent: list[int]
) -> None:
    (tmp_path / "cat.JPG").write_bytes(PICTURE)

    (request,) = requests(describe(takes_pictures=takes_pictures, x=(datatype, shape)), tmp_path)

    assert (request.inputs[0].datatype, list(request.inputs[0].shape)) == ("BYTES", sent)
    assert request.raw_input_contents[0] == len(PICTURE).to_bytes(4, "little") + PICTURE


def test_pixels_go_to_a_model_that_takes_pictures(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((30, 40, 3), np.uint8))

    (request,) = requests(describe(takes_pictures=True, x=("FP32", [-1, 3, 24, 24])), tmp_path)

    assert (request.inputs[0].datatype, list(request.inputs[0].shape)) == ("UINT8", [1, 30, 40, 3])
    np.save(tmp_path / "a.npy", np.zeros((30, 40), np.uint8))
    assert "a.npy: pixels [30, 40]" in refusal(describe(takes_pictures=True, x=("FP32", [-1, 3, 24, 24])), tmp_path)


@pytest.mark.parametrize(
    ("array", "seen"),
    [
        (np.zeros((1, 3), np.float32), "array of float32 [1, 3]"),
        (np.zeros((1, 2), np.float64), "array of float64 [1, 2]"),
        (np.zeros((1, 1, 2), np.float32), "array of float32 [1, 1, 2]"),
        (np.array([["a", "b"]]), "array of <U1 [1, 2]"),
    ],
)
def test_an_array_that_does_not_fit_is_named_with_what_the_model_expects(
    tmp_path: Path, array: np.ndarray, seen: str
) -> None:
    np.save(tmp_path / "bad.npy", array)

    text = refusal(describe(x=("FP32", [-1, 2])), tmp_path)

    assert "bad.npy" in text and seen in text
    assert text.endswith("input 'x' of model 'm' is FP32 [-1, 2]: an array of float32")


def test_what_is_no_sample_of_the_model_is_refused_by_name(tmp_path: Path) -> None:
    one, two = describe(x=("FP32", [-1, 2])), describe(x=("FP32", [-1, 2]), y=("FP32", [-1, 2]))
    fits = np.zeros((1, 2), np.float32)
    assert "has no file that ends with .jpeg, .jpg, .npy, .npz, .png" in refusal(one, tmp_path)
    assert "is not a folder" in refusal(one, tmp_path / "nowhere")

    sample = tmp_path / "a.npy"
    sample.write_bytes(b"no array")
    assert "a.npy: numpy cannot read it" in refusal(one, tmp_path)
    np.save(sample, np.array([{"a": "pickle"}], dtype=object))
    assert "a.npy: numpy cannot read it" in refusal(one, tmp_path)
    np.save(sample, fits)
    assert "call it NAME.x.npy or NAME.y.npy" in refusal(two, tmp_path)
    sample.rename(tmp_path / "a.x.npy")
    assert re.search(r"a\.x\.npy: nothing for input \['y'\] of model 'm'", refusal(two, tmp_path))
    np.savez(tmp_path / "a.npz", x=fits, y=fits)
    assert re.search(r"a\.x\.npy: a\.npz has input 'x' of the same request", refusal(two, tmp_path))
    (tmp_path / "a.x.npy").unlink()
    np.savez(tmp_path / "a.npz", z=fits)
    assert "has no input ['z'], it has ['x', 'y']" in refusal(two, tmp_path)
    (tmp_path / "a.npz").unlink()
    (tmp_path / "a.png").write_bytes(PICTURE)
    assert "a.png: an encoded picture, but input 'x' of model 'm' is FP32 [-1, 2]" in refusal(one, tmp_path)


def test_samples_differ_in_rows_at_their_peril(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 2), np.float32))
    np.save(tmp_path / "b.npy", np.zeros((3, 2), np.float32))

    assert re.search(r"b\.npy: 'x' has 3 rows, a\.npy has 1", refusal(describe(x=("FP32", [-1, 2])), tmp_path))


def test_a_model_of_sequences_is_refused_by_name() -> None:
    sequences = replace(describe(x=("FP32", [-1, 2])), takes_sequences=True)

    with pytest.raises(LoadTestError, match="'m' takes sequences"):
        workload_for(sequences, shapes={}, samples=None, count=1, seed=0)
