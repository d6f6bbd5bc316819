"""What a connection has to send, on its way to the socket.

A large answer goes piece by piece, one for each turn of the event loop: a peer that reads quickly would otherwise have
all of it at once, and everybody else would wait meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from server.memory_budget import MemoryBudget
from server.tensors import Buffer

PIECE_BYTES = 512 << 10


class Sink(Protocol):
    """Where a connection's bytes go: a transport, as asyncio has it."""

    def write(self, data: Buffer, /) -> None: ...

    def writelines(self, data: Iterable[Buffer], /) -> None: ...


class Outbox:
    """The bytes of one connection, in the order in which they were written. What waits counts in the memory budget."""

    def __init__(
        self,
        sink: Sink,
        memory: MemoryBudget,
        call_soon: Callable[[Callable[[], None]], object],
        emptied: Callable[[], None],
    ) -> None:
        """`emptied` is called when pieces that have waited are all with the sink."""
        self.writable = True
        self._sink = sink
        self._memory = memory
        self._call_soon = call_soon
        self._emptied = emptied
        self._pieces: deque[tuple[memoryview, int]] = deque()  # with what is given back once they are written
        self._scheduled = False
        self._waiting_bytes = 0  # of the pieces, and of blocks that were written in part
        self._unsent_bytes = 0  # what the sink has that the socket did not take

    @property
    def waiting(self) -> bool:
        """Whether there are pieces that the sink does not have yet."""
        return bool(self._pieces)

    def write(self, parts: tuple[Buffer, ...], size: int) -> None:
        """Send these, `size` bytes together, after everything that was written before."""
        if self._pieces or size > PIECE_BYTES:
            for part in parts:
                view = memoryview(part).cast("B")
                starts = range(0, len(view), PIECE_BYTES)
                self._pieces += [
                    (view[at : at + PIECE_BYTES], len(view) if at == starts[-1] else 0) for at in starts
                ]  # a block is memory as a whole until its last byte is gone
            self._waiting_bytes += size
            self._memory.used += size
            self._go_on_soon()
            return
        if not self.writable:
            self.set_unsent(self._unsent_bytes + size)
        if len(parts) == 1:
            self._sink.write(parts[0])
        else:
            self._sink.writelines(parts)

    def set_writable(self, writable: bool) -> None:
        """Whether the sink takes more for now."""
        self.writable = writable
        self._go_on_soon()

    def set_unsent(self, size: int) -> None:
        """So much waits in the sink, in front of the socket."""
        self._memory.used += size - self._unsent_bytes
        self._unsent_bytes = size

    def drop(self) -> None:
        """Nobody wants any of it any more."""
        self._pieces.clear()
        self._memory.used -= self._waiting_bytes
        self._waiting_bytes = 0
        self.set_unsent(0)

    def _go_on_soon(self) -> None:
        if self._pieces and self.writable and not self._scheduled:
            self._scheduled = True
            self._call_soon(self._go_on)

    def _go_on(self) -> None:
        self._scheduled = False
        if not self._pieces or not self.writable:
            return
        piece, given_back = self._pieces.popleft()
        self._waiting_bytes -= given_back
        self._memory.used -= given_back
        self._sink.write(piece)
        if self._pieces:
            self._go_on_soon()
        else:
            self._emptied()
