"""One lane runs batches one after another: a thread per model instance."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

from server.scheduling.queue import Ticket

T = TypeVar("T", bound=Ticket)
R = TypeVar("R")
T_contra = TypeVar("T_contra", bound=Ticket, contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Lane(Protocol[T_contra, R_co]):
    """Runs one batch at a time."""

    def submit(self, batch: Sequence[T_contra], done: Callable[[R_co | Exception], None]) -> None:
        """Start a batch and return. `done` is called once, later, on the event loop's thread."""
        ...

    def close(self) -> None:
        """Stop, after the batch that is running."""
        ...


def _never(_: Sequence[Ticket]) -> bool:
    return False


class ThreadLane(Generic[T, R]):
    """A lane on a thread of its own: numpy and ONNX Runtime release the interpreter lock while they work.

    A batch for which `is_tiny` holds runs on the event loop's thread instead: handing it over would take longer than
    running it.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[T]], R],
        loop: asyncio.AbstractEventLoop,
        is_tiny: Callable[[Sequence[T]], bool] = _never,
    ) -> None:
        self._work = work
        self._loop = loop
        self._is_tiny = is_tiny
        self._jobs: SimpleQueue[tuple[Sequence[T], Callable[[R | Exception], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, batch: Sequence[T], done: Callable[[R | Exception], None]) -> None:
        if self._is_tiny(batch):
            self._loop.call_soon(done, self._outcome(batch))
        else:
            self._jobs.put((batch, done))

    def close(self) -> None:
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch, done = job
            outcome = self._outcome(batch)
            self._loop.call_soon_threadsafe(done, outcome)
            del job, batch, done, outcome  # an idle lane must not keep the last batch alive

    def _outcome(self, batch: Sequence[T]) -> R | Exception:
        try:
            return self._work(batch)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the callers must hear of it
            return error
