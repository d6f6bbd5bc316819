"""Numbers in Grafana's units, as a person reads them. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

_TIMES_US = ((1.0, "µs"), (1e3, "ms"), (1e6, "s"), (60e6, "min"), (3600e6, "h"))
_SHORT = ((1.0, ""), (1e3, " k"), (1e6, " M"), (1e9, " G"))
_BYTES = ((1.0, " B"), (2.0**10, " KiB"), (2.0**20, " MiB"), (2.0**30, " GiB"), (2.0**40, " TiB"))
_PER_SECOND = {"reqps": " req/s", "ops": " ops/s"}


def readable(value: float, unit: str) -> str:
    """A number of three digits or so, with its unit."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞"
    if unit == "percentunit":
        return f"{digits(100 * value)} %"
    if unit == "µs":
        return _scaled(value, [(size, f" {name}") for size, name in _TIMES_US])
    if unit == "s":
        return _scaled(value * 1e6, [(size, f" {name}") for size, name in _TIMES_US])
    if unit in ("bytes", "binBps"):
        return _scaled(value, _BYTES) + ("/s" if unit == "binBps" else "")
    return _scaled(value, _SHORT) + _PER_SECOND.get(unit, {"watt": " W", "joule": " J"}.get(unit, ""))


def digits(value: float) -> str:
    """Three significant digits, without zeros that say nothing."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(decimals, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scaled(value: float, sizes: Sequence[tuple[float, str]]) -> str:
    size, name = next(((s, n) for s, n in reversed(sizes) if abs(value) >= s), sizes[0])
    return f"{digits(value / size)}{name}"
