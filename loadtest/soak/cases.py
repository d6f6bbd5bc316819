"""Requests whose answers are known before they are sent, in every form that the protocols have. Pure but for `Zoo`."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from loadtest.errors import WrongAnswerError
from loadtest.payload import NUMPY_TYPES, pack_bytes
from loadtest.soak import models
from proto import grpc_service_pb2 as pb

Array = np.ndarray[Any, Any]
Answer = Mapping[str, Array]
"""Outputs by name; BYTES are arrays of objects, `bytes` each."""

LARGEST_ROW = 1 << 18
"""Elements of FP32: a megabyte."""
_LARGEST_NUMBER = 1000
"""All sums and products of such integers are exact in FP32."""
_DATATYPES = {np.dtype(code).str: name for name, code in NUMPY_TYPES.items()}
_SIDE = 32
_PICTURES = 32
_CACHED_REQUESTS = 64


@dataclass(frozen=True)
class Case:
    """One request and its answer."""

    model: str
    inputs: Mapping[str, Array]
    """Arrays; objects are BYTES."""
    expected: Answer
    tolerance: float = 0.0

    def request(self, **parameters: object) -> pb.ModelInferRequest:
        """As gRPC has it, tensors raw. Parameters are of the request: bool, int or text."""
        request = pb.ModelInferRequest(model_name=self.model)
        for name, array in self.inputs.items():
            request.inputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
            request.raw_input_contents.append(raw(array))
        for name, value in parameters.items():
            kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
            setattr(request.parameters[name], kind, value)
        return request

    def json(self) -> bytes:
        """The body of the HTTP request, all of it JSON."""
        inputs = [
            {"name": name, "datatype": datatype_of(array), "shape": list(array.shape), "data": _plain(array)}
            for name, array in self.inputs.items()
        ]
        return json.dumps({"inputs": inputs}).encode()

    def check(self, answer: Answer) -> None:
        """Raises WrongAnswerError unless `answer` is what this request must get."""
        if set(answer) != set(self.expected):
            raise WrongAnswerError(f"{self.model}: outputs {sorted(answer)}, expected {sorted(self.expected)}")
        for name, expected in self.expected.items():
            got = answer[name]
            if got.shape != expected.shape:
                raise WrongAnswerError(f"{self.model}.{name}: shape {got.shape}, expected {expected.shape}")
            if self.tolerance:
                right = np.allclose(got, expected, rtol=0, atol=self.tolerance)
            else:
                right = np.array_equal(got, expected)
            if not right:
                raise WrongAnswerError(f"{self.model}.{name}: {_start(got)}, expected {_start(expected)}")


class Zoo:
    """Makes cases by a random generator; holds what LeNet-5 answers to some pictures, computed here."""

    def __init__(self, repository: Path) -> None:
        """Runs the committed LeNet-5 on its pictures with ONNX Runtime, in this process."""
        import onnxruntime

        random = np.random.default_rng(0)
        self._pixels = random.integers(0, 256, (_PICTURES, _SIDE, _SIDE), dtype=np.uint8)
        # The model's `image.scale` and `image.mean`.
        self._tensors = (self._pixels[:, None].astype(np.float32) * -0.005) + np.float32(1.175)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            repository / models.LENET5 / "1" / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        (self._probabilities,) = session.run(None, {session.get_inputs()[0].name: self._tensors})
        self._files = [_png(pixels) for pixels in self._pixels]

    def affine(self, random: Random, model: str = models.AFFINE, *, columns: int = 0) -> Case:
        """Up to `models.MAX_ROWS` rows of one to 64 elements, or one of `columns`."""
        rows = 1 if columns else random.choice((1, 1, 2, 4, models.MAX_ROWS))
        seed = random.randrange(_CACHED_REQUESTS if model == models.CACHED else 1 << 32)
        numbers = np.random.default_rng(seed)
        shape = (rows, columns or random.choice((1, 4, 64)))
        x = numbers.integers(-_LARGEST_NUMBER, _LARGEST_NUMBER, shape).astype(np.float32)
        y = 3 * x + 1
        return Case(model, {"x": x}, {"y": 3 * y + 1 if model == models.PAIR else y})

    def lenet5(self, random: Random, *, encoded: bool = False) -> Case:
        """Up to 8 pictures; `encoded` as PNG, which the server decodes."""
        chosen = random.choices(range(_PICTURES), k=random.choice((1, 1, 2, 8)))
        files = np.array([self._files[index] for index in chosen], dtype=np.object_)
        picture = files if encoded else self._tensors[chosen]
        return Case(models.LENET5, {"input": picture}, {"probabilities": self._probabilities[chosen]}, 1e-4)

    def text(self, random: Random) -> Case:
        """Up to 8 rows of two strings of up to 200 bytes, all of them letters of two bytes in UTF-8."""
        rows = random.choice((1, 2, 8))
        words = [("ä" * random.randrange(100)).encode() + b"%d" % random.randrange(10) for _ in range(2 * rows)]
        x = np.array(words, dtype=np.object_).reshape(rows, 2)
        return Case(models.TEXT, {"x": x}, {"y": x})

    def any(self, random: Random) -> Case:
        """One of all that need no more than one request."""
        makers = (
            self.affine,
            lambda chance: self.affine(chance, models.CACHED),
            lambda chance: self.affine(chance, models.PAIR),
            lambda chance: self.affine(chance, models.RELOADED),
            self.lenet5,
            lambda chance: self.lenet5(chance, encoded=True),
            self.text,
        )
        return random.choice(makers)(random)

    def sequence(self, random: Random) -> list[Case]:
        """The requests of one sequence, each with the sum so far."""
        numbers = [random.randrange(-_LARGEST_NUMBER, _LARGEST_NUMBER) for _ in range(random.randrange(2, 9))]
        sums = np.cumsum(numbers)
        return [
            Case(models.TOTAL, {"x": np.full((1, 1), x, np.float32)}, {"y": np.full((1, 1), y, np.float32)})
            for x, y in zip(numbers, sums, strict=True)
        ]


def datatype_of(array: Array) -> str:
    """The protocol's name."""
    return "BYTES" if array.dtype == np.object_ else _DATATYPES[array.dtype.str]


