"""The threads that load versions, and what becomes of a load that takes too long.

It is interrupted. Where it does not end for that, its thread is left behind, and another one takes its place: the load
has failed, and the others go on. On the event loop's thread, with a clock that is given; `LoadWatch` is pure.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from math import inf
from typing import Any, ParamSpec, TypeVar

from server.backends.loading import LoadAttempt
from server.errors import LoadFailed, LoadTimedOut
from server.scheduling.clock import Alarm, Clock
from server.scheduling.watched_lane import RunWatch, Verdict

log = logging.getLogger(__name__)

MAX_LEFT_BEHIND = 8
"""So many loads may hang at a time. Each holds a thread, and what it has read of its model."""

P = ParamSpec("P")
T = TypeVar("T")


class LoadWatch:
    """How long a load has lasted, and the run that it is at. Pure."""

    def __init__(self, seconds: float, now: float) -> None:
        """`seconds` that the load may take; inf: as many as it likes."""
        self._whole = RunWatch(seconds)
        self._whole.begin(0, now)
        self._runs: RunWatch | None = None

    @property
    def due(self) -> float:
        """When to look."""
        return min(self._whole.due, inf if self._runs is None else self._runs.due)

    def look(self, now: float, run: int, run_limit: float, *, waits: bool) -> tuple[Verdict, bool]:
        """What to do now that the load is at this run, each of which may take `run_limit` seconds; 0: as many as it
        likes. And whether it is for the run's sake. While it `waits` for others, no time goes by."""
        if waits:
            self._whole.begin(0, now)
        whole = self._whole.look(0, now)
        if not (run and run_limit):
            self._runs = None
            return whole, False
        if self._runs is None:
            self._runs = RunWatch(run_limit)
        one = self._runs.look(run, now)
        return (one, True) if one is not Verdict.WAIT else (whole, False)


