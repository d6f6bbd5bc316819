"""Holds: whoever waits until none is held does so, whatever is taken and released meanwhile."""

from __future__ import annotations

import asyncio

from server.models.holds import Holds


async def turns_of_the_loop() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_whoever_waits_does_until_the_last_one_is_released() -> None:
    async def main() -> None:
        holds = Holds()
        releases = [holds.take() for _ in range(2)]
        waiting = [asyncio.create_task(holds.none_held()) for _ in range(2)]
        await turns_of_the_loop()
        releases.pop()()
        await turns_of_the_loop()
        assert (holds.held, [each.done() for each in waiting]) == (1, [False, False])
        releases.pop()()
        await asyncio.gather(*waiting)
        assert holds.held == 0

    asyncio.run(main())


def test_one_that_is_taken_before_the_waiter_notices_is_waited_for() -> None:
    async def main() -> None:
        holds = Holds()
        release = holds.take()
        waiting = asyncio.create_task(holds.none_held())
        await turns_of_the_loop()
        release()
        again = holds.take()
        await turns_of_the_loop()
        assert not waiting.done()
        again()
        await waiting

    asyncio.run(main())


def test_a_waiter_that_gives_up_is_no_concern_of_who_releases() -> None:
    async def main() -> None:
        holds = Holds()
        release = holds.take()
        waiting = asyncio.create_task(holds.none_held())
        await turns_of_the_loop()
        waiting.cancel()
        await turns_of_the_loop()
        release()
        await holds.none_held()

    asyncio.run(main())
