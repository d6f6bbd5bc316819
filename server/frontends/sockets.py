"""What listeners share: one timer for all sockets of one, and an end that resets nobody who has connected."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Protocol

BACKLOG = 4096
READ_BYTES = 256 << 10
"""What is read from one socket at a time, before it is others' turn."""


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach what listens on an address: a host's name, an IP address or `unix:/path`."""
    if address == "localhost" or address.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


class Watched(Protocol):
    """A socket that has something to do by some time."""

    def check(self, now: float) -> None:
        """Do what is due. Possibly called for a time that does not matter any more."""
        ...


class Agenda:
    """When to look at which socket again: one timer for all of them, which costs nothing while nothing is due."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sockets: Collection[Watched]) -> None:
        """`sockets`: those that are open, as they come and go."""
        self._loop = loop
        self._sockets = sockets
        self._entries: list[tuple[float, int, Watched]] = []
        self._serial = count()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, when: float, peer: Watched) -> None:
        """Call `peer.check` at that time, or soon after."""
        if len(self._entries) > 64 + 2 * len(self._sockets):  # most speak of sockets long gone
            self._entries = [entry for entry in self._entries if entry[2] in self._sockets]
            heapify(self._entries)
        earliest = self._entries[0][0] if self._entries else inf
        heappush(self._entries, (when, next(self._serial), peer))
        if when < earliest:
            self._arm()

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None
        if self._entries:
            self._timer = self._loop.call_later(max(0.0, self._entries[0][0] - time.monotonic()), self._run)

    def _run(self) -> None:
        now = time.monotonic()
        while self._entries and self._entries[0][0] <= now:
            heappop(self._entries)[2].check(now)
        self._arm()


class ReadTurns:
    """Whether a transport reads: where its connection wants it to, and never long while other sockets wait.

    libuv reads from one socket up to 32 times in a row, as long as each read fills its buffer.
    """

    __slots__ = ("_filled_bytes", "_loop", "_others_turn", "_transport", "_wanted")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._wanted = True
        self._others_turn = False
        self._filled_bytes = 0

    def pause_reading(self) -> None:
        self._wanted = False
        if not self._others_turn:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._wanted = True
        if not self._others_turn:
            self._transport.resume_reading()

    def filled(self, length: int) -> None:
        """A read has filled its buffer, of so many bytes, and so there may be more to read at once."""
        self._filled_bytes += length
        if self._filled_bytes >= READ_BYTES and self._wanted:
            self.wait_for(self._loop.call_soon)

    def wait_for(self, event: Callable[[Callable[[], None]], object]) -> None:
        """Read no more until the event, which calls what it is given. Not where another is waited for already."""
        if self._others_turn:
            return
        self._others_turn = True
        if self._wanted:
            self._transport.pause_reading()
        event(self._go_on)

    def _go_on(self) -> None:
        self._others_turn = False
        self._filled_bytes = 0
        if self._wanted and not self._transport.is_closing():
            self._transport.resume_reading()


async def stop_listening(
    server: asyncio.Server,
    accept: Callable[[], asyncio.BaseProtocol],
    context: ssl.SSLContext | None,
    seconds: float,
) -> None:
    """Whoever has connected by now is a peer like others: the system would reset those that wait to be accepted.

    `seconds` bounds TLS handshakes that have not ended.
    """
    loop = asyncio.get_running_loop()
    listeners = [socket.socket(fileno=os.dup(listener.fileno())) for listener in server.sockets]
    server.close()
    arrivals = [
        asyncio.ensure_future(loop.connect_accepted_socket(accept, peer, ssl=context))
        for listener in listeners
        for peer in _accept_all(listener)
    ]
    if arrivals:  # with TLS, a handshake may fail or take long
        _, late = await asyncio.wait(arrivals, timeout=seconds)
        for arrival in late:
            arrival.cancel()
        await asyncio.gather(*arrivals, return_exceptions=True)


def _accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    """Those that wait to be accepted; then the listener is closed."""
    with listener:
        listener.setblocking(False)
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            peer.setblocking(False)
            yield peer