def raw(array: Array) -> bytes:
    """As raw_input_contents has it."""
    return pack_bytes(array.ravel()) if array.dtype == np.object_ else array.tobytes()


def answer_of(response: pb.ModelInferResponse) -> Answer:
    """The tensors of a gRPC answer. Raises WrongAnswerError where they are no tensors."""
    try:
        return {
            output.name: _array(output.datatype, tuple(output.shape), contents)
            for output, contents in zip(response.outputs, response.raw_output_contents, strict=True)
        }
    except (KeyError, ValueError, struct.error) as error:
        raise WrongAnswerError(f"no tensors: {error!r}") from error


def answer_of_json(body: bytes) -> Answer:
    """The tensors of an HTTP answer that is JSON. Raises WrongAnswerError where they are no tensors."""
    try:
        return {
            output["name"]: _from_plain(output["datatype"], output["shape"], output["data"])
            for output in json.loads(body)["outputs"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise WrongAnswerError(f"no tensors: {error!r}") from error


def _array(datatype: str, shape: tuple[int, ...], contents: bytes) -> Array:
    if datatype == "BYTES":
        return np.array(list(_elements(contents)), dtype=np.object_).reshape(shape)
    return np.frombuffer(contents, NUMPY_TYPES[datatype]).reshape(shape)


def _elements(contents: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(contents):
        (length,) = struct.unpack_from("<I", contents, position)
        position += 4 + length
        yield contents[position - length : position]


def _from_plain(datatype: str, shape: list[int], data: list[Any]) -> Array:
    if datatype == "BYTES":
        return np.array([element.encode() for element in data], dtype=np.object_).reshape(shape)
    return np.array(data, NUMPY_TYPES[datatype]).reshape(shape)


def _plain(array: Array) -> list[Any]:
    flat = array.ravel().tolist()
    return [element.decode() for element in flat] if array.dtype == np.object_ else flat


def _png(pixels: Array) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _start(array: Array) -> str:
    return f"{array.ravel()[:4].tolist()} …"
