"""Time for the event-loop shell: what time it is, and a single alarm per batcher.

`TimerfdClock` is exact to some tens of microseconds. An event loop's own timers count milliseconds (libuv, epoll), and
uvloop's `loop.time()` does too, which is far too coarse for a batching window of 100 µs. `LoopClock` follows an event
loop's own clock: the virtual time of the tests, and the fallback where the kernel has no timerfd.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import sys
import time
from collections.abc import Callable
from math import inf
from typing import Protocol

log = logging.getLogger(__name__)


class Alarm(Protocol):
    """Calls back once, at or shortly after the time last set, on the event loop's thread."""

    when: float
    """The time it is set for; inf where it is not set."""

    def set(self, when: float) -> None:
        """Move the alarm; inf turns it off; a time already past calls back as soon as the loop turns."""
        ...

    def close(self) -> None: ...


class Clock(Protocol):
    """A monotonic clock with alarms. Seconds."""

    def now(self) -> float: ...

    def alarm(self, callback: Callable[[], None]) -> Alarm: ...


class LoopClock:
    """The clock of an asyncio event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = loop.time

    def alarm(self, callback: Callable[[], None]) -> Alarm:
        return _LoopAlarm(self._loop, callback)


class _LoopAlarm:
    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self.when = inf
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None

    def set(self, when: float) -> None:
        if when == self.when:
            return
        self.when = when
        if self._handle:
            self._handle.cancel()
        self._handle = self._loop.call_at(when, self._ring) if when < inf else None

    def close(self) -> None:
        self.set(inf)

    def _ring(self) -> None:
        self.when = inf
        self._callback()


class TimerfdClock:
    """`time.monotonic` with alarms from Linux's timerfd (CLOCK_MONOTONIC, high resolution).

    Where no descriptor is left for one, an alarm is the event loop's: some milliseconds late, and better than none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = time.monotonic

    def alarm(self, callback: Callable[[], None]) -> Alarm:
        try:
            return _TimerfdAlarm(self._loop, callback)
        except OSError as error:
            log.warning("no exact alarm can be had: %s", error)
            return _LoopAlarm(self._loop, callback)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1


class _TimerfdAlarm:
    _libc = ctypes.CDLL(None, use_errno=True)

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self.when = inf
        self._loop = loop
        self._callback = callback
        self._spec = _Itimerspec()
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"timerfd_create: {os.strerror(code)}")
        loop.add_reader(self._fd, self._ring)

    def set(self, when: float) -> None:
        if when == self.when:
            return
        self.when = when
        # An all-zero time disarms; a time in the past fires at once.
        seconds, fraction = divmod(max(when, 1e-9), 1.0) if when < inf else (0.0, 0.0)
        self._spec.it_value.tv_sec = int(seconds)
        self._spec.it_value.tv_nsec = int(fraction * 1e9)
        self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # it was set anew after the loop had seen it ring
        self.when = inf
        self._callback()


def clock_for(loop: asyncio.AbstractEventLoop) -> Clock:
    """The best clock that this platform has for a running event loop."""
    return TimerfdClock(loop) if sys.platform == "linux" else LoopClock(loop)
