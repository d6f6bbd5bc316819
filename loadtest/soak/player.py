"""A process of clients: plays its part of the schedule, with a bound on what is under way, and reports at the end."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from loadtest.errors import WrongAnswerError
from loadtest.soak.actions import ACTIONS, World
from loadtest.soak.callers import Callers
from loadtest.soak.cases import Zoo
from loadtest.soak.schedule import KIND_BY_NAME, Planned, schedule
from loadtest.soak.tally import Refused, Tally, shape_of


@dataclass(frozen=True)
class Part:
    """What one process does."""

    number: int
    of: int
    seed: int
    seconds: float
    rate: float
    """Things done per second, by all processes together."""
    in_flight: int
    """Of this process."""
    ports: dict[str, int]
    repository: Path


@dataclass(frozen=True)
class Played:
    """What came of it."""

    tally: Tally
    latencies: list[tuple[float, str, float]]
    """End in seconds after the start, kind, and how long it took in seconds; of what ended with right answers."""
    cpu_share: float
    """Of a core."""
    late_s: list[float]
    """By how much each was begun after it was due."""


def play_part(part: Part, connection: Connection) -> None:
    """Says None as soon as it could start, waits for a word, plays, and sends what was Played."""
    zoo = Zoo(part.repository)
    connection.send(None)
    connection.recv()
    connection.send(asyncio.run(_Player(part, zoo).play()))
    connection.close()


class _Player:
    def __init__(self, part: Part, zoo: Zoo) -> None:
        self._part = part
        self._zoo = zoo
        self._tally = Tally()
        self._latencies: list[tuple[float, str, float]] = []
        self._late_s: list[float] = []
        self._room = asyncio.Semaphore(part.in_flight)

    async def play(self) -> Played:
        part = self._part
        world = World(Callers(part.ports, self._tally), self._zoo, itertools.count())
        began, cpu_began = time.monotonic(), time.process_time()
        try:
            async with asyncio.TaskGroup() as tasks:
                for planned in self._plan():
                    await asyncio.sleep(max(0.0, began + planned.due_s - time.monotonic()))
                    await self._room.acquire()
                    self._late_s.append(time.monotonic() - began - planned.due_s)
                    tasks.create_task(self._do(world, planned, began))
        finally:
            await world.callers.close()
        share = (time.process_time() - cpu_began) / (time.monotonic() - began)
        return Played(self._tally, self._latencies, share, self._late_s)

    def _plan(self) -> Iterator[Planned]:
        part = self._part
        return schedule(part.seed, part.number, part.of, rate=part.rate, seconds=part.seconds, in_flight=part.in_flight)

    async def _do(self, world: World, planned: Planned, began: float) -> None:
        """Do one thing, and count how it ended. Nothing that goes wrong ends the soak: it is what is looked for."""
        kind, tally, started = KIND_BY_NAME[planned.kind], self._tally, time.monotonic()
        try:
            await ACTIONS[kind.name](world, Random(planned.seed))
        except WrongAnswerError as error:
            tally.wrong[kind.name] += 1
            tally.say(f"{kind.name}: wrong answer: {error}")
        except Refused as refusal:
            if kind.expects(refusal.status, refusal.message):
                tally.refusals[kind.name, refusal.status, shape_of(refusal.message)] += 1
            else:
                self._unexpected(kind.name, refusal.status, refusal.message)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is counted and fails the soak
            self._unexpected(kind.name, type(error).__name__, str(error))
        else:
            if kind.must_be_refused:
                self._unexpected(kind.name, "answered", "nothing was wrong with it, says the server")
            else:
                ended = time.monotonic()
                tally.ended[kind.name] += 1
                self._latencies.append((ended - began, kind.name, ended - started))
        finally:
            self._room.release()

    def _unexpected(self, kind: str, status: str, message: str) -> None:
        self._tally.unexpected[kind, status] += 1
        self._tally.say(f"{kind}: {status}: {message[:300]}")
