"""Sockets read in turns, and only where their connection wants them to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from server.frontends.sockets import READ_BYTES, ReadTurns


class Reader:
    """A transport, and a loop that runs when told."""

    def __init__(self) -> None:
        self.reading = True
        self.closing = False
        self.soon: list[Callable[[], None]] = []
        self.turns = ReadTurns(cast("asyncio.Transport", self), cast("asyncio.AbstractEventLoop", self))

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.closing
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def call_soon(self, work: Callable[[], None]) -> None:
        self.soon.append(work)

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for work in soon:
            work()


@pytest.fixture
def reader() -> Reader:
    return Reader()


def test_a_socket_that_has_more_waits_until_others_had_their_turn(reader: Reader) -> None:
    reader.turns.filled(READ_BYTES)
    assert not reader.reading
    reader.turn()
    assert reader.reading


def test_small_reads_add_up(reader: Reader) -> None:
    reader.turns.filled(READ_BYTES - 1)
    assert reader.reading
    reader.turns.filled(1)
    assert not reader.reading
    reader.turn()
    reader.turns.filled(READ_BYTES - 1)
    assert reader.reading


def test_a_connection_that_wants_nothing_is_not_read_from_when_its_turn_comes(reader: Reader) -> None:
    reader.turns.filled(READ_BYTES)
    reader.turns.pause_reading()
    reader.turn()
    assert not reader.reading
    reader.turns.resume_reading()
    assert reader.reading


def test_a_connection_that_wants_more_waits_for_its_turn_all_the_same(reader: Reader) -> None:
    reader.turns.pause_reading()
    reader.turns.resume_reading()
    reader.turns.filled(READ_BYTES)
    reader.turns.pause_reading()
    reader.turns.resume_reading()
    assert not reader.reading
    reader.turn()
    assert reader.reading


def test_a_socket_that_closes_is_not_read_from(reader: Reader) -> None:
    reader.turns.filled(READ_BYTES)
    reader.closing = True
    reader.turn()
    assert not reader.reading


def test_a_socket_that_waits_for_something_is_not_read_from_until_it_is_there(reader: Reader) -> None:
    events: list[Callable[[], None]] = []
    reader.turns.wait_for(events.append)
    reader.turns.filled(READ_BYTES)
    reader.turn()
    assert not reader.reading
    events.pop()()
    assert reader.reading


def test_a_socket_waits_for_one_thing_at_a_time(reader: Reader) -> None:
    events: list[Callable[[], None]] = []
    reader.turns.filled(READ_BYTES)
    reader.turns.wait_for(events.append)
    assert not events
    reader.turn()
    assert reader.reading
