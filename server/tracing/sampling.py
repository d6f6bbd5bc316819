"""Which requests are traced: settings of the server and of single models, as Triton's trace extension has them. Pure.

A model without settings of its own is counted together with all others of its kind: the one in so many is one of them
all. A setting that a model does not have is the server's, and one that the server does not have is the flags'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from server.errors import InvalidRequest, Unsupported
from server.trace_config import MAX_COUNT, MAX_RATE, UNLIMITED, TraceConfig, TraceMode, TraceSetting, integer

LEVELS = {"OFF": False, "TIMESTAMPS": True}

NUMBERS = {
    "trace_rate": ("rate", 0, MAX_RATE),
    "trace_count": ("count", UNLIMITED, MAX_COUNT),
    "log_frequency": ("log_frequency", 0, MAX_RATE),
}
"""Settings on the wire that are one number: the field, and between what it must lie."""


class Sampler:
    """Picks one request in so many."""

    __slots__ = ("_seen", "left", "setting")

    def __init__(self, setting: TraceSetting) -> None:
        self.setting = setting
        self.left = setting.count
        """How many it may still pick; -1 without end."""
        self._seen = 0

    def pick(self) -> bool:
        """Whether this request is one of them."""
        rate = self.setting.rate
        if not rate or not self.left:
            return False
        self._seen += 1
        if self._seen % rate:
            return False
        if self.left > 0:
            self.left -= 1
        return True


@dataclass(slots=True)
class _Level:
    """The server's, or one model's: the fields that were set there, and who picks by them."""

    own: dict[str, Any]
    sampler: Sampler

    def derive(self, base: TraceSetting, changed: Mapping[str, Any]) -> _Level:
        """With fields set, or taken back where the value is None; the rest as in `base`."""
        own = {name: value for name, value in {**self.own, **changed}.items() if value is not None}
        if "count" in own and "count" not in changed:
            own["count"] = self.sampler.left  # what was picked stays picked
        return _Level(own, Sampler(replace(base, **own)))


class TraceSettings:
    """The settings in force."""

    def __init__(self, config: TraceConfig) -> None:
        self._config = config
        self._global = _Level({}, Sampler(config.setting))
        self._models: dict[str, _Level] = {}

    @property
    def on(self) -> bool:
        """Whether any request at all may be traced."""
        return any(level.sampler.setting.on for level in (self._global, *self._models.values()))

    def sampler(self, model: str) -> Sampler:
        """Who picks this model's requests; "" for the server's own."""
        level = self._models.get(model)
        return (level or self._global).sampler

    def show(self, model: str) -> dict[str, list[str]]:
        """What is in force for a model, or for the server where it is "", in the words of the trace extension."""
        sampler, config = self.sampler(model), self._config
        setting = sampler.setting
        shown = {
            "trace_level": "TIMESTAMPS" if setting.on else "OFF",
            "trace_rate": str(setting.rate),
            "trace_count": str(sampler.left),
            "trace_mode": str(config.mode),
        }
        if config.mode is TraceMode.TRITON:
            shown |= {"log_frequency": str(setting.log_frequency), "trace_file": config.file}
        return {name: [value] for name, value in shown.items()}

    def update(self, model: str, wanted: Mapping[str, Sequence[str]]) -> None:
        """Change settings of a model, or of the server where it is ""; a setting without a value is taken back.

        Raises `InvalidRequest` and `Unsupported`, and has changed nothing then.
        """
        changed = dict(_field(name, values) for name, values in wanted.items())
        if model:
            old = self._models.get(model) or _Level({}, self._global.sampler)
            new = old.derive(replace(self._global.sampler.setting, count=self._global.sampler.left), changed)
            self._check(new)
            if new.own:
                self._models[model] = new
            else:
                self._models.pop(model, None)
            return
        base = self._config.setting
        if "count" not in self._global.own:
            base = replace(base, count=self._global.sampler.left)
        new = self._global.derive(base, changed)
        base = replace(new.sampler.setting, count=new.sampler.left)
        models = {name: level.derive(base, {}) for name, level in self._models.items()}
        for level in (new, *models.values()):
            self._check(level)
        self._global, self._models = new, models

    def _check(self, level: _Level) -> None:
        if problem := self._config.problem(level.sampler.setting):
            raise InvalidRequest(f"Attempting to set invalid trace setting: {problem}")


def _field(name: str, values: Sequence[str]) -> tuple[str, bool | int | None]:
    """The field that a setting on the wire is, and its value; None takes it back."""
    if name == "trace_file":
        raise Unsupported("trace file location can not be updated through network protocol")
    if name == "trace_mode":
        raise Unsupported("trace mode can not be updated through network protocol; use --trace-config mode=MODE")
    if name == "trace_level":
        return "on", _level(values) if values else None
    if name not in NUMBERS:
        raise InvalidRequest(
            f"unknown trace setting '{name}'; there are trace_level, trace_rate, trace_count and log_frequency"
        )
    field, least, most = NUMBERS[name]
    if not values:
        return field, None
    if len(values) > 1:
        raise InvalidRequest(f"expect only 1 value for '{name}'")
    number = integer(values[0], least, most)
    if number is None:
        raise InvalidRequest(f"Unable to parse '{name}', expecting an integer in [{least}, {most}], got: {values[0]}")
    return field, number


def _level(values: Sequence[str]) -> bool:
    for value in values:
        if value == "TENSORS":
            raise Unsupported("trace level TENSORS is not offered: tensor contents are never traced")
        if value not in LEVELS:
            raise InvalidRequest(f"Unable to parse 'trace_level', expecting OFF or TIMESTAMPS, got: {value}")
    if "OFF" in values and len(values) > 1:
        raise InvalidRequest("Expect only one trace level 'OFF' is specified")
    return LEVELS[values[0]]
