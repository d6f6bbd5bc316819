"""How many users there are, and when: stages of fixed length, or levels until one breaks the limits. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite

from loadtest.errors import LoadTestError

DEFAULT_SECONDS = {"steps": 60.0, "spike": 60.0, "soak": 3600.0, "ramp-to-failure": inf}
"""How long a shape lasts where no run time is given."""

RAMP_SLACK_SECONDS = 10.0
"""What a level may need beyond its time: Locust asks a shape once a second, and a master waits for its workers."""


@dataclass(frozen=True)
class Plan:
    """What the flags of a shape say. Raises LoadTestError, with the flag, where they make no sense."""

    shape: str
    """A key of DEFAULT_SECONDS."""
    users: int
    """The most."""
    spawn_rate: float
    """Users started or stopped per second."""
    seconds: float
    """In all; infinite for a ramp that ends with its last level."""
    steps: int
    spike_factor: float
    spike_seconds: float
    soak_ramp_seconds: float
    soak_windows: int
    ramp_users: int
    ramp_seconds: float

    def __post_init__(self) -> None:
        for name in ("users", "spawn_rate", "steps", "soak_windows", "ramp_users", "ramp_seconds", "seconds"):
            self._require(getattr(self, name) > 0, name, "must be above 0")
        if self.shape == "steps":
            self._require(
                self.steps <= self.users, "steps", f"each step adds a user at least, and there are {self.users}"
            )
        if self.shape == "spike":
            self._require(0 < self.spike_seconds < self.seconds, "spike_seconds", f"must be less than {self.seconds:g}")
            self._require(isfinite(self.spike_factor) and self.spike_factor > 1, "spike_factor", "must be above 1")
        if self.shape == "soak":
            self._require(
                0 <= self.soak_ramp_seconds < self.seconds, "soak_ramp_seconds", f"must be less than {self.seconds:g}"
            )

    def _require(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            raise LoadTestError(f"--{name.replace('_', '-')} {getattr(self, name):g}: {rule}")


@dataclass(frozen=True)
class Stage:
    """A number of users for a time."""

    users: int
    spawn_rate: float
    """Users started or stopped per second on the way there."""
    seconds: float


def steps(plan: Plan) -> list[Stage]:
    """Equal steps up to all users, each as long as the others."""
    return [
        Stage(plan.users * step // plan.steps, plan.spawn_rate, plan.seconds / plan.steps)
        for step in range(1, plan.steps + 1)
    ]


def spike(plan: Plan) -> list[Stage]:
    """Few users, all of them for a moment, and again few, for as long as before: does the server come back?"""
    few = Stage(max(1, round(plan.users / plan.spike_factor)), plan.spawn_rate, (plan.seconds - plan.spike_seconds) / 2)
    return [few, Stage(plan.users, plan.spawn_rate, plan.spike_seconds), few]


def soak(plan: Plan) -> list[Stage]:
    """All users for long, cut into windows of one length: what the last has worse than the first is a leak."""
    ramp_rate = plan.users / plan.soak_ramp_seconds if plan.soak_ramp_seconds else plan.spawn_rate
    window = (plan.seconds - plan.soak_ramp_seconds) / plan.soak_windows
    first = Stage(plan.users, ramp_rate, plan.soak_ramp_seconds + window)
    return [first] + [Stage(plan.users, ramp_rate, window)] * (plan.soak_windows - 1)


STAGES: dict[str, Callable[[Plan], list[Stage]]] = {"steps": steps, "spike": spike, "soak": soak}


def stage_at(stages: Sequence[Stage], seconds: float) -> int | None:
    """Which stage it is `seconds` after the beginning; None after the last."""
    end = 0.0
    for index, stage in enumerate(stages):
        end += stage.seconds
        if seconds < end:
            return index
    return None


def next_ramp_users(plan: Plan, users: int, *, kept: bool) -> int | None:
    """How many users come after a level of `users` that kept its limits, or did not. None: it is over."""
    if not kept or users >= plan.users:
        return None
    return min(users + plan.ramp_users, plan.users)


def longest_seconds(plan: Plan) -> float:
    """How long it lasts at most, users that take their time to start apart."""
    if plan.shape != "ramp-to-failure":
        return plan.seconds
    levels = ceil(plan.users / plan.ramp_users)
    return min(plan.seconds, levels * (plan.ramp_seconds + RAMP_SLACK_SECONDS))
