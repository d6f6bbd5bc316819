"""Clocks and alarms: exactly in virtual time, and once each in real time, within milliseconds."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any

import pytest
import uvloop

from server.scheduling.clock import Alarm, Clock, LoopClock, TimerfdClock, clock_for
from tests import autojump

MOMENT = 0.002
"""Seconds of real time that a test may wait for."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="timerfd is Linux's")


class Bell:
    """Remembers when it rang."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rang: list[float] = []
        self.ringing = asyncio.Event()

    def ring(self) -> None:
        self.rang.append(self.clock.now())
        self.ringing.set()

    async def next_ring(self) -> float:
        """When it rings next."""
        self.ringing.clear()
        async with asyncio.timeout(10):
            await self.ringing.wait()
        return self.rang[-1]


def test_a_loop_clocks_alarm_rings_at_its_time() -> None:
    async def main() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        bell = Bell(clock)
        alarm = clock.alarm(bell.ring)
        alarm.set(5)
        assert alarm.when == 5
        await asyncio.sleep(100)
        assert (bell.rang, alarm.when) == ([5], inf)

    autojump.run(main())


def test_a_loop_clocks_alarm_moves_both_ways() -> None:
    async def main() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        bell = Bell(clock)
        alarm = clock.alarm(bell.ring)
        alarm.set(50)
        alarm.set(10)
        await asyncio.sleep(20)
        alarm.set(30)
        alarm.set(40)
        await asyncio.sleep(80)
        assert bell.rang == [10, 40]

    autojump.run(main())


@pytest.mark.parametrize("turn_off", [lambda alarm: alarm.set(inf), lambda alarm: alarm.close()], ids=["inf", "close"])
def test_a_loop_clocks_alarm_can_be_turned_off(turn_off: Callable[[Alarm], None]) -> None:
    async def main() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        bell = Bell(clock)
        alarm = clock.alarm(bell.ring)
        alarm.set(10)
        turn_off(alarm)
        await asyncio.sleep(20)
        assert (bell.rang, alarm.when) == ([], inf)

    autojump.run(main())


def test_a_loop_clocks_alarm_for_the_past_rings_at_once() -> None:
    async def main() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        bell = Bell(clock)
        await asyncio.sleep(10)
        clock.alarm(bell.ring).set(3)
        assert bell.rang == []  # never inside set
        await asyncio.sleep(0.5)
        assert bell.rang == [10]

    autojump.run(main())


def test_an_alarm_can_be_set_again_by_its_own_callback() -> None:
    async def main() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        rang: list[float] = []

        def ring() -> None:
            rang.append(clock.now())
            if len(rang) < 3:
                alarm.set(clock.now() + 2)

        alarm = clock.alarm(ring)
        alarm.set(2)
        await asyncio.sleep(100)
        assert rang == [2, 4, 6]

    autojump.run(main())


def on_real_loops(test: Callable[[TimerfdClock], Coroutine[Any, Any, None]]) -> None:
    """Run with asyncio's loop and with uvloop, whose handling of file descriptors differs."""

    async def main() -> None:
        await test(TimerfdClock(asyncio.get_running_loop()))

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())


@linux
def test_a_timerfd_alarm_rings_and_not_before_its_time() -> None:
    async def test(clock: TimerfdClock) -> None:
        bell = Bell(clock)
        alarm = clock.alarm(bell.ring)
        when = clock.now() + MOMENT
        alarm.set(when)
        assert await bell.next_ring() >= when
        assert (len(bell.rang), alarm.when) == (1, inf)
        alarm.close()

    on_real_loops(test)


@linux
def test_a_timerfd_alarm_can_be_moved_earlier() -> None:
    async def test(clock: TimerfdClock) -> None:
        bell = Bell(clock)
        alarm = clock.alarm(bell.ring)
        started = clock.now()
        alarm.set(started + 60)
        alarm.set(started + MOMENT)
        assert started + MOMENT <= await bell.next_ring() < started + 9
        alarm.close()

    on_real_loops(test)


@linux
def test_a_timerfd_alarm_can_be_moved_later() -> None:
    async def test(clock: TimerfdClock) -> None:
        bell = Bell(clock)
        alarm = clock.alarm(bell.ring)
        started = clock.now()
        alarm.set(started + MOMENT)
        alarm.set(started + 2 * MOMENT)
        assert await bell.next_ring() >= started + 2 * MOMENT
        assert len(bell.rang) == 1
        alarm.close()

    on_real_loops(test)


@linux
def test_a_timerfd_alarm_set_to_inf_does_not_ring() -> None:
    async def test(clock: TimerfdClock) -> None:
        silent, later = Bell(clock), Bell(clock)
        alarm, witness = clock.alarm(silent.ring), clock.alarm(later.ring)
        alarm.set(clock.now() + MOMENT)
        alarm.set(inf)
        witness.set(clock.now() + 2 * MOMENT)
        await later.next_ring()
        assert (silent.rang, alarm.when) == ([], inf)
        alarm.close()
        witness.close()

    on_real_loops(test)


@linux
@pytest.mark.parametrize("when", [-5.0, 0.0, 1e-12, 1.0], ids=["negative", "zero", "less than a nanosecond", "past"])
def test_a_timerfd_alarm_for_the_past_rings_at_once(when: float) -> None:
    async def test(clock: TimerfdClock) -> None:
        bell = Bell(clock)
        alarm = clock.alarm(bell.ring)
        alarm.set(when)
        assert bell.rang == []  # never inside set
        await bell.next_ring()
        alarm.close()

    on_real_loops(test)


@linux
def test_a_timerfd_alarm_set_anew_after_it_was_due_rings_once() -> None:
    async def test(clock: TimerfdClock) -> None:
        bell = Bell(clock)
        alarm = clock.alarm(bell.ring)
        alarm.set(clock.now() - 1)
        alarm.set(clock.now() + MOMENT)  # the loop may have seen the first already
        when = alarm.when
        assert await bell.next_ring() >= when
        assert len(bell.rang) == 1
        alarm.close()

    on_real_loops(test)


@linux
def test_a_closed_timerfd_alarm_gives_its_descriptor_back() -> None:
    async def test(clock: TimerfdClock) -> None:
        clock.alarm(lambda: None).close()  # what the loop keeps for itself is open from now on
        before = os.listdir("/proc/self/fd")
        alarm = clock.alarm(lambda: None)
        alarm.set(clock.now() + 60)
        assert len(os.listdir("/proc/self/fd")) == len(before) + 1
        alarm.close()
        assert os.listdir("/proc/self/fd") == before

    on_real_loops(test)


@linux
def test_a_timerfd_clock_is_the_monotonic_clock() -> None:
    async def test(clock: TimerfdClock) -> None:
        assert time.monotonic() <= clock.now() <= time.monotonic()

    on_real_loops(test)


@linux
def test_linux_gets_the_timerfd_clock() -> None:
    loop = asyncio.new_event_loop()
    assert isinstance(clock_for(loop), TimerfdClock)
    loop.close()


@linux
def test_where_no_descriptor_is_left_an_alarm_rings_all_the_same() -> None:
    async def main() -> None:
        clock = TimerfdClock(asyncio.get_running_loop())
        bell = Bell(clock)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            alarm = clock.alarm(bell.ring)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        alarm.set(clock.now() + MOMENT)
        await bell.next_ring()
        alarm.close()

    asyncio.run(main())
