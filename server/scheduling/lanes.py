"""One lane runs batches one after another: a thread per model instance."""

from __future__ import annotations

import _thread
import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Generic, NoReturn, Protocol, TypeVar

from server.scheduling.queue import Ticket

T = TypeVar("T", bound=Ticket)
R = TypeVar("R")
T_contra = TypeVar("T_contra", bound=Ticket, contravariant=True)
R_co = TypeVar("R_co", covariant=True)

_Job = tuple[Sequence[T], Callable[[R | Exception], None], Exception | None]
"""A batch, who hears of its outcome, and how it failed on the event loop's thread if it did."""


class Lane(Protocol[T_contra, R_co]):
    """Runs one batch at a time."""

    def submit(self, batch: Sequence[T_contra], done: Callable[[R_co | Exception], None]) -> None:
        """Start a batch and return. `done` is called once, later, on the event loop's thread."""
        ...

    def close(self) -> None:
        """Stop, after the batch that is running."""
        ...


def _no_rescue(_: Sequence[Ticket], error: Exception) -> NoReturn:
    raise error


def _never(_: Sequence[Ticket]) -> bool:
    return False


class LaneThread(threading.Thread):
    """The thread of a lane."""


def join_lanes(seconds: float) -> bool:
    """Wait for the threads of lanes that were closed, and say whether all have ended. One that is inside of a runtime
    when the interpreter goes may bring it down."""
    deadline = time.monotonic() + seconds
    threads = [thread for thread in threading.enumerate() if isinstance(thread, LaneThread)]
    for thread in threads:
        _join(thread, deadline)
    return not any(thread.is_alive() for thread in threads)


def _join(thread: threading.Thread, deadline: float) -> None:
    while (left := deadline - time.monotonic()) > 0:
        try:
            thread.join(left)
        except RuntimeError:  # it is only just being started
            time.sleep(0.001)
        else:
            return


class ThreadLane(Generic[T, R]):
    """A lane on a thread of its own: numpy and ONNX Runtime release the interpreter lock while they work.

    A batch for which `is_tiny` holds runs on the event loop's thread instead: handing it over would take longer than
    running it.

    Where `work` raises for a batch of several requests, `rescue` is asked for the outcome instead, given the batch and
    the exception, and always on the lane's own thread.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[T]], R],
        loop: asyncio.AbstractEventLoop,
        is_tiny: Callable[[Sequence[T]], bool] = _never,
        rescue: Callable[[Sequence[T], Exception], R] = _no_rescue,
    ) -> None:
        self._work = work
        self._rescue = rescue
        self._loop = loop
        self._is_tiny = is_tiny
        self._jobs: SimpleQueue[_Job[T, R] | None] = SimpleQueue()
        thread = LaneThread(target=self._run, name=name, daemon=True)
        # `start` returns once the thread runs: 200 ms where the cores are busy, as when another model is being loaded.
        # So it is not the event loop that waits for it.
        _thread.start_new_thread(self._start, (thread,))

    def submit(self, batch: Sequence[T], done: Callable[[R | Exception], None]) -> None:
        if not self._is_tiny(batch):
            self._jobs.put((batch, done, None))
            return
        try:
            outcome = self._work(batch)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the callers must hear of it
            if len(batch) > 1:
                self._jobs.put((batch, done, error))
            else:
                self._loop.call_soon(done, error)
        else:
            self._loop.call_soon(done, outcome)

    def close(self) -> None:
        self._jobs.put(None)

    def _start(self, thread: LaneThread) -> None:
        try:
            thread.start()
        except RuntimeError:  # there was room for this thread, and for no other: it is the lane's then
            self._run()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch, done, failure = job
            outcome = self._outcome(batch, failure)
            try:
                self._loop.call_soon_threadsafe(done, outcome)
            except RuntimeError:
                return  # the loop is gone, and whoever waited with it
            del job, batch, done, failure, outcome  # an idle lane must not keep the last batch alive
        del self._work, self._rescue  # nor a closed lane the model: whoever holds on to the lane, its memory is free

    def _outcome(self, batch: Sequence[T], failure: Exception | None) -> R | Exception:
        try:
            if failure is None:
                try:
                    return self._work(batch)
                except Exception as error:
                    if len(batch) == 1:
                        raise
                    failure = error
            return self._rescue(batch, failure)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the callers must hear of it
            return error
        finally:
            del failure  # its traceback leads here: the two would keep the batch until a garbage collection
