"""An inference's answer on its way out: whatever a model has put into it, its caller hears of it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from server.errors import ConvoyError, ExecutionFailed
from server.messages import InferenceResponse
from server.tensors import Buffer

log = logging.getLogger(__name__)

Encode = Callable[[InferenceResponse], Buffer]
"""Raises `ConvoyError` where the caller asked for what cannot be."""


def encoded(encode: Encode, answer: InferenceResponse, trace_id: str) -> Buffer | ConvoyError:
    """The answer as a message, or what its caller is told instead."""
    try:
        return encode(answer)
    except ConvoyError as error:
        return error
    except Exception:
        fields = {"model": answer.model_name, "version": answer.model_version, "request_id": answer.request_id}
        log.exception(
            "an answer of model '%s' cannot be encoded", answer.model_name, extra=fields | {"trace_id": trace_id}
        )
        return ExecutionFailed(f"the answer of model '{answer.model_name}' cannot be encoded")
