"""What `--trace-config` says, and what a trace setting may be: spelled as Triton spells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

MAX_COUNT = (1 << 31) - 1
MAX_RATE = (1 << 32) - 1
UNLIMITED = -1
"""The `count` that never runs out."""


class TraceMode(StrEnum):
    """Where traces go."""

    TRITON = "triton"
    """Into a JSON file, as Triton's own."""
    OPENTELEMETRY = "opentelemetry"
    """To a receiver of OTLP."""


@dataclass(frozen=True, slots=True)
class TraceSetting:
    """Which requests are traced: of one model, or of all that have no setting of their own."""

    on: bool = False
    """Whether the level is TIMESTAMPS rather than OFF."""
    rate: int = 1000
    """One request in so many; 0: only those whose caller asks for it."""
    count: int = UNLIMITED
    """How many in all."""
    log_frequency: int = 0
    """Mode triton: traces in a file, which then has a number; 0 for one file."""


@dataclass(frozen=True, slots=True)
class TraceConfig:
    """Everything that the flags say about traces. None leaves a number to OpenTelemetry's environment variables."""

    mode: TraceMode = TraceMode.TRITON
    setting: TraceSetting = TraceSetting()
    file: str = ""
    url: str = ""
    """Of the receiver; "" leaves it to OTEL_EXPORTER_OTLP_*ENDPOINT, and to http://localhost:4318/v1/traces."""
    resource: tuple[tuple[str, str], ...] = ()
    bsp_max_queue_size: int | None = None
    bsp_schedule_delay: int | None = None
    """Milliseconds."""
    bsp_max_export_batch_size: int | None = None

    def problem(self, setting: TraceSetting) -> str:
        """Why this setting cannot be had, with what to do; "" where it can."""
        if not setting.on or self.mode is TraceMode.OPENTELEMETRY:
            return ""
        if not self.file:
            return (
                "trace file name is not given: start the server with --trace-config triton,file=PATH, "
                "or with --trace-config mode=opentelemetry"
            )
        if setting.rate == 0:
            return "sample rate must be non-zero in mode triton, where no caller can ask for a trace"
        return ""


class TraceConfigInvalid(ValueError):
    """A `--trace-config` that cannot be meant. The message quotes it."""


def parse_trace_config(texts: Sequence[str]) -> TraceConfig:
    """The flags together; the last one of a name counts, and `resource` adds up. Raises `TraceConfigInvalid`."""
    config = TraceConfig()
    used: dict[str, str] = {}  # the first flag of a mode
    for text in texts:
        name, equals, value = text.partition("=")
        mode, comma, setting = name.partition(",")
        if not equals or not value or not (setting or not comma):
            raise _wrong(text, "its form is SETTING=VALUE or MODE,SETTING=VALUE")
        if not comma:
            config = _with_global(config, text, mode, value)
        elif mode == TraceMode.TRITON:
            used.setdefault(mode, text)
            config = _with_triton(config, text, setting, value)
        elif mode == TraceMode.OPENTELEMETRY:
            used.setdefault(mode, text)
            config = _with_opentelemetry(config, text, setting, value)
        else:
            raise _wrong(text, "the modes are triton and opentelemetry")
    for mode, text in used.items():
        if mode != config.mode:
            raise _wrong(text, f"the mode is {config.mode}; say mode={mode} too")
    queue, batch = config.bsp_max_queue_size, config.bsp_max_export_batch_size
    if queue is not None and batch is not None and batch > queue:
        raise TraceConfigInvalid("--trace-config: bsp_max_export_batch_size must not be more than bsp_max_queue_size")
    if problem := config.problem(config.setting):
        raise TraceConfigInvalid(f"--trace-config: {problem}")
    return config


def integer(text: str, least: int, most: int) -> int | None:
    """The number that a text is, where it lies between these; None where not."""
    digits = text[1:] if text.startswith("-") else text
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 10 or not least <= int(text) <= most:
        return None
    return int(text)


def _with_global(config: TraceConfig, text: str, setting: str, value: str) -> TraceConfig:
    match setting:
        case "mode" if value.lower() in list(TraceMode):
            return replace(config, mode=TraceMode(value.lower()))
        case "mode":
            raise _wrong(text, "the modes are triton and opentelemetry")
        case "level":
            return replace(config, setting=replace(config.setting, on=_level(text, value)))
        case "rate":
            return replace(config, setting=replace(config.setting, rate=_integer(text, value, 0, MAX_RATE)))
        case "count":
            count = _integer(text, value, UNLIMITED, MAX_COUNT)
            return replace(config, setting=replace(config.setting, count=count))
    raise _wrong(text, "the settings of all modes are mode, level, rate and count")


def _with_triton(config: TraceConfig, text: str, setting: str, value: str) -> TraceConfig:
    match setting:
        case "file":
            return replace(config, file=value)
        case "log-frequency":
            frequency = _integer(text, value, 0, MAX_RATE)
            return replace(config, setting=replace(config.setting, log_frequency=frequency))
    raise _wrong(text, "the settings of mode triton are file and log-frequency")


def _with_opentelemetry(config: TraceConfig, text: str, setting: str, value: str) -> TraceConfig:
    match setting:
        case "url" if value.startswith(("http://", "https://")):
            return replace(config, url=value)
        case "url":
            raise _wrong(text, "the receiver speaks OTLP over HTTP: http://HOST:4318/v1/traces")
        case "resource":
            key, equals, content = value.partition("=")
            if not key or not equals:
                raise _wrong(text, "its form is opentelemetry,resource=KEY=VALUE")
            return replace(config, resource=(*config.resource, (key, content)))
        case "bsp_max_queue_size":
            return replace(config, bsp_max_queue_size=_integer(text, value, 1, MAX_COUNT))
        case "bsp_schedule_delay":
            return replace(config, bsp_schedule_delay=_integer(text, value, 1, MAX_COUNT))
        case "bsp_max_export_batch_size":
            return replace(config, bsp_max_export_batch_size=_integer(text, value, 1, MAX_COUNT))
    raise _wrong(
        text,
        "the settings of mode opentelemetry are url, resource, bsp_max_queue_size, bsp_schedule_delay and "
        "bsp_max_export_batch_size",
    )


def _level(text: str, value: str) -> bool:
    match value.upper():
        case "OFF":
            return False
        case "TIMESTAMPS":
            return True
        case "TENSORS":
            raise _wrong(text, "tensor contents are never traced; the level is OFF or TIMESTAMPS")
    raise _wrong(text, "the level is OFF or TIMESTAMPS")


def _integer(text: str, value: str, least: int, most: int) -> int:
    number = integer(value, least, most)
    if number is None:
        raise _wrong(text, f"must be an integer from {least} to {most}")
    return number


def _wrong(text: str, why: str) -> TraceConfigInvalid:
    return TraceConfigInvalid(f"--trace-config {text}: {why}")
