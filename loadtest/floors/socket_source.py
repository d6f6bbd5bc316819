"""Feeds a socket sink: the same message over and over, a number of them unanswered on each connection.

python -m loadtest.floors.socket_source --port PORT --message FILE --messages N --connections N --in-flight N
"""

from __future__ import annotations

import socket

from loadtest.floors.feeding import SILENCE_SECONDS, feed_from_command_line


class Source:
    """One connection to the sink."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), SILENCE_SECONDS)

    def feed(self, message: bytes, messages: int, in_flight: int) -> None:
        for sent in range(messages):
            if sent >= in_flight:
                self._take_answer()
            self._socket.sendall(message)
        for _ in range(min(messages, in_flight)):
            self._take_answer()

    def close(self) -> None:
        self._socket.close()

    def _take_answer(self) -> None:
        if not self._socket.recv(1):
            raise ConnectionError("the sink is gone")


if __name__ == "__main__":
    feed_from_command_line(__doc__, Source)
