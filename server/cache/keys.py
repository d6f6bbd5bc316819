"""Keys of answers: a hash over all that decides an answer.

BLAKE3 (256 bits), not the 64-bit hash that is usual for caches: whoever can find two inputs of one key can make another
caller get an answer that is not theirs. It is several times as quick as any hash of the standard library on inputs of
pictures (docs/cache.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from blake3 import blake3

from server.messages import RequestedOutput, TensorSpec
from server.tensors import Array, Buffer, encode_bytes_elements

Beginning = blake3
"""A hash that has seen what requests of one shape have in common."""

_ABSENT = b"\xff" * 8


def beginning(identity: bytes, specs: Sequence[TensorSpec], outputs: Sequence[RequestedOutput]) -> Beginning:
    """What is the same for all requests of one shape. `identity` tells one load of a model from any other."""
    shape = repr((tuple(map(tuple, specs)), tuple(map(tuple, outputs)))).encode()
    return blake3(_length(identity) + identity + _length(shape) + shape)


def key(start: Beginning, buffers: Sequence[object]) -> bytes | None:
    """The key of a request with these tensors (`InferenceRequest.buffers`); None where one is not at hand as bytes or
    as an array, so that no key can be given."""
    hasher = start.copy()
    for data in buffers:
        if data is None:
            hasher.update(_ABSENT)
            continue
        if isinstance(data, np.ndarray):
            contents: Buffer = _bytes_of(data)
        elif isinstance(data, (bytes, memoryview)):
            contents = data
        else:
            return None
        hasher.update(_length(contents))
        hasher.update(contents)
    return hasher.digest()


def _bytes_of(array: Array) -> Buffer:
    return encode_bytes_elements(array) if array.dtype == object else array.tobytes()


def _length(data: Buffer) -> bytes:
    return len(data).to_bytes(8, "little")
