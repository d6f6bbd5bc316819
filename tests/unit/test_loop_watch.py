"""How late the event loop is, and how long collections take."""

from __future__ import annotations

import gc

from server.loop_watch import SAMPLE_SECONDS, LoopWatch
from server.statistics import Histogram
from tests.fakes import PuppetClock


def observed(histogram: Histogram) -> int:
    return sum(histogram.counts)


def test_the_loop_is_as_late_as_its_alarm_rings() -> None:
    clock = PuppetClock(now=100)
    watch = LoopWatch(clock)
    watch.start()
    [alarm] = clock.alarms
    for lag in (0.0, 0.25):
        clock.time = alarm.when + lag
        alarm.callback()
    watch.stop()
    lags = watch.snapshot().lag_us
    assert (observed(lags), lags.total) == (2, 250_000)


def test_it_is_looked_at_twice_a_second_also_after_it_was_late() -> None:
    clock = PuppetClock(now=100)
    watch = LoopWatch(clock)
    watch.start()
    clock.advance(10)
    watch.stop()
    assert observed(watch.snapshot().lag_us) == 10 / SAMPLE_SECONDS == 20
    assert clock.alarms[0].closed


def test_a_collection_is_timed() -> None:
    watch = LoopWatch(PuppetClock())
    watch.start()
    before = observed(watch.snapshot().gc_pause_us)
    gc.collect()
    watch.stop()
    after = watch.snapshot().gc_pause_us
    assert observed(after) > before
    assert after.total > 0
    gc.collect()
    assert observed(watch.snapshot().gc_pause_us) == observed(after)


def test_what_was_not_started_can_be_stopped() -> None:
    watch = LoopWatch(PuppetClock())
    watch.stop()
    assert observed(watch.snapshot().lag_us) == 0
