"""A version whose runs may take so long and no longer: its sessions, its lanes, and what becomes of it where one hangs.

Around `execution` and the lanes, for models that set such a limit: others know nothing of it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto

from server.backends.base import Session
from server.errors import NotReady, RunTimedOut
from server.models.config import ModelConfig
from server.models.execution import BatchResult
from server.models.work import Work
from server.scheduling.clock import Clock
from server.scheduling.lanes import Lane
from server.scheduling.watched_lane import Runs, WatchedLane
from server.statistics import VersionStatistics
from server.tensors import Array

log = logging.getLogger(__name__)

MAX_HUNG_RUNS = 3
"""So many runs of a version may be left behind at a time. Each holds a thread, its inputs, and perhaps a core."""


class Remedy(Enum):
    """What becomes of a version, one of whose runs does not come back."""

    REPLACE = auto()
    """Another lane takes the place of the one that hangs."""
    RELOAD = auto()
    """The version is taken down and loaded again."""
    GIVE_UP = auto()
    """The version is taken down, and nothing loads it again by itself."""


def remedy(hung: int, *, keeps_states: bool) -> Remedy:
    """What to do where `hung` runs have not come back, the latest one included. Pure.

    A run that hangs may yet write the states of its lane's sequences: no other lane can go on with them.
    """
    if hung > MAX_HUNG_RUNS:
        return Remedy.GIVE_UP
    return Remedy.RELOAD if keeps_states else Remedy.REPLACE


class RunLimit:
    """Of one loaded version. On the event loop's thread."""

    def __init__(
        self, config: ModelConfig, version: int, seconds: float, clock: Clock, statistics: VersionStatistics
    ) -> None:
        self._config = config
        self._version = version
        self._seconds = seconds
        self._clock = clock
        self._statistics = statistics
        self.when_hung: Callable[[Remedy | None, str], None] | None = None
        """Called when a run does not come back, with what becomes of the version, and when one comes back after all;
        and with why the version is not what it was, "" where it is."""

    def lane(
        self,
        session: WatchedSession,
        first: Lane[Work, BatchResult],
        make_lane: Callable[[WatchedSession], Lane[Work, BatchResult]],
    ) -> WatchedLane[Work, BatchResult]:
        """`first`, which runs `session`; and one of `make_lane` in its place once a run does not come back."""

        def another() -> tuple[Lane[Work, BatchResult], Runs]:
            fresh = session.another()
            return make_lane(fresh), fresh

        return WatchedLane(
            first,
            session,
            self._seconds,
            self._clock,
            another=another,
            overdue=self._overdue,
            hung=self._hung,
        )

    def _overdue(self) -> RunTimedOut:
        self._statistics.run_timeouts += 1
        name, version, limit = self._config.name, self._version, self._seconds * 1000
        log.error(
            "model '%s' version %d: a run took longer than run_timeout_ms %.0f and is stopped", name, version, limit
        )
        return RunTimedOut(f"model '{name}' version {version}: the run took longer than run_timeout_ms {limit:.0f}")

    def _hung(self, change: int) -> NotReady | None:
        statistics, name, version = self._statistics, self._config.name, self._version
        statistics.hung_runs += change
        hung = statistics.hung_runs
        what = f"{hung} of its runs took longer than run_timeout_ms and cannot be stopped" if hung else ""
        if change < 0:
            log.warning("model '%s' version %d: a run came back that could not be stopped", name, version)
            chosen = None
        else:
            chosen = remedy(hung, keeps_states=self._config.sequence is not None)
            log.error("model '%s' version %d: %s", name, version, what)
        if self.when_hung is not None:
            self.when_hung(chosen, what)
        if chosen in (None, Remedy.REPLACE):
            return None
        return NotReady(f"Request for unknown model: '{name}' version {version} is not at ready state")


class WatchedSession:
    """A session for one lane, which counts its runs and ends the one that is asked for. Implements `base.Session`, and
    `watched_lane.Runs`."""

    def __init__(self, session: Session) -> None:
        self.inputs = session.inputs
        self.outputs = session.outputs
        self.fixed_shapes = session.fixed_shapes
        self.empty = session.empty
        self.number = 0
        self._shared = session
        self._session = session.interruptible()
        self._lock = threading.Lock()
        self._running = False
        self._error: Exception | None = None

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """See `base.Session.run`. Raises what `interrupt_run` returned where the run was interrupted."""
        with self._lock:
            self.number += 1
            self._running = True
        try:
            return self._session.run(inputs, outputs)
        except Exception:
            if self._error is None:
                raise
            raise self._error from None
        finally:
            with self._lock:
                self._running = False
                if self._error is not None:  # the next run needs one that was not interrupted
                    self._session = self._shared.interruptible()
                    self._error = None

    def another(self) -> WatchedSession:
        """The same for another lane."""
        return WatchedSession(self._shared)

    def for_instance(self) -> WatchedSession:
        """See `base.Session.for_instance`."""
        return self

    def interruptible(self) -> WatchedSession:
        """See `base.Session.interruptible`: it is for one lane already."""
        return self

    def interrupt(self) -> None:
        """See `base.Session.interrupt`."""
        with self._lock:
            self._session.interrupt()

    def interrupt_run(self, number: int, overdue: Callable[[], Exception]) -> Exception | None:
        """See `Runs.interrupt_run`."""
        with self._lock:
            if not self._running or number != self.number:
                return None
            self._error = overdue()
            self._session.interrupt()
            return self._error
