"""A run that is known to work, to tell a session that has gone bad from requests that are."""

from __future__ import annotations

from collections.abc import Callable

from server.backends.base import Session
from server.errors import LoadFailed
from server.models.config import ModelConfig
from server.models.sequence_execution import make_executor
from server.models.warmup import has_free_dimensions, run_alike, zeros
from server.scheduling.costs import CostTable

Probe = Callable[[], None]
"""Runs the session once, on the caller's thread. Raises whatever the run raises."""


def working_probe(
    config: ModelConfig, version: int, session: Session, costs: CostTable, *, must_work: bool
) -> Probe | None:
    """A run of zeros that has succeeded before; None where there is none. Blocks for as long as the run takes.

    `costs` is what `warmup.warm_up` has found. Where the run `must_work`, because it did before: raises `LoadFailed`
    where it fails.
    """
    if has_free_dimensions(config):
        return None
    executor = make_executor(config, version, session, costs.fill_sizes)

    def probe() -> None:
        run_alike(executor, zeros(config), requests=1)

    try:
        if config.warmup or not costs.calibrated:  # else zeros are what it has just been measured with
            probe()
    except Exception as error:
        if must_work:
            raise LoadFailed(f"it can be loaded, and a run with zeros fails as before: {error}") from error
        return None
    return probe
