"""How messages of inference become requests: by what stands in them alone, or with something of their call."""

from __future__ import annotations

from collections.abc import Callable

from server.frontends.calls import Call
from server.frontends.codec import decode_infer_request
from server.messages import InferenceRequest
from server.tensors import Buffer

Decode = Callable[[Buffer, float], InferenceRequest]
"""Of a message and its caller's deadline. Raises `ConvoyError`."""
Decoding = Callable[[Call], Decode]
"""For the messages of a call."""


def plainly(_: Call) -> Decode:
    """By what stands in the message alone."""
    return decode_infer_request
