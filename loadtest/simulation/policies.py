"""The server's queues, by name: `window:delay_ms=2,timeout_ms=20`, `slo`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import numpy as np

from loadtest.errors import LoadTestError
from loadtest.simulation.costs import MeasuredCosts
from loadtest.simulation.specs import settings_of, split_spec
from server.scheduling.batcher import Queue
from server.scheduling.policy import LevelPolicy, WindowPolicy
from server.scheduling.queue import BatchQueue, Ticket
from server.scheduling.slo import SloPolicy
from server.scheduling.slo_queue import SloQueue

QUEUED_BATCHES = 64
MIN_QUEUED_ROWS = 1024
"""The server's default bound of a queue: 64 full batches, and never less than 1,024 rows."""

SWEPT_DELAYS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Windows of a sweep, as shares of the objective."""
SWEPT_TIMEOUTS = (0.5, 1.0)
"""Queue timeouts of a sweep, as shares of the objective, with no window."""

POLICIES = "window[:DELAY_MS,timeout_ms=0,preferred_rows=0,max_queued_rows=…] or slo[:OBJECTIVE_MS,max_queued_rows=…]"


@dataclass(frozen=True)
class Setup:
    """A policy, ready to run once."""

    queue: Queue[Ticket]
    timeout: float = inf
    """Seconds from a request's arrival to its ticket's deadline."""
    observe: Callable[[int, float], None] | None = None
    """Hears the rows and seconds of every batch that ran."""


def make_policy(spec: str, costs: MeasuredCosts, lanes: int, objective: float, rng: np.random.Generator) -> Setup:
    """What `--policy` names. `objective`, seconds, is that of a `slo` which names none. Raises `LoadTestError`."""
    name, _ = split_spec(spec)
    bound = {"max_queued_rows": float(max(QUEUED_BATCHES * costs.max_rows, MIN_QUEUED_ROWS))}
    try:
        match name:
            case "window":
                defaults = {"delay_ms": 0.0, "timeout_ms": 0.0, "preferred_rows": 0.0}
                return _window(settings_of(spec, defaults | bound, first="delay_ms"), costs.max_rows)
            case "slo":
                values = settings_of(spec, {"objective_ms": objective * 1e3} | bound, first="objective_ms")
                table = costs.table(rng)
                policy = SloPolicy(costs.max_rows, _levels(values), objective=values["objective_ms"] / 1e3)
                return Setup(SloQueue(policy, table, lanes), observe=table.observe)
    except ValueError as error:
        raise LoadTestError(f"'{spec}': {error}") from error
    raise LoadTestError(f"'{spec}': policies are {POLICIES}")


def swept_policies(objective: float) -> list[str]:
    """Fixed delays up to the objective, fixed timeouts, and `slo`, which needs neither."""
    windows = [f"window:{1e3 * share * objective:.4g}" for share in SWEPT_DELAYS]
    timeouts = [f"window:0,timeout_ms={1e3 * share * objective:.4g}" for share in SWEPT_TIMEOUTS]
    return [*windows, *timeouts, "slo"]


def _window(values: dict[str, float], max_rows: int) -> Setup:
    preferred = int(values["preferred_rows"])
    policy = WindowPolicy(
        max_rows,
        _levels(values),
        max_delay=values["delay_ms"] / 1e3,
        preferred_rows=(preferred,) if preferred else (),
    )
    return Setup(BatchQueue(policy), timeout=values["timeout_ms"] / 1e3 or inf)


def _levels(values: dict[str, float]) -> tuple[LevelPolicy, ...]:
    return (LevelPolicy(max_queued_rows=int(values["max_queued_rows"])),)
