"""Turns at models: in order for one, and beside each other for several."""

from __future__ import annotations

import asyncio

import pytest

from server.models.intents import Intents
from tests.unit.loaded import run, turn


class Wishes:
    """Takes turns, and writes down who has one."""

    def __init__(self) -> None:
        self.intents = Intents()
        self.order: list[str] = []
        self.go_on = asyncio.Event()

    def start(self, name: str, label: str) -> asyncio.Task[None]:
        return asyncio.create_task(self._take(name, label))

    async def _take(self, name: str, label: str) -> None:
        async with self.intents.turn(name):
            self.order.append(label)
            await self.go_on.wait()


def test_one_model_is_had_in_the_order_of_asking_and_others_at_once() -> None:
    async def main() -> None:
        wishes = Wishes()
        tasks = [wishes.start(*wish) for wish in (("m", "first"), ("m", "second"), ("n", "other"), ("m", "third"))]
        await turn()
        assert wishes.order == ["first", "other"]
        wishes.go_on.set()
        await asyncio.gather(*tasks)
        assert wishes.order == ["first", "other", "second", "third"]
        assert wishes.intents._locks == {}

    run(main)


def test_who_leaves_while_waiting_holds_nobody_up() -> None:
    async def main() -> None:
        wishes = Wishes()
        first, second, third = (wishes.start("m", label) for label in ("first", "second", "third"))
        await turn()
        second.cancel()
        await turn()
        wishes.go_on.set()
        await asyncio.gather(first, third)
        assert wishes.order == ["first", "third"]
        assert wishes.intents._locks == {}

    run(main)


def test_what_raises_gives_its_turn_back() -> None:
    async def main() -> None:
        intents = Intents()
        with pytest.raises(RuntimeError):
            async with intents.turn("m"):
                raise RuntimeError
        async with intents.turn("m"):
            pass
        assert intents._locks == {}

    run(main)
