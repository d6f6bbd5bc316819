"""What a connection has to send: small answers at once, large ones piece by piece, nothing uncounted."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from server.frontends.rest.outbox import PIECE_BYTES, Outbox
from server.memory_budget import MemoryBudget
from server.tensors import Buffer


class Wire:
    """Takes what is written; the loop that goes on with it runs when told."""

    def __init__(self) -> None:
        self.memory = MemoryBudget()
        self.soon: list[Callable[[], None]] = []
        self.writes: list[bytes] = []
        self.emptied = 0
        self.outbox = Outbox(self, self.memory, self._call_soon, self._on_emptied)

    def write(self, data: Buffer, /) -> None:
        self.writes.append(bytes(data))

    def writelines(self, data: Iterable[Buffer], /) -> None:
        self.writes.append(b"".join(map(bytes, data)))

    def put(self, *parts: bytes) -> None:
        self.outbox.write(parts, sum(map(len, parts)))

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for work in soon:
            work()

    def _call_soon(self, work: Callable[[], None]) -> None:
        self.soon.append(work)

    def _on_emptied(self) -> None:
        self.emptied += 1


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_a_small_answer_is_written_at_once(wire: Wire) -> None:
    wire.put(b"head", b"body")
    assert (wire.writes, wire.soon, wire.outbox.waiting) == ([b"headbody"], [], False)


def test_a_large_answer_is_written_a_piece_in_each_turn_of_the_loop(wire: Wire) -> None:
    body = bytes(range(256)) * (PIECE_BYTES // 100)
    wire.put(b"head", body)
    turns = 0
    while wire.outbox.waiting:
        written = len(wire.writes)
        wire.turn()
        assert len(wire.writes) == written + 1
        turns += 1
    assert b"".join(wire.writes) == b"head" + body
    assert max(map(len, wire.writes)) == PIECE_BYTES
    assert (turns, wire.emptied) == (1 + -(-len(body) // PIECE_BYTES), 1)


def test_what_comes_after_a_large_answer_waits_for_it(wire: Wire) -> None:
    wire.put(bytes(PIECE_BYTES + 1))
    wire.put(b"after")
    while wire.outbox.waiting:
        wire.turn()
    assert [len(data) for data in wire.writes] == [PIECE_BYTES, 1, 5]


def test_no_piece_is_written_while_the_socket_takes_none(wire: Wire) -> None:
    wire.put(bytes(3 * PIECE_BYTES))
    wire.turn()
    wire.outbox.set_writable(False)
    wire.turn()
    assert len(wire.writes) == 1
    assert not wire.soon
    wire.outbox.set_writable(True)
    wire.turn()
    assert len(wire.writes) == 2


def test_all_of_a_large_answer_counts_until_its_last_piece_is_written(wire: Wire) -> None:
    wire.put(bytes(2 * PIECE_BYTES))
    wire.turn()
    assert wire.memory.used == 2 * PIECE_BYTES  # its memory is one block
    wire.turn()
    assert wire.memory.used == 0


def test_what_nobody_wants_any_more_counts_no_more_and_is_not_written(wire: Wire) -> None:
    wire.put(bytes(2 * PIECE_BYTES))
    wire.outbox.set_unsent(7)
    wire.outbox.drop()
    wire.turn()
    assert (wire.memory.used, wire.writes, wire.emptied) == (0, [], 0)


def test_small_answers_that_the_socket_does_not_take_count(wire: Wire) -> None:
    wire.outbox.set_writable(False)
    wire.put(b"answer")
    assert wire.memory.used == 6
    wire.outbox.set_unsent(0)
    assert wire.memory.used == 0
