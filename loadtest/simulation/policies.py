"""The server's queues, by name: `window:delay_ms=2,timeout_ms=20`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from loadtest.errors import LoadTestError
from loadtest.simulation.costs import MeasuredCosts
from loadtest.simulation.specs import settings_of, split_spec
from server.scheduling.batcher import Queue
from server.scheduling.policy import LevelPolicy, WindowPolicy
from server.scheduling.queue import BatchQueue, Ticket

QUEUED_BATCHES = 64
MIN_QUEUED_ROWS = 1024
"""The server's default bound of a queue: 64 full batches, and never less than 1,024 rows."""

SWEPT_DELAYS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Windows of a sweep, as shares of the objective."""
SWEPT_TIMEOUTS = (0.5, 1.0)
"""Queue timeouts of a sweep, as shares of the objective, with no window."""

POLICIES = "window[:DELAY_MS,timeout_ms=0,preferred_rows=0,max_queued_rows=…]"


@dataclass(frozen=True)
class Setup:
    """A policy, ready to run once."""

    queue: Queue[Ticket]
    timeout: float = inf
    """Seconds from a request's arrival to its ticket's deadline."""
    observe: Callable[[int, float], None] | None = None
    """Hears the rows and seconds of every batch that ran."""


def make_policy(spec: str, costs: MeasuredCosts) -> Setup:
    """What `--policy` names. Raises `LoadTestError`."""
    name, _ = split_spec(spec)
    if name == "window":
        return _window(spec, costs.max_rows)
    raise LoadTestError(f"'{spec}': policies are {POLICIES}")


def swept_policies(objective: float) -> list[str]:
    """Fixed delays up to the objective, and fixed timeouts."""
    windows = [f"window:{1e3 * share * objective:.4g}" for share in SWEPT_DELAYS]
    timeouts = [f"window:0,timeout_ms={1e3 * share * objective:.4g}" for share in SWEPT_TIMEOUTS]
    return [*windows, *timeouts]


def _window(spec: str, max_rows: int) -> Setup:
    defaults = {
        "delay_ms": 0.0,
        "timeout_ms": 0.0,
        "preferred_rows": 0.0,
        "max_queued_rows": max(QUEUED_BATCHES * max_rows, MIN_QUEUED_ROWS),
    }
    values = settings_of(spec, defaults, first="delay_ms")
    preferred = int(values["preferred_rows"])
    try:
        policy = WindowPolicy(
            max_rows,
            max_delay=values["delay_ms"] / 1e3,
            preferred_rows=(preferred,) if preferred else (),
            levels=(LevelPolicy(max_queued_rows=int(values["max_queued_rows"])),),
        )
    except ValueError as error:
        raise LoadTestError(f"'{spec}': {error}") from error
    return Setup(BatchQueue(policy), timeout=values["timeout_ms"] / 1e3 or inf)
