"""Answers of ModelInfer that are compressed for callers who understand it, as Triton does where it is told to.

For an engine that compresses what methods ask it to; grpcio is told by its options.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from server.frontends.calls import Call, MethodTable, UnaryMethod
from server.frontends.inference_service import SERVICE
from server.tensors import Buffer

PATH = f"/{SERVICE}/ModelInfer"


def compress_answers(methods: MethodTable) -> MethodTable:
    """The methods, whose ModelInfer asks the engine to compress."""
    method = methods[PATH]
    assert isinstance(method, UnaryMethod), "it has one answer"
    return {**methods, PATH: replace(method, handle=partial(_handle, method.handle))}


def _handle(handle: Callable[[Call, Buffer], None], call: Call, message: Buffer) -> None:
    call.compress_messages(True)
    handle(call, message)
