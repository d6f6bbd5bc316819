"""What is named on the command line with settings of its own: `bursty:on_ms=50,off_ms=200`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from loadtest.errors import LoadTestError


def split_spec(spec: str) -> tuple[str, str]:
    """Name and settings."""
    name, _, settings = spec.partition(":")
    return name, settings


def settings_of(spec: str, defaults: Mapping[str, float], first: str | None = None) -> dict[str, float]:
    """The settings of a spec over their defaults; a bare number is the setting `first`.

    Raises `LoadTestError` for a name that has no default, and for what is not a number of at least 0.
    """
    values = dict(defaults)
    _, settings = split_spec(spec)
    for part in filter(None, settings.split(",")):
        key, equals, text = part.partition("=")
        if not equals and first is not None:
            key, text = first, part
        if key not in values:
            known = ", ".join(defaults) or "none"
            raise LoadTestError(f"'{spec}': unknown setting '{key}'; the settings are: {known}")
        values[key] = _number(spec, key, text)
    return values


def _number(spec: str, key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise LoadTestError(f"'{spec}': {key} must be a number, not '{text}'") from None
    if not isfinite(value) or value < 0:
        raise LoadTestError(f"'{spec}': {key} must be a finite number of at least 0, not {text}")
    return value
