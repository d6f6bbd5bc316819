"""An inference's answer on its way out: whatever a model has put into it, its caller hears of it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from server.errors import ConvoyError, ExecutionFailed
from server.messages import InferenceResponse
from server.records import Record
from server.tensors import Buffer

log = logging.getLogger(__name__)

Encode = Callable[[InferenceResponse], Buffer]
"""Raises `ConvoyError` where the caller asked for what cannot be."""


def encoded(encode: Encode, answer: InferenceResponse, record: Record | None = None) -> Buffer | ConvoyError:
    """The answer as a message, or what its caller is told instead."""
    try:
        return encode(answer)
    except Exception as failure:  # noqa: BLE001 -- whatever it is, the caller must hear of it
        return not_encoded(failure, answer, record)


def not_encoded(failure: Exception, answer: InferenceResponse, record: Record | None) -> ConvoyError:
    """What the caller is told where `encode` has raised this. Logs what is a bug."""
    if isinstance(failure, ConvoyError):
        return failure
    fields = {"model": answer.model_name, "version": answer.model_version, "request_id": answer.request_id}
    log.error(
        "an answer of model '%s' cannot be encoded",
        answer.model_name,
        exc_info=failure,
        extra=fields | {"trace_id": "" if record is None else record.trace_text},
    )
    return ExecutionFailed(f"the answer of model '{answer.model_name}' cannot be encoded")
