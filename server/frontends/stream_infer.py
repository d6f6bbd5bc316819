"""`ModelStreamInfer`: any number of requests and answers on one call.

Answers come in the order of their requests, one for each, so each is marked as its request's final one. An error is
a message like any other and the stream goes on, unless the caller's header `triton_grpc_error: true` asks for a status
that ends it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial

from proto import grpc_service_pb2 as pb
from server.engine import Engine
from server.errors import ConvoyError, Reason
from server.frontends.answers import encoded
from server.frontends.calls import CALLER_GONE, Call, StatusCode
from server.frontends.codec import delimited, encode_infer_response
from server.frontends.decoding import Decoding
from server.frontends.statuses import Failures
from server.frontends.watch import Watch
from server.ledger import Account
from server.memory_budget import CALL_BYTES, MemoryBudget
from server.messages import InferenceResponse
from server.models.work import Pending, Reply
from server.records import Record
from server.tensors import Buffer
from server.tracing.context import trace_context

INFER_RESPONSE_FIELD = 2  # of ModelStreamInferResponse

METHOD = "ModelStreamInfer"

GRPC_ERROR_HEADER = "triton_grpc_error"

FINAL_RESPONSE = pb.ModelInferResponse(
    parameters={"triton_final_response": pb.InferParameter(bool_param=True)}
).SerializeToString()
"""What follows an answer that is the last of its request. Fields of a message may be appended to it."""
_FINAL_ERROR = delimited(INFER_RESPONSE_FIELD, FINAL_RESPONSE)  # messages of one field are merged

MAX_UNANSWERED = 4096
"""Requests that one stream may have in flight: answers wait for those before them, and memory for them."""


class _Slot:
    """One request's place in the order of answers."""

    __slots__ = ("error", "held_bytes", "message", "work")

    def __init__(self) -> None:
        self.work: Pending | None = None
        self.message: bytes | None = None
        """The answer, once there is one."""
        self.error: ConvoyError | None = None
        self.held_bytes = 0
        """What it has taken of the memory budget."""


class StreamInfer:
    """One stream."""

    def __init__(
        self,
        engine: Engine,
        failures: Failures,
        watch: Watch,
        decoding: Decoding,
        account: Account,
        memory: MemoryBudget,
        call: Call,
    ) -> None:
        self._account = account
        self._memory = memory
        self._engine = engine
        self._failures = failures
        self._watch = watch
        self._call = call
        self._decode = decoding(call)
        self._slots: deque[_Slot] = deque()
        self._half_closed = False
        metadata = call.metadata
        self._context = trace_context(metadata)
        self._errors_end_the_stream = metadata.get(GRPC_ERROR_HEADER) == "true"
        call.on_cancel = self._cancel_all

    def message(self, data: Buffer) -> None:
        if len(self._slots) >= MAX_UNANSWERED:
            self._account.turn_away(Reason.QUEUE_FULL)
            self._cancel_all()
            self._call.fail(StatusCode.RESOURCE_EXHAUSTED, f"more than {MAX_UNANSWERED} requests without an answer")
            return
        slot = _Slot()
        self._slots.append(slot)
        self._account.received += 1
        received_ns = time.monotonic_ns() if self._watch.active else 0
        try:
            self._memory.take(len(data) + CALL_BYTES)
            slot.held_bytes = len(data) + CALL_BYTES
            request = self._decode(data, self._call.deadline)
        except ConvoyError as error:
            self._engine.refuse(error)
            self._answered(slot, "", "", error)
            if received_ns:
                self._watch.refused(METHOD, self._context, received_ns, error)
            return
        answered = partial(self._answered, slot, request.model_name, request.request_id)
        reply: Reply = answered
        if received_ns:
            record = self._watch.begin(METHOD, self._context, request, received_ns)
            if record is not None:
                reply = partial(_answer_watched, record, answered)
        slot.work = self._engine.infer(request, reply)

    def half_closed(self) -> None:
        self._half_closed = True
        self._flush()

    def drain(self) -> None:
        self.half_closed()

    def _answered(
        self, slot: _Slot, model_name: str, request_id: str, answer: InferenceResponse | ConvoyError
    ) -> ConvoyError | None:
        """Returns the error that the request is answered with."""
        if slot.message is not None:
            self._account.answer_again()
            return None
        if isinstance(answer, ConvoyError):
            slot.error = answer
        else:
            message = encoded(encode_infer_response, answer)
            if isinstance(message, ConvoyError):
                self._engine.withhold(message)
                slot.error = message
            else:
                slot.message = delimited(INFER_RESPONSE_FIELD, message, FINAL_RESPONSE)
        if slot.error is not None:
            head = pb.ModelInferResponse(model_name=model_name, id=request_id)
            failed = pb.ModelStreamInferResponse(error_message=str(slot.error), infer_response=head)
            slot.message = failed.SerializeToString() + _FINAL_ERROR
        self._memory.used += len(slot.message or b"") - slot.held_bytes
        slot.held_bytes = len(slot.message or b"")
        self._flush()
        return slot.error

    def _flush(self) -> None:
        """Send every answer whose turn has come."""
        slots = self._slots
        while slots and slots[0].message is not None:
            slot = slots[0]
            if slot.error and self._errors_end_the_stream:
                slots.popleft()
                self._memory.used -= slot.held_bytes
                self._account.fail(slot.error.reason)
                self._cancel_all()
                self._failures.fail(self._call, slot.error)
                return
            self._call.send(slot.message or b"")
            if self._slots is not slots:
                return  # there was no room for it, and so the stream is over
            slots.popleft()
            self._memory.used -= slot.held_bytes
            if slot.error is None:
                self._account.answered += 1
            else:
                self._account.fail(slot.error.reason)
        if self._half_closed and not slots:
            self._call.finish()

    def _cancel_all(self) -> None:
        """The stream is over: nobody hears of the answers that are still to come."""
        slots, self._slots = self._slots, deque()
        for slot in slots:
            self._memory.used -= slot.held_bytes
            if slot.work is not None:
                slot.work.cancel()
            if slot.error is not None:
                self._account.fail(slot.error.reason)
                continue
            if slot.message is not None:
                self._engine.withhold(CALLER_GONE)
            self._account.abandon()


def _answer_watched(
    record: Record,
    answered: Callable[[InferenceResponse | ConvoyError], ConvoyError | None],
    answer: InferenceResponse | ConvoyError,
) -> None:
    record.finish(answered(answer))
