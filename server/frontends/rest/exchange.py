"""`frontends.calls.Call` over one request of HTTP: it is answered once, whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from math import ceil, inf
from typing import NamedTuple, Protocol

import orjson

from server.errors import ConvoyError, Reason, one_line
from server.frontends.calls import INTERNAL_MESSAGE, LATER, Later, Peer, StatusCode, reason_of
from server.frontends.rest.http1 import Head
from server.frontends.statuses import PUSHBACK_KEY, Failures
from server.ledger import Account
from server.memory_budget import SMALL_BYTES, MemoryBudget
from server.records import HTTP
from server.tensors import Buffer

log = logging.getLogger(__name__)

HTTP_STATUSES: dict[StatusCode, HTTPStatus] = {
    StatusCode.OK: HTTPStatus.OK,
    StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    StatusCode.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    StatusCode.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
    StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
}
"""As Triton has them; all others are 400. Callers that may not ask, or not so often, have no status of Triton's."""

JSON = "application/json"


class Content(NamedTuple):
    """The body of an answer, and the headers that tell about it."""

    body: Buffer
    headers: Sequence[tuple[str, str]]


NO_CONTENT = Content(b"", ())


def json_content(value: object) -> Content:
    """A body of JSON."""
    return Content(orjson.dumps(value), (("Content-Type", JSON),))


class RouteCounts:
    """The requests of one verb on one route."""

    __slots__ = ("handled", "route", "verb")

    def __init__(self, verb: str, route: str) -> None:
        self.verb = verb
        self.route = route
        self.handled: dict[int, int] = {}
        """By status; 0: the caller went away first."""

    def count(self, status: int) -> None:
        self.handled[status] = self.handled.get(status, 0) + 1


@dataclass(frozen=True, slots=True)
class Route:
    """What is done for one verb on one path."""

    verb: str
    template: str
    """The path, with names in braces for what varies: "v2/models/{model}/infer"."""
    handle: Callable[[Exchange, Buffer], None]
    """Called on the event loop with the request's body; it answers then or later."""
    operation: str
    """What `openapi` describes it by."""
    begin: Callable[[Exchange], Callable[[], None] | None] | None = None
    """Asked of a request whose body has not come whole: what refuses it before the rest comes; None to wait."""
    account: Account | None = None
    """Where its requests are accounted for, each from when its body is there whole until it has its answer."""


class Carrier(Protocol):
    """The connection, as its exchanges see it."""

    memory: MemoryBudget
    failures: Failures

    @property
    def peer(self) -> Peer: ...

    def answer(self, exchange: Exchange, status: HTTPStatus, content: Content) -> None:
        """An exchange has its answer."""
        ...


