"""`--trace-config`, as Triton spells it, and everything that is wrong with one."""

from __future__ import annotations

import pytest

from server.trace_config import TraceConfig, TraceConfigInvalid, TraceMode, TraceSetting, parse_trace_config


def test_nothing_is_traced_by_default() -> None:
    config = parse_trace_config([])
    assert config == TraceConfig()
    assert (config.setting.on, config.setting.rate, config.setting.count) == (False, 1000, -1)


def test_the_flags_of_a_receiver_add_up() -> None:
    assert parse_trace_config(
        [
            "mode=opentelemetry",
            "level=TIMESTAMPS",
            "rate=100",
            "rate=50",
            "count=7",
            "opentelemetry,url=https://collector:4318/v1/traces?a=b",
            "opentelemetry,resource=service.name=digits",
            "opentelemetry,resource=deployment=a=b",
            "opentelemetry,bsp_max_queue_size=4096",
            "opentelemetry,bsp_schedule_delay=200",
            "opentelemetry,bsp_max_export_batch_size=64",
        ]
    ) == TraceConfig(
        TraceMode.OPENTELEMETRY,
        TraceSetting(on=True, rate=50, count=7),
        url="https://collector:4318/v1/traces?a=b",
        resource=(("service.name", "digits"), ("deployment", "a=b")),
        bsp_max_queue_size=4096,
        bsp_schedule_delay=200,
        bsp_max_export_batch_size=64,
    )


def test_the_flags_of_a_file_add_up() -> None:
    assert parse_trace_config(
        ["triton,file=/tmp/trace.json", "triton,log-frequency=50", "level=timestamps", "mode=TRITON"]
    ) == TraceConfig(TraceMode.TRITON, TraceSetting(on=True, log_frequency=50), file="/tmp/trace.json")


def test_a_rate_of_zero_leaves_it_to_the_callers() -> None:
    config = parse_trace_config(["mode=opentelemetry", "level=TIMESTAMPS", "rate=0"])
    assert (config.setting.on, config.setting.rate) == (True, 0)


@pytest.mark.parametrize(
    ("texts", "word"),
    [
        (["rate"], "form"),
        (["rate="], "form"),
        (["triton,=1"], "form"),
        (["=1"], "settings of all modes"),
        (["rate=-1"], "from 0 to"),
        (["rate=1.5"], "from 0 to"),
        (["rate=\u0661"], "from 0 to"),
        (["count=-2"], "from -1 to"),
        (["count=99999999999"], "from -1 to"),
        (["level=MAX"], "OFF or TIMESTAMPS"),
        (["level=TENSORS"], "tensor contents are never traced"),
        (["mode=zipkin"], "triton and opentelemetry"),
        (["zipkin,url=x"], "triton and opentelemetry"),
        (["speed=1"], "mode, level, rate and count"),
        (["triton,url=x"], "file and log-frequency"),
        (["mode=opentelemetry", "opentelemetry,file=x"], "bsp_max_queue_size"),
        (["mode=opentelemetry", "opentelemetry,url=collector:4317"], "OTLP over HTTP"),
        (["mode=opentelemetry", "opentelemetry,resource=name"], "resource=KEY=VALUE"),
        (["mode=opentelemetry", "opentelemetry,bsp_max_queue_size=0"], "from 1 to"),
        (["opentelemetry,url=http://h"], "say mode=opentelemetry too"),
        (["mode=opentelemetry", "triton,file=x"], "say mode=triton too"),
        (["level=TIMESTAMPS"], "triton,file=PATH"),
        (["level=TIMESTAMPS", "triton,file=x", "rate=0"], "non-zero"),
        (
            ["mode=opentelemetry", "opentelemetry,bsp_max_queue_size=1", "opentelemetry,bsp_max_export_batch_size=2"],
            "not be more",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_do(texts: list[str], word: str) -> None:
    with pytest.raises(TraceConfigInvalid, match=r"^--trace-config") as caught:
        parse_trace_config(texts)
    assert word in str(caught.value)
