"""Requests from a folder of samples, checked against what the server says of the model before anything is sent.

- `*.npz`: one request each, an array for each input, by its name.
- `*.npy`, `*.jpg`, `*.jpeg`, `*.png`: one input of a request each. For a model with one input the name is free. For
  others it ends with the input's, `STEM.INPUT.npy`: files of one stem are one request.

An array is whole, or one row without its batch axis. BYTES are arrays of bytes or text. A picture goes as it is,
encoded, into an input of BYTES, or into that of a model which decodes pictures; such a model takes uint8 pixels too.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.errors import LoadTestError
from loadtest.payload import NUMPY_TYPES, Description, Shape, Tensor, Workload, make_workload, pack_bytes, workload_of
from proto import grpc_service_pb2 as pb

_PICTURES = {".jpg", ".jpeg", ".png"}
_ARRAYS = {".npy", ".npz"}
# The protocol's BF16 has no numpy type: its two bytes come as an unsigned integer.
_ARRAY_TYPES = NUMPY_TYPES | {"BF16": "<u2"}

Spec = pb.ModelMetadataResponse.TensorMetadata


def workload_for(
    description: Description, *, shapes: dict[str, Shape], samples: Path | None, count: int, seed: int
) -> Workload:
    """What is sent to the model: the samples, all of them, or else `count` requests by `make_workload`.

    A LoadTestError for a model of sequences: the same few requests in any order are none.
    """
    if description.takes_sequences:
        raise LoadTestError(
            f"model '{description.metadata.name}' takes sequences, whose requests have ids and an order; here all "
            "requests are independent. perf_analyzer sends sequences"
        )
    if samples is not None:
        return sampled_workload(description, samples)
    return make_workload(description.metadata, batching=description.batching, shapes=shapes, count=count, seed=seed)


def sampled_workload(description: Description, folder: Path) -> Workload:
    """A request for each sample in `folder`, by name. A LoadTestError names the file, and what the model expects."""
    if not folder.is_dir():
        raise LoadTestError(f"--samples {folder} is not a folder")
    requests: dict[str, dict[str, Tensor]] = {}
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _PICTURES | _ARRAYS:
            for stem, tensor in _tensors(description, path):
                request = requests.setdefault(stem, {})
                if tensor.name in request:
                    raise LoadTestError(f"{path}: {files[stem].name} has input '{tensor.name}' of the same request")
                request[tensor.name] = tensor
                files[stem] = path
    if not requests:
        raise LoadTestError(f"--samples {folder} has no file that ends with {', '.join(sorted(_ARRAYS | _PICTURES))}")
    for stem, request in requests.items():
        missing = [spec.name for spec in description.metadata.inputs if spec.name not in request]
        if missing:
            raise LoadTestError(f"{files[stem]}: nothing for input {missing} of model '{description.metadata.name}'")
    _check_rows(description, requests, files)
    ordered = [[request[spec.name] for spec in description.metadata.inputs] for request in requests.values()]
    return workload_of(description.metadata, ordered, batching=description.batching)


def _check_rows(description: Description, requests: dict[str, dict[str, Tensor]], files: dict[str, Path]) -> None:
    if not description.batching:
        return
    first: tuple[int, Path] | None = None
    for stem, request in requests.items():
        for tensor in request.values():
            first = first or (tensor.shape[0], files[stem])
            if tensor.shape[0] != first[0]:
                raise LoadTestError(
                    f"{files[stem]}: '{tensor.name}' has {tensor.shape[0]} rows, {first[1].name} has {first[0]}: "
                    "all samples of a model have the same number of rows, so that answers can be counted"
                )


def _tensors(description: Description, path: Path) -> list[tuple[str, Tensor]]:
    """What `path` holds, each with the stem of the request that it is part of."""
    specs = {spec.name: spec for spec in description.metadata.inputs}
    if path.suffix.lower() == ".npz":
        arrays = _load(path)
        unknown = sorted(set(arrays) - set(specs))
        if unknown:
            raise LoadTestError(f"{path}: {_no_input(description, unknown)}")
        return [(path.stem, _from_array(description, specs[name], array, path)) for name, array in arrays.items()]
    stem, spec = _stem_and_input(description, path)
    if path.suffix.lower() == ".npy":
        return [(stem, _from_array(description, spec, _load(path), path))]
    return [(stem, _from_picture(description, spec, path))]


def _stem_and_input(description: Description, path: Path) -> tuple[str, Spec]:
    for spec in description.metadata.inputs:
        if path.stem.endswith(f".{spec.name}"):
            return path.stem.removesuffix(f".{spec.name}"), spec
    if len(description.metadata.inputs) == 1:
        return path.stem, description.metadata.inputs[0]
    wanted = " or ".join(f"NAME.{spec.name}{path.suffix}" for spec in description.metadata.inputs)
    raise LoadTestError(f"{path}: does not say which input it is; call it {wanted}")


def _no_input(description: Description, names: Iterable[str]) -> str:
    inputs = [spec.name for spec in description.metadata.inputs]
    return f"model '{description.metadata.name}' has no input {list(names)}, it has {inputs}"


def _load(path: Path) -> Any:
    """An array, or a dictionary of them."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return dict(loaded)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise LoadTestError(f"{path}: numpy cannot read it: {error}") from error


