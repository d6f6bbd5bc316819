"""Metric families as text: Prometheus's format (0.0.4) and OpenMetrics (1.0.0).

`prometheus_client` can do this too, and a test holds the two against each other. It checks and escapes every name of
every sample anew, which takes three times as long in all, and the names here are known to be plain.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

_TEXT_TYPES = {"unknown": "untyped"}


def encode(families: Iterable[Metric], *, openmetrics: bool) -> bytes:
    """The page. Names of families and labels must be letters, digits and underscores."""
    parts: list[str] = []
    for family in families:
        name, kind = family.name, family.type
        if not openmetrics:
            name = f"{name}_total" if kind == "counter" else name
            kind = _TEXT_TYPES.get(kind, kind)
        text = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
        if openmetrics:
            text = text.replace('"', r"\"")
        parts.append(f"# HELP {name} {text}\n# TYPE {name} {kind}\n")
        parts += [_line(sample) for sample in family.samples]
    if openmetrics:
        parts.append("# EOF\n")
    return "".join(parts).encode()


def _line(sample: Sample) -> str:
    if not sample.labels:
        return f"{sample.name} {_number(sample.value)}\n"
    labels = ",".join([f'{name}="{_escaped(value)}"' for name, value in sample.labels.items()])
    return f"{sample.name}{{{labels}}} {_number(sample.value)}\n"


def _escaped(value: str) -> str:
    if "\\" in value or "\n" in value or '"' in value:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return value


def _number(value: float) -> str:
    text = repr(value)
    if text[-1] in "fn":  # inf, -inf, nan
        return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}[text]
    return text
