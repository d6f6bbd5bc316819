"""From the head of a request to what to do with it: what all connections of a listener share.

A head that has been seen is found by its bytes. Knows no connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import NamedTuple

from server.frontends.rest import http1
from server.frontends.rest.exchange import Route, RouteCounts
from server.frontends.rest.http1 import Head
from server.frontends.statuses import AS_TRITON, Failures
from server.memory_budget import MemoryBudget
from server.metrics.snapshots import HttpRequestsSnapshot

REMEMBERED_HEADS = 1024
REMEMBERED_HEAD_BYTES = 1024
"""A larger one is looked at each time: what strangers make us remember must be little."""
UNKNOWN_ROUTE = "unknown"


class Plan(NamedTuple):
    """What to do with a request that begins with some head; remembered."""

    head: Head
    route: Route | None
    parameters: Mapping[str, str]
    counts: RouteCounts
    allow: str
    """The verbs that the path takes, where it does not take this one."""


class Dispatcher:
    """What all connections of a listener share: routes, remembered heads, and counts."""

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        call_soon: Callable[[Callable[[], None]], object],
        max_input_bytes: int,
        memory: MemoryBudget | None = None,
        failures: Failures = AS_TRITON,
    ) -> None:
        self.call_soon = call_soon
        self.max_input_bytes = max_input_bytes
        self.memory = memory or MemoryBudget()
        self.failures = failures
        self.received_bytes = 0
        self.sent_bytes = 0
        self.draining = False
        """Whether connections end with the next answer."""
        self._routes: dict[tuple[str, ...], dict[str, tuple[Route, RouteCounts]]] = {}
        for route in routes:
            verbs = self._routes.setdefault(tuple(route.template.split("/")), {})
            verbs[route.verb] = (route, RouteCounts(route.verb, f"/{route.template}"))
        self._unknown = RouteCounts(UNKNOWN_ROUTE, UNKNOWN_ROUTE)
        self._plans: dict[bytes, Plan] = {}

    def plan(self, raw: bytes) -> Plan:
        """What to do with a request that begins so. Raises `HttpError`."""
        plan = self._plans.get(raw)
        if plan is None:
            plan = self._new_plan(http1.read_head(raw))
            if len(raw) <= REMEMBERED_HEAD_BYTES:
                if len(self._plans) >= REMEMBERED_HEADS:
                    self._plans.clear()
                self._plans[raw] = plan
        return plan

    def refused(self, status: HTTPStatus) -> None:
        """Something was answered that is no request."""
        self._unknown.count(status.value)

    def snapshot(self) -> list[HttpRequestsSnapshot]:
        """Copies of what is counted, for routes that were asked for, the unknown ones last."""
        counts = [counts for verbs in self._routes.values() for _, counts in verbs.values()]
        return [HttpRequestsSnapshot(c.verb, c.route, dict(c.handled)) for c in (*counts, self._unknown) if c.handled]

    def _new_plan(self, head: Head) -> Plan:
        for template, verbs in self._routes.items():
            parameters = _matched(template, head.segments)
            if parameters is None:
                continue
            found = verbs.get("GET" if head.verb == "HEAD" else head.verb)
            if found is None:
                allow = [*verbs, *(["HEAD"] if "GET" in verbs else [])]
                return Plan(head, None, {}, self._unknown, ", ".join(allow))
            return Plan(head, found[0], parameters, found[1], "")
        return Plan(head, None, {}, self._unknown, "")


def _matched(template: tuple[str, ...], segments: tuple[str, ...]) -> dict[str, str] | None:
    """What a path has in the place of a template's names; None where it is another path."""
    if len(template) != len(segments):
        return None
    parameters: dict[str, str] = {}
    for expected, segment in zip(template, segments, strict=True):
        if expected.startswith("{"):
            if not segment:
                return None
            parameters[expected[1:-1]] = segment
        elif expected != segment:
            return None
    return parameters
