"""The caller's trace context (https://www.w3.org/TR/trace-context/), and all that can be wrong with one."""

from __future__ import annotations

import pytest

from server.records import TraceContext
from server.tracing.context import trace_context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
CONTEXT = TraceContext(int(TRACE, 16), int(SPAN, 16), True)


def test_a_traceparent_says_where_the_request_belongs() -> None:
    assert trace_context({"traceparent": PARENT, "user-agent": "x"}) == CONTEXT


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)])
def test_the_last_bit_of_the_flags_asks_for_a_trace(flags: str, sampled: bool) -> None:
    context = trace_context({"traceparent": PARENT[:-2] + flags})
    assert context is not None
    assert context.sampled is sampled


def test_a_later_version_may_say_more() -> None:
    assert trace_context({"traceparent": f"cc-{TRACE}-{SPAN}-01-what-the-future-brings"}) == CONTEXT
    assert trace_context({"traceparent": f"cc-{TRACE}-{SPAN}-01"}) == CONTEXT


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        PARENT[:-1],
        PARENT + "0",
        PARENT + "-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        PARENT.upper(),
        PARENT.replace("4", "g"),
        PARENT.replace("-", "_"),
        f"{PARENT},{PARENT}",
        f"cc-{TRACE}-{SPAN}-01.more",
        PARENT.replace("4", "\u0664"),
        PARENT.encode(),
    ],
)
def test_a_broken_traceparent_counts_as_none(parent: str | bytes) -> None:
    assert trace_context({"traceparent": parent, "tracestate": "a=b"}) is None


def test_without_a_traceparent_there_is_no_context() -> None:
    assert trace_context({"tracestate": "a=b"}) is None
    assert trace_context({}) is None


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (" a=1 ,\t, b@c=2", "a=1,b@c=2"),
        ("a=b=c", ""),
        ("A=1", ""),
        ("=1", ""),
        (",".join(f"k{i}=1" for i in range(33)), ""),
        ("a=" + "x" * 600, ""),
        (b"a=1", ""),
    ],
)
def test_a_tracestate_is_kept_or_left_out_and_harms_nothing_else(state: str | bytes, kept: str) -> None:
    assert trace_context({"traceparent": PARENT, "tracestate": state}) == CONTEXT._replace(state=kept)
