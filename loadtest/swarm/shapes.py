"""Plans as Locust's shapes: `--load-shape NAME` picks one, or Locust's page does with `--class-picker`.

All take `--users`, `--spawn-rate` and `--run-time` from the common options. Locust asks once a second.
"""

from __future__ import annotations

import logging
from typing import ClassVar

from locust import LoadTestShape
from locust.env import Environment

from loadtest.errors import LoadTestError
from loadtest.swarm.flags import plan_of
from loadtest.swarm.plans import STAGES, Plan, next_ramp_users, stage_at
from loadtest.swarm.recording import Recording, options_of
from loadtest.verdict import Limits

Tick = tuple[int, float]


class PlannedShape(LoadTestShape):
    """What all have in common. `recording` is set before the first test, and `forget` called after each."""

    abstract = True
    use_common_options = True
    name: ClassVar[str]
    recording: Recording

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.forget()

    def forget(self) -> None:
        """The next tick is the first of another test."""
        self._plan: Plan | None = None

    def tick(self) -> Tick | None:
        try:
            plan = self._plan = self._plan or self._begin()
        except LoadTestError as error:
            logging.error("%s", error)
            if options_of(self._environment).headless:
                self._environment.process_exit_code = 2
            return None
        tick = None if self._elapsed_seconds() >= plan.seconds else self.next(plan)
        if tick is None:
            self.recording.end_level()
        return tick

    @property
    def _environment(self) -> Environment:
        assert self.runner is not None, "a shape that ticks has a runner"
        return self.runner.environment

    def _begin(self) -> Plan:
        options = options_of(self._environment)
        users, spawn_rate = options.num_users or 1, options.spawn_rate or 1
        plan = plan_of(options, self.name, users=users, spawn_rate=spawn_rate, seconds=options.run_time or None)
        self.limits = Limits(options.p99_ms, options.max_error_rate)
        self.begin(plan)
        return plan

    def _elapsed_seconds(self) -> float:
        seconds: float = self.get_run_time()  # type: ignore[no-untyped-call]
        return seconds

    def begin(self, plan: Plan) -> None:
        """A test begins."""
        raise NotImplementedError

    def next(self, plan: Plan) -> Tick | None:
        """How many users there are to be now, and how many of them start or stop per second; None ends the test."""
        raise NotImplementedError


class _Staged(PlannedShape):
    abstract = True

    def begin(self, plan: Plan) -> None:
        self._stages = STAGES[self.name](plan)
        self._index: int | None = None

    def next(self, plan: Plan) -> Tick | None:
        index = stage_at(self._stages, self._elapsed_seconds())
        if index is None:
            return None
        stage = self._stages[index]
        if index != self._index:
            self._index = index
            self.recording.begin_level(stage.users)
        return stage.users, stage.spawn_rate


class Steps(_Staged):
    """Equal steps up to all users."""

    name = "steps"


class Spike(_Staged):
    """Few users, all for a moment, few again."""

    name = "spike"


class Soak(_Staged):
    """All users for long."""

    name = "soak"


class RampToFailure(PlannedShape):
    """More users at each level, until one breaks a limit of --p99-ms and --max-error-rate."""

    name = "ramp-to-failure"

    def begin(self, plan: Plan) -> None:
        self._users = min(plan.ramp_users, plan.users)
        self.recording.begin_level(self._users)

    def next(self, plan: Plan) -> Tick | None:
        if self.recording.level_seconds() >= plan.ramp_seconds:
            self.recording.end_level()
            kept = self.recording.book.levels[-1].keeps(self.limits)
            users = next_ramp_users(plan, self._users, kept=kept)
            if users is None:
                return None
            self._users = users
            self.recording.begin_level(users)
        return self._users, plan.spawn_rate


SHAPES = (Steps, Spike, Soak, RampToFailure)
