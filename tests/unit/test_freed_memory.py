"""When freed memory goes back: once it is much, and was not needed for a while."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from server.freed_memory import CALM_LOOKS, LOOK_SECONDS, MUCH_BYTES, FreedMemory, Leftovers
from server.memory_budget import MemoryBudget
from tests.fakes import PuppetClock

MODELS_BYTES = 3 * MUCH_BYTES


def rested() -> Leftovers:
    """All that is resident is in use by models."""
    leftovers = Leftovers()
    leftovers.gave_back(MODELS_BYTES, 0)
    return leftovers


def looks(leftovers: Leftovers, resident_bytes: int, *used_bytes: int) -> list[bool]:
    return [leftovers.look(resident_bytes, used) for used in used_bytes]


CALM = [0] * CALM_LOOKS
ONLY_THE_LAST = [False] * (CALM_LOOKS - 1) + [True]


@pytest.mark.parametrize("free_bytes", [MUCH_BYTES, 8 * MUCH_BYTES])
def test_what_nobody_has_needed_for_a_while_goes_back(free_bytes: int) -> None:
    assert looks(rested(), MODELS_BYTES + free_bytes, *CALM) == ONLY_THE_LAST


def test_a_little_is_kept_for_good() -> None:
    assert not any(looks(rested(), MODELS_BYTES + MUCH_BYTES - 1, *CALM, *CALM))


def test_what_requests_hold_is_not_free() -> None:
    used = [MUCH_BYTES] * CALM_LOOKS
    assert not any(looks(rested(), MODELS_BYTES + 2 * MUCH_BYTES - 1, *used))
    assert looks(rested(), MODELS_BYTES + 2 * MUCH_BYTES, *used) == ONLY_THE_LAST


def test_what_was_needed_lately_is_kept() -> None:
    leftovers = rested()
    assert not any(looks(leftovers, MODELS_BYTES + MUCH_BYTES, 1, *CALM[1:]))
    assert looks(leftovers, MODELS_BYTES + MUCH_BYTES, 0) == [True]


def test_what_starting_and_loading_leave_goes_back() -> None:
    assert looks(Leftovers(), MUCH_BYTES, *CALM) == ONLY_THE_LAST


def test_what_stays_once_memory_went_back_is_in_use() -> None:
    leftovers = rested()
    looks(leftovers, MODELS_BYTES + MUCH_BYTES, *CALM)
    leftovers.gave_back(MODELS_BYTES + MUCH_BYTES, 0)
    assert not any(looks(leftovers, MODELS_BYTES + MUCH_BYTES, *CALM, *CALM))


def test_what_requests_hold_while_memory_goes_back_is_free_later() -> None:
    leftovers = Leftovers()
    leftovers.gave_back(MODELS_BYTES + MUCH_BYTES, MUCH_BYTES)
    assert looks(leftovers, MODELS_BYTES + MUCH_BYTES, *CALM) == ONLY_THE_LAST


def test_it_does_not_go_back_more_often_than_is_looked_for_calm() -> None:
    leftovers = rested()
    assert looks(leftovers, MODELS_BYTES + MUCH_BYTES, *CALM, *CALM) == 2 * ONLY_THE_LAST


class Process:
    """What is resident, and goes back when a test says so."""

    def __init__(self, resident_bytes: int) -> None:
        self.resident_bytes = resident_bytes
        self.asked: list[Callable[[], None]] = []

    def go_back(self, size: int) -> None:
        self.resident_bytes -= size
        self.asked.pop()()


def test_it_is_looked_once_a_second_until_the_end() -> None:
    clock, memory, process = PuppetClock(now=100), MemoryBudget(), Process(MODELS_BYTES)
    freed = FreedMemory(clock, memory, process.asked.append, lambda: process.resident_bytes)
    freed.start()
    clock.advance(CALM_LOOKS * LOOK_SECONDS)
    process.go_back(MUCH_BYTES)
    clock.advance(CALM_LOOKS * LOOK_SECONDS)
    assert not process.asked

    process.resident_bytes += 2 * MUCH_BYTES
    memory.take(2 * MUCH_BYTES)
    clock.advance(CALM_LOOKS * LOOK_SECONDS)
    assert not process.asked
    memory.take(-2 * MUCH_BYTES)
    clock.advance(CALM_LOOKS * LOOK_SECONDS)
    process.go_back(2 * MUCH_BYTES)

    freed.stop()
    assert clock.alarms[0].closed
