"""An event loop whose clock jumps to the next timer instead of sleeping.

Only for code that waits on timers and futures: a thread or a socket would be overtaken by the clock, so tests of
those use the real loop. An hour of virtual time takes no time, and a test that waits for nothing fails at once.
asyncio takes timers to be exact to a nanosecond, which a float of seconds is for the first months.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

MAX_TURNS = 10_000


class _JumpingSelector(selectors.DefaultSelector):
    """Asked to wait, it moves the clock by as much and returns."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._turns_without_time = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("deadlock: nothing is ready and no timer is set")
        self._turns_without_time = 0 if timeout > 0 else self._turns_without_time + 1
        if self._turns_without_time > MAX_TURNS:
            self._turns_without_time = 0  # the loop is about to be closed, which takes some turns
            raise RuntimeError("livelock: the loop is busy, but time never moves")
        self.now += max(timeout, 0)
        return super().select(0)


class AutojumpLoop(asyncio.SelectorEventLoop):
    """A loop in virtual time, which starts at 0 seconds."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end in virtual time. What a callback raised fails the test as well."""
    unheard: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=AutojumpLoop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: unheard.append(context))
        result = runner.run(main)
    assert not unheard
    return result
