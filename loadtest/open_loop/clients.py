"""The connections of one generator: who takes the next request, and what has come back."""

from __future__ import annotations

import select
from collections import deque
from typing import NamedTuple

from loadtest.errors import LoadTestError
from loadtest.open_loop.traffic import Connection, Traffic


class Ended(NamedTuple):
    """Numbers of requests that have ended."""

    answered: list[int]
    failed: list[int]


class Clients:
    """All connections to the server. One that the server ends is replaced; its requests in flight have failed.

    `select` alone has a timeout of microseconds, and `epoll` alone a cost that does not grow with the connections: so
    the first watches the second.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._free: deque[Connection] = deque()
        """Those with room. A connection stands here once."""
        self._writing: set[int] = set()
        self._left: list[int] = []
        try:
            for _ in range(traffic.connections):
                self._connect()
        except OSError as error:
            self.close()
            raise LoadTestError(f"cannot connect: {error}") from error

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._epoll.close()
        for connection in self._connections.values():
            connection.socket.close()

    @property
    def have_room(self) -> bool:
        return bool(self._free)

    def send(self, number: int, until: int) -> int:
        """Hands the requests from `number` to `until` to connections in turn.

        Returns the first that found no room, or `until`.
        """
        free = self._free
        while number < until and free:
            connection = free.popleft()
            count = min(connection.room, until - number)
            if count > 0:
                connection.send(number, count)
                number += count
                if connection.unsent:
                    self._watch_writing(connection)
            if connection.room > 0:
                free.append(connection)
        return number

    def wait(self, seconds: float) -> Ended:
        """Reads what comes; returns as soon as something has come, or after `seconds`."""
        ended = Ended([], [])
        if seconds > 0 and not select.select([self._epoll], (), (), seconds)[0]:
            return ended
        for descriptor, events in self._epoll.poll(0):
            connection = self._connections[descriptor]
            if events & select.EPOLLOUT:
                connection.flush()
                self._watch_writing(connection)
            if events & ~select.EPOLLOUT:
                self._read(connection, ended)
        return ended

    def _read(self, connection: Connection, ended: Ended) -> None:
        had_room = connection.room > 0
        try:
            connection.receive(*ended)
        except OSError as error:
            self._replace(connection, ended, error)
            return
        if connection.room > 0 and not had_room:
            self._free.append(connection)
        if connection.unsent:
            self._watch_writing(connection)

    def _connect(self) -> None:
        connection = self._traffic.connect()
        self._connections[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket, select.EPOLLIN)
        if connection.room > 0:
            self._free.append(connection)

    def _replace(self, lost: Connection, ended: Ended, why: OSError) -> None:
        ended.failed.extend(lost.in_flight)
        descriptor = lost.socket.fileno()
        self._writing.discard(descriptor)
        self._epoll.unregister(descriptor)
        del self._connections[descriptor]
        if lost in self._free:
            self._free.remove(lost)
        lost.socket.close()
        try:
            self._connect()
        except OSError as error:
            raise LoadTestError(f"the server is gone: {why}; and then: {error}") from error

    def _watch_writing(self, connection: Connection) -> None:
        descriptor = connection.socket.fileno()
        if connection.unsent != (descriptor in self._writing):
            self._epoll.modify(descriptor, select.EPOLLIN | (select.EPOLLOUT if connection.unsent else 0))
            self._writing ^= {descriptor}
