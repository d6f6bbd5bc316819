"""The caller's trace context, from the metadata of a gRPC call or the headers of an HTTP request. Pure.

W3C Trace Context, https://www.w3.org/TR/trace-context/: a broken `traceparent` counts as none, and a broken
`tracestate` harms nothing but itself. Other headers, `baggage` among them, are none of our business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from server.records import TraceContext

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

MAX_STATE_LENGTH = 512
"""What must be carried on, by the specification; longer ones are left out rather than cut."""

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_STATE_MEMBER = re.compile(r"[ \t]*[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,256}[ \t]*", re.ASCII)


def trace_context(headers: Mapping[str, str | bytes]) -> TraceContext | None:
    """The context that these headers carry, names in lower case; None where there is none, or a broken one."""
    parent = headers.get(TRACEPARENT)
    if not isinstance(parent, str):
        return None
    match = _PARENT.fullmatch(parent.strip(" \t"))
    if match is None:
        return None
    version, trace, span, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest):
        return None
    trace_id, span_id = int(trace, 16), int(span, 16)
    if not trace_id or not span_id:
        return None
    state = headers.get(TRACESTATE, "")
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1), _checked_state(state))


def _checked_state(state: str | bytes) -> str:
    if not isinstance(state, str) or len(state) > MAX_STATE_LENGTH:
        return ""
    members = [member for member in state.split(",") if member.strip(" \t")]
    if len(members) > 32 or not all(_STATE_MEMBER.fullmatch(member) for member in members):
        return ""
    return ",".join(member.strip(" \t") for member in members)
