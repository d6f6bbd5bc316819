"""Access at the edge: who calls, and whether it may, before a method hears of the call.

`guard` wraps the methods of a table, which gRPC serves and HTTP's routes over RPCs use. Two things are elsewhere: the
messages of an inference name their model only once they are decoded (`decoding`), and routes of HTTP that are no RPC
have guards of their own (`rest.access`). What changes the server is noted for the audit log, whether allowed or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial

from server.access.decisions import Access, Caller
from server.errors import ConvoyError, InvalidRequest
from server.frontends.access_rules import Question, Rule, rule_of
from server.frontends.audit import Audit
from server.frontends.calls import Call, Method, MethodTable, Receiver, StreamMethod, UnaryMethod
from server.frontends.decoding import Decode, Decoding
from server.frontends.relay import Relay
from server.frontends.restrictions import ENDED
from server.frontends.statuses import AS_TRITON, STATUSES
from server.messages import InferenceRequest
from server.restricted_apis import ApiCategory
from server.tensors import Buffer

INFERENCE = ApiCategory.INFERENCE.value
SHARED_MEMORY = ApiCategory.SHARED_MEMORY.value
MAX_READ_BYTES = 16 << 10
"""Of a message that is refused, and read for the audit log alone."""
DECODED = "ModelInfer"
"""The RPC that is let in as its message is decoded."""


class Gate:
    """Lets the calls of one protocol in."""

    def __init__(
        self,
        access: Callable[[float], Access],
        audit: Audit | None,
        count: Callable[[ConvoyError], None],
        only: Collection[str] | None = None,
    ) -> None:
        """`access`: what is in force at a time of the monotonic clock.

        `count`: told of inferences that are turned away before they are requests; `only`: the RPCs that it is for,
        None: all.
        """
        self._access = access
        self._audit = audit
        self.count = count
        self._only = only

    @property
    def guards_all(self) -> bool:
        """Whether it matters to all that is served, and not only to what changes the server."""
        return self._only is None

    def guard(self, methods: MethodTable) -> MethodTable:
        """The methods, behind this gate."""
        return {path: self._guarded(path.rpartition("/")[2], method) for path, method in methods.items()}

    def decoding(self, decoding: Decoding, call: Call) -> Decode:
        """How messages of inference of a call are decoded, for those who may ask that model."""
        inner = decoding(call)

        def decode(message: Buffer, deadline: float) -> InferenceRequest:
            access, caller, now = self.identify(call)
            request = inner(message, deadline)
            if request.shared is not None:
                access.check(caller, SHARED_MEMORY)
            access.admit(caller, INFERENCE, request.model_name, len(message), now)
            return request

        return decode

    def check_shared(self, call: Call) -> None:
        """Whether a caller's requests may have tensors in shared memory, which others may have registered.

        Raises `ConvoyError`.
        """
        access, caller, _ = self.identify(call)
        access.check(caller, SHARED_MEMORY)

    def identify(self, call: Call) -> tuple[Access, Caller, float]:
        """What is in force, who calls, and the time. Raises `Unauthenticated`."""
        now = time.monotonic()
        access = self._access(now)
        authorization = call.authorization
        names = () if authorization else call.peer.certificate
        return access, access.identify(authorization, names, now, time.time()), now

    def note_refusal(self, call: Call, caller: Caller | None, question: Question, error: ConvoyError) -> None:
        """For the audit log, where it would have changed the server."""
        if self._audit is not None and question.changes:
            self._audit.record(call.peer, caller, question, STATUSES[type(error)])

    def _guarded(self, name: str, method: Method) -> Method:
        if self._only is not None and name not in self._only:
            return method
        rule = rule_of(name)
        if isinstance(method, UnaryMethod):
            handle = method.handle if name == DECODED else partial(self._handle, rule, method)
            return UnaryMethod(handle, partial(self._begin, rule))
        return StreamMethod(partial(self._open, rule, method))

    def refusal(self, rule: Rule, call: Call, question: Question | None = None) -> ConvoyError | None:
        """Why a caller may not even send a message; `question`: what is known of it otherwise."""
        caller = None
        try:
            access, caller, _ = self.identify(call)
            access.check(caller, rule.least)
        except ConvoyError as error:
            self.note_refusal(call, caller, question or rule.unread, error)
            return error
        return None

    def _begin(self, rule: Rule, call: Call) -> None:
        error = self.refusal(rule, call)
        if error is not None:
            if rule.name == DECODED:
                self.count(error)
            AS_TRITON.fail(call, error)

    def _handle(self, rule: Rule, method: UnaryMethod, call: Call, message: Buffer) -> None:
        caller = None
        try:
            access, caller, now = self.identify(call)
            access.check(caller, rule.least)
            question = rule.question(message)
            access.admit(caller, question.api, question.scope, len(message), now)
        except ConvoyError as error:
            if self._audit is not None and rule.unread.changes:
                self.note_refusal(call, caller, _seen(rule, message), error)
            AS_TRITON.fail(call, error)
            return
        ended = None
        if self._audit is not None and question.changes:
            ended = partial(self._audit.record, call.peer, caller, question)
        if ended is not None or rule.shown is not None:
            shown = partial(rule.shown, partial(caller.may, question.api)) if rule.shown is not None else None
            call = Relay(call, shown, ended)
        method.handle(call, message)

    def _open(self, rule: Rule, method: StreamMethod, call: Call) -> Receiver:
        try:
            access, caller, _ = self.identify(call)
            access.check(caller, rule.least)
        except ConvoyError as error:
            AS_TRITON.fail(call, error)
            return ENDED
        receiver = method.open(call)
        return _Checked(self, rule, call, receiver) if rule.reads else receiver

    def check(self, rule: Rule, call: Call, message: Buffer) -> None:
        """Whether a message of a stream may be. Raises `ConvoyError`."""
        access, caller, now = self.identify(call)
        question = rule.question(message)
        access.admit(caller, question.api, question.scope, len(message), now)


def _seen(rule: Rule, message: Buffer) -> Question:
    """What is noted of a message that is refused: a large one, of a file perhaps, is not worth the reading."""
    if len(message) <= MAX_READ_BYTES:
        with suppress(InvalidRequest):
            return rule.question(message)
    return rule.unread


class _Checked:
    """A stream's ear that hears only what its caller may say."""

    def __init__(self, gate: Gate, rule: Rule, call: Call, receiver: Receiver) -> None:
        self._gate = gate
        self._rule = rule
        self._call = call
        self._receiver = receiver

    def message(self, data: Buffer) -> None:
        try:
            self._gate.check(self._rule, self._call, data)
        except ConvoyError as error:
            on_cancel, self._call.on_cancel = self._call.on_cancel, None
            if on_cancel is not None:
                on_cancel()
            self._receiver = ENDED
            AS_TRITON.fail(self._call, error)
        else:
            self._receiver.message(data)

    def half_closed(self) -> None:
        self._receiver.half_closed()

    def drain(self) -> None:
        self._receiver.drain()