def _from_array(description: Description, spec: Spec, array: Any, path: Path) -> Tensor:
    if array.dtype == np.uint8 and spec.datatype != "UINT8" and description.takes_pictures:
        shape = array.shape if array.ndim == 4 else (1, *array.shape)
        if len(shape) != 4:
            raise LoadTestError(
                f"{path}: pixels {list(array.shape)}, expected height, width and channels, with or without rows"
            )
        return Tensor(spec.name, "UINT8", shape, array.tobytes())
    if spec.datatype == "BYTES":
        typed = array.dtype.kind in "SU"
        expected = "bytes or text"
    else:
        expected = str(np.dtype(_ARRAY_TYPES[spec.datatype]))
        typed = array.dtype.newbyteorder("=") == np.dtype(_ARRAY_TYPES[spec.datatype]).newbyteorder("=")
    shape = _whole(description, spec, array.shape)
    if not typed or shape is None:
        raise LoadTestError(
            f"{path}: array of {array.dtype} {list(array.shape)}, but input '{spec.name}' of model "
            f"'{description.metadata.name}' is {spec.datatype} {list(spec.shape)}: an array of {expected}"
        )
    if spec.datatype == "BYTES":
        texts = array.reshape(-1).tolist()
        data = pack_bytes(text if isinstance(text, bytes) else text.encode() for text in texts)
    else:
        data = array.astype(_ARRAY_TYPES[spec.datatype]).tobytes()
    return Tensor(spec.name, spec.datatype, shape, data)


def _from_picture(description: Description, spec: Spec, path: Path) -> Tensor:
    shape: Shape | None
    if spec.datatype == "BYTES":
        shape = _whole(description, spec, (1,) * len(spec.shape))
    else:
        shape = (1,) if description.takes_pictures else None
    if shape is None:
        raise LoadTestError(
            f"{path}: an encoded picture, but input '{spec.name}' of model '{description.metadata.name}' is "
            f"{spec.datatype} {list(spec.shape)}, and no parameter image.* of the model says how pictures become that"
        )
    return Tensor(spec.name, "BYTES", shape, pack_bytes([path.read_bytes()]))


def _whole(description: Description, spec: Spec, shape: tuple[int, ...]) -> Shape | None:
    """`shape` with its batch axis, or None where it does not fit."""
    if description.batching and len(shape) == len(spec.shape) - 1:
        shape = (1, *shape)
    fits = len(shape) == len(spec.shape) and all(
        want in (-1, have) for want, have in zip(spec.shape, shape, strict=True)
    )
    return shape if fits else None
