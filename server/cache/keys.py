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
from server.tensors import Array, encode_bytes_elements

Beginning = bytes
"""A hash over what requests of one shape have in common."""

_ABSENT = b"\0"
_PRESENT = b"\1"


def beginning(identity: bytes, specs: Sequence[TensorSpec], outputs: Sequence[RequestedOutput]) -> Beginning:
    """What is the same for all requests of one shape. `identity` tells one load of a model from any other."""
    shape = repr((tuple(map(tuple, specs)), tuple(map(tuple, outputs)))).encode()
    return blake3(len(identity).to_bytes(8, "little") + identity + shape).digest()


def key(start: Beginning, buffers: Sequence[object]) -> bytes | None:
    """The key of a request with these tensors (`InferenceRequest.buffers`); None where one is not at hand as bytes or
    as an array, so that no key can be given.

    A hash over the hashes of the parts: BLAKE3 is at its quickest on what begins where it begins.
    """
    parts = [start]
    for data in buffers:
        if data is None:
            parts.append(_ABSENT)
        elif isinstance(data, (bytes, memoryview)):
            parts += (_PRESENT, blake3(data).digest())
        elif isinstance(data, np.ndarray):
            parts += (_PRESENT, blake3(_bytes_of(data)).digest())
        else:
            return None
    return blake3(b"".join(parts)).digest()


def _bytes_of(array: Array) -> bytes:
    return encode_bytes_elements(array) if array.dtype == object else array.tobytes()
