"""The instances of a loaded version: each a session, what runs its batches, and the lane that does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from server.backends.base import Session
from server.models.config import ModelConfig
from server.models.execution import BatchResult, Executor
from server.models.run_limit import RunLimit, WatchedSession
from server.models.sequence_execution import make_executor
from server.models.work import Work
from server.scheduling.lanes import Lane, ThreadLane


class Instances:
    """Of one version, one for each of `sessions`. On the event loop's thread."""

    def __init__(
        self,
        config: ModelConfig,
        version: int,
        sessions: Sequence[Session],
        sizes: Sequence[int],
        limit: RunLimit | None,
    ) -> None:
        """`sizes` are what batches are filled up to; `limit` None lets runs take as long as they like."""
        self._config = config
        self._version = version
        self._sizes = sizes
        self._limit = limit
        self._sessions: list[Session] = list(sessions if limit is None else map(WatchedSession, sessions))
        """None once the lanes are closed."""

    def start(self, is_tiny: Callable[[Sequence[Work]], bool]) -> tuple[list[Executor], list[Lane[Work, BatchResult]]]:
        """What runs on each, and its lane. `is_tiny` tells batches for the event loop's own thread.

        Raises `RuntimeError` where there are not enough threads, and keeps none then.
        """
        executors = [self._executor(session) for session in self._sessions]
        lanes: list[Lane[Work, BatchResult]] = []
        try:
            for index, executor in enumerate(executors):
                lanes.append(self._lane(index, executor, is_tiny))
        except RuntimeError:
            for lane in lanes:
                lane.close()
            raise
        return executors, lanes

    def interrupt(self) -> None:
        """End what runs as soon as may be."""
        for session in dict.fromkeys(self._sessions):
            session.interrupt()

    def forget(self) -> None:
        """The lanes are closed: hold on to nothing that they ran."""
        self._sessions.clear()
        if self._limit is not None:
            self._limit.when_hung = None

    def _executor(self, session: Session) -> Executor:
        return make_executor(self._config, self._version, session, self._sizes)

    def _lane(
        self, index: int, executor: Executor, is_tiny: Callable[[Sequence[Work]], bool]
    ) -> Lane[Work, BatchResult]:
        name, loop = f"{self._config.name}/{self._version}#{index}", asyncio.get_running_loop()
        session = self._sessions[index]
        if self._limit is None or not isinstance(session, WatchedSession):
            return ThreadLane(name, executor.execute, loop, is_tiny, executor.rescue)

        # Never on the loop's thread: nobody would be there to look at the time.
        def another(fresh: WatchedSession) -> ThreadLane[Work, BatchResult]:
            self._sessions[index] = fresh
            executor = self._executor(fresh)
            return ThreadLane(name, executor.execute, loop, rescue=executor.rescue)

        first: ThreadLane[Work, BatchResult] = ThreadLane(name, executor.execute, loop, rescue=executor.rescue)
        return self._limit.lane(session, first, another)