class LimitedLoad:
    """One load: functions that run on the threads one after another, and may take so long altogether."""

    def __init__(self, threads: LoadThreads, label: str, clock: Clock, seconds: float) -> None:
        """`label` names the version in the log. `seconds` inf: as long as it likes."""
        self._threads = threads
        self._label = label
        self._clock = clock
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._watch = LoadWatch(seconds, clock.now())
        self._left: asyncio.Future[Any] = self._loop.create_future()
        """Fails once nobody waits for the thread any more."""
        self._ended = False
        self.attempt = LoadAttempt(self._changed)

    async def run(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What the function returns or raises. Raises `LoadFailed` where the load is interrupted, and does not wait
        then for what does not end."""
        self.attempt.check()
        done = self._threads.submit(function, *arguments, **named)
        done.add_done_callback(_heard)
        try:
            await asyncio.wait((done, self._left), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.attempt.interrupt(_given_up())
            raise
        if done.done():
            return done.result()
        done.add_done_callback(self._came_back)
        error = self._left.exception()
        assert error is not None, "nothing else ends it"
        raise error

    def give_up(self, error: LoadFailed) -> None:
        """The load is not wanted any more: it fails now, and its thread ends as soon as may be."""
        self.attempt.interrupt(error)
        self._leave(error)

    def end(self) -> None:
        """Nothing more will be run."""
        self._ended = True
        if not self._left.done():
            self._left.cancel()

    def _changed(self) -> None:
        self._loop.call_soon_threadsafe(self._threads.look)

    @property
    def due(self) -> float:
        """When to look."""
        return inf if self._ended or self._left.done() else self._watch.due

    def look(self) -> None:
        """See what has become of it."""
        if self._ended or self._left.done():
            return
        attempt = self.attempt
        verdict, for_run = self._watch.look(self._clock.now(), attempt.runs, attempt.run_limit, waits=attempt.waits)
        match verdict:
            case Verdict.INTERRUPT:
                error = self._too_long(for_run)
                log.error("%s: %s; the load is stopped", self._label, error)
                attempt.interrupt(error)
            case Verdict.GIVE_UP:
                error = LoadTimedOut(f"{attempt.error}; that cannot be stopped, and its thread is left behind")
                attempt.leave()
                self._threads.replace()
                self._leave(error)
            case Verdict.WAIT:
                pass

    def _too_long(self, for_run: bool) -> LoadTimedOut:
        if for_run:
            limit = self.attempt.run_limit * 1000
            return LoadTimedOut(
                f"a run before it serves took longer than {limit:.0f} ms: run_timeout_ms, and more for first runs; if "
                "it is zeros that the model does not end for, add model_warmup with inputs that it does"
            )
        return LoadTimedOut(f"it took longer to load than --model-load-timeout-secs {self._seconds:g}")

    def _leave(self, error: LoadFailed) -> None:
        if not self._left.done():
            self._left.set_exception(error)
            _heard(self._left)

    def _came_back(self, _: asyncio.Future[Any]) -> None:
        if self.attempt.left:
            self._threads.come_back()
            log.warning("%s: a load came back that was left behind", self._label)


class LoadThreads:
    """A bounded number of threads, and the loads that go on there."""

    def __init__(self, count: int, clock: Clock, load_seconds: float) -> None:
        """`load_seconds` is how long a load may take; 0: as long as it likes."""
        self._count = count
        self._clock = clock
        self._load_seconds = load_seconds or inf
        self._pool = self._new_pool()
        self._files = ThreadPoolExecutor(1, thread_name_prefix="files")
        """For what is no load: it must not wait behind one that hangs. No load ever waits for a thread."""
        self._loads: set[LimitedLoad] = set()
        self._given_up: LoadFailed | None = None
        self._alarm: Alarm | None = None
        """One for all, and kept: a load is no reason to need another descriptor."""
        self.left_behind = 0
        """Loads that hang."""

    def start(self) -> None:
        """Start the threads now, before anyone is served: the event loop waits while one starts."""
        together = threading.Barrier(self._count)
        for _ in range(self._count):
            self._pool.submit(together.wait)
        self._files.submit(int)

    def read(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> asyncio.Future[T]:
        """Run a function that reads or writes files, beside the loads."""
        return asyncio.get_running_loop().run_in_executor(self._files, partial(function, *arguments, **named))

    def submit(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> asyncio.Future[T]:
        """Run a function that blocks on one of the threads."""
        return asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *arguments, **named))

    @contextmanager
    def load(self, label: str) -> Iterator[LimitedLoad]:
        """A load, for as long as it goes on. Raises `LoadFailed` where none begins any more."""
        if self._given_up is not None:
            raise self._given_up
        if self.left_behind >= MAX_LEFT_BEHIND:
            raise LoadFailed(
                f"{self.left_behind} loads hang, and each holds a thread: no other one is begun; restart the server"
            )
        load = LimitedLoad(self, label, self._clock, self._load_seconds)
        self._loads.add(load)
        self._set_alarm()
        try:
            yield load
        finally:
            self._loads.discard(load)
            load.end()

    def give_up(self) -> None:
        """Load nothing more, and do not wait for what is being loaded."""
        self._given_up = _given_up()
        for load in tuple(self._loads):
            load.give_up(self._given_up)

    def look(self) -> None:
        """See what has become of the loads."""
        for load in tuple(self._loads):
            load.look()
        self._set_alarm()

    def close(self) -> None:
        """Watch no more. After the last load."""
        if self._alarm is not None:
            self._alarm.close()
            self._alarm = None

    def _set_alarm(self) -> None:
        due = min([load.due for load in self._loads], default=inf)
        if due < inf and self._alarm is None:
            self._alarm = self._clock.alarm(self.look)
        if self._alarm is not None:
            self._alarm.set(due)

    def replace(self) -> None:
        """One of the threads is held for good: others take over, and the rest end when they have nothing to do."""
        self.left_behind += 1
        old, self._pool = self._pool, self._new_pool()
        old.shutdown(wait=False)

    def come_back(self) -> None:
        """A thread that was held has ended."""
        self.left_behind -= 1

    def _new_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._count, thread_name_prefix="load")


def _given_up() -> LoadFailed:
    return LoadFailed("given up, because the server stops")


def _heard(done: asyncio.Future[Any]) -> None:
    """Nobody may wait for it any more: what it raises is no surprise then."""
    if not done.cancelled():
        done.exception()
