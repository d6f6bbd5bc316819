"""Headers that become parameters of requests: those whose names match a pattern of the operator's, as in Triton."""

from __future__ import annotations

from collections.abc import Mapping

from server.errors import InvalidRequest
from server.frontends.calls import Call
from server.frontends.codec import RESERVED_PARAMETERS, RESERVED_PREFIX, decode_infer_request
from server.frontends.decoding import Decode
from server.header_pattern import HeaderPattern
from server.messages import InferenceRequest
from server.tensors import Buffer


def forwarded_headers(pattern: HeaderPattern, call: Call) -> Mapping[str, str]:
    """The headers of a call that its requests carry; binary ones (gRPC's keys that end in "-bin") are left out.

    Raises `InvalidRequest` for a header that would pass for a parameter with a meaning of its own.
    """
    headers: dict[str, str] = {}
    for name, value in call.metadata.items():
        if isinstance(value, bytes) or not pattern.matches(name):
            continue
        if name in RESERVED_PARAMETERS or name.startswith(RESERVED_PREFIX):
            raise InvalidRequest(f"Header '{name}' is reserved for Triton usage and cannot be forwarded.")
        headers[name] = value
    return headers


def decoding_with_headers(pattern: HeaderPattern, call: Call) -> Decode:
    """`decode_infer_request` for the messages of a call."""

    def decode(message: Buffer, deadline: float) -> InferenceRequest:
        request = decode_infer_request(message, deadline)
        request.headers = forwarded_headers(pattern, call)
        return request

    return decode