class Exchange:
    """One request and its answer, which is given exactly once; what comes later is ignored."""

    __slots__ = ("_account", "_carrier", "_counts", "_open", "_rendering", "_trailing", "answer", "budget_bytes",
                 "deadline", "head", "held_bytes", "on_cancel", "parameters", "render")  # fmt: skip

    protocol = HTTP

    def __init__(
        self,
        carrier: Carrier,
        head: Head,
        parameters: Mapping[str, str],
        counts: RouteCounts,
        held_bytes: int,
        account: Account | None = None,
    ) -> None:
        self.head = head
        self.parameters = parameters
        """What stands in the path where the route has names in braces."""
        self.deadline = inf
        self.on_cancel: Callable[[], None] | None = None
        self.render: Callable[[Buffer], Content | None] = _as_json
        """Makes content of the message of `reply`; None where it will call `rendered` later."""
        self.held_bytes = held_bytes
        """Of its body."""
        self.budget_bytes = 0
        """What it has taken of the memory budget: for its request, then for its answer, until that is sent."""
        self.answer: tuple[HTTPStatus, Content] | None = None
        """Its answer, from when it is known until its turn comes."""
        self._carrier = carrier
        self._counts = counts
        self._open = True
        self._rendering = False
        """Whether it has been replied to, and the content is being made of that."""
        self._account: Account | None = None
        self.account_for(account)
        self._trailing: Mapping[str, str | bytes] = {}

    @property
    def open(self) -> bool:
        """Whether it has no answer yet."""
        return self._open

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.head.headers.items()}

    @property
    def peer(self) -> Peer:
        return self._carrier.peer

    @property
    def authorization(self) -> str:
        return self.head.header(b"authorization")

    def has_metadata(self, key: str) -> bool:
        return key.encode() in self.head.headers

    def respond(
        self, status: HTTPStatus, content: Content = NO_CONTENT, reason: Reason | None = None
    ) -> ConvoyError | None:
        """End with this answer; `reason` is for the ledger, where it is an error. Returns the error that it ended with
        instead, where there is no room for the answer."""
        if not self._open:
            self._ended_again()
            return None
        memory, size = self._carrier.memory, len(content.body)
        used = memory.used + size - self.budget_bytes
        if used > memory.limit and size > max(SMALL_BYTES, self.budget_bytes):
            error = memory.refusal(size)
            self._carrier.failures.fail(self, error)
            return error
        memory.used, self.budget_bytes = used, size
        self._open = False
        self.on_cancel = None
        self._counts.count(status.value)
        if self._account is not None:
            if status is HTTPStatus.OK:
                self._account.answered += 1
            else:
                self._account.fail(reason or _reason_of(status))
        self._carrier.answer(self, status, content)
        return None

    def respond_error(
        self,
        status: HTTPStatus,
        message: str,
        headers: Iterable[tuple[str, str]] = (),
        reason: Reason | None = None,
    ) -> None:
        """End with `{"error": message}`, in one line."""
        body, described = json_content({"error": one_line(message)})
        self.respond(status, Content(body, (*described, *headers)), reason)

    def reply(self, message: Buffer) -> ConvoyError | Later | None:
        if not self._open or self._rendering:
            self._ended_again()
            return None
        content = self.render(message)
        if content is None:
            self._rendering = True
            return LATER
        return self.respond(HTTPStatus.OK, content)

    def rendered(self, content: Content | None) -> None:
        """Here is the content that `render` took longer for; None: there is none, by a bug."""
        if not self._open:
            return
        self._rendering = False
        on_cancel = self.on_cancel
        if content is None:
            self.respond_error(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_MESSAGE)
        elif self.respond(HTTPStatus.OK, content) is None:
            return
        if on_cancel is not None:
            on_cancel()

    def fail(self, status: StatusCode, message: str, reason: Reason | None = None) -> None:
        if self._rendering:
            self._ended_again()
            return
        http_status = HTTP_STATUSES.get(status, HTTPStatus.BAD_REQUEST)
        self.respond_error(http_status, message, self._trailing_headers(), reason or reason_of(status))

    def set_trailing_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        """Becomes headers, which HTTP has room for before the body only."""
        self._trailing = metadata

    def account_for(self, account: Account | None) -> None:
        """From here on the request is on the ledger, where it has an account."""
        self._account = account
        if account is not None:
            account.received += 1

    def hold(self, size: int) -> None:
        """Count so many bytes more, or fewer, as the request's. Raises `MemoryFull`, and counts nothing then."""
        self._carrier.memory.take(size)
        self.budget_bytes += size

    def let_go(self) -> None:
        """It holds nothing any more: not its answer, and not those who made it, who know it."""
        self._carrier.memory.used -= self.budget_bytes
        self.budget_bytes = 0
        self.answer = None
        self.render = _as_json

    def fail_with(self, error: ConvoyError) -> None:
        """End with an error."""
        self._carrier.failures.fail(self, error)

    @property
    def room(self) -> int:
        """Bytes that the memory budget has left."""
        return self._carrier.memory.room

    def abandoned(self) -> None:
        """The caller has gone."""
        if not self._open:
            return
        self._open = False
        self._counts.count(0)
        if self._account is not None:
            self._account.abandon()
            self._account = None  # whoever answers all the same answers nobody
        on_cancel, self.on_cancel = self.on_cancel, None
        if on_cancel is not None:
            try:
                on_cancel()
            except Exception:  # it must not harm the connection's other requests
                log.exception("a handler raised when it was told that its request is over")

    def send_initial_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        raise TypeError("an answer over HTTP is whole: use reply")

    def compress_messages(self, wanted: bool) -> None:
        """The caller's Accept-Encoding decides that."""

    def send(self, message: bytes) -> None:
        raise TypeError("an answer over HTTP is whole: use reply")

    def finish(self) -> None:
        raise TypeError("an answer over HTTP is whole: use reply")

    def _ended_again(self) -> None:
        """An answer came for a request that has one."""
        if self._account is not None:
            self._account.answer_again()

    def _trailing_headers(self) -> list[tuple[str, str]]:
        headers = [(key, value) for key, value in self._trailing.items() if isinstance(value, str)]
        pushback = self._trailing.get(PUSHBACK_KEY)
        if isinstance(pushback, str):
            headers.append(("Retry-After", str(ceil(int(pushback) / 1000))))
        return headers


def _reason_of(status: HTTPStatus) -> Reason:
    """Why a request ended with an error that is none of a model's."""
    if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return Reason.OVERSIZE
    return Reason.INTERNAL if status >= HTTPStatus.INTERNAL_SERVER_ERROR else Reason.INVALID


def _as_json(message: Buffer) -> Content:
    return Content(message, (("Content-Type", JSON),))
