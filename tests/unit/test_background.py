"""A thread that nobody waits for, and sleep that can be cut short."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import LoadFailed
from server.models.background import Background
from server.scheduling.clock import LoopClock
from server.scheduling.naps import Nap
from tests import autojump
from tests.fakes import Gate
from tests.unit.loaded import run, turn


def test_calls_run_one_after_another_and_give_what_they_return_or_raise() -> None:
    async def main() -> None:
        background = Background("test")
        order: list[int] = []
        calls = [background.call(order.append, number) for number in range(5)]
        await asyncio.gather(*calls)
        assert sorted(order) == order and await background.call(sum, (1, 2)) == 3
        with pytest.raises(ZeroDivisionError):
            await background.call(divmod, 1, 0)

    run(main)


def test_giving_up_ends_the_wait_for_what_never_returns() -> None:
    async def main() -> None:
        background, gate = Background("test"), Gate()
        waiting = asyncio.create_task(background.call(gate.wait))
        await turn()
        background.give_up()
        with pytest.raises(LoadFailed, match="the server stops"):
            await waiting
        with pytest.raises(LoadFailed, match="the server stops"):
            await background.call(gate.wait)
        gate.open()

    run(main)


def test_a_nap_lasts_as_long_as_it_should() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        nap = Nap(LoopClock(loop))
        assert await nap.sleep(15) and loop.time() == 15
        assert await nap.sleep(0.5) and loop.time() == 15.5

    autojump.run(main())


def test_a_nap_that_is_ended_wakes_at_once_and_for_good() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        nap = Nap(LoopClock(loop))
        loop.call_later(2, nap.end)
        assert not await nap.sleep(15) and loop.time() == 2
        assert not await nap.sleep(15) and loop.time() == 2

    autojump.run(main())
