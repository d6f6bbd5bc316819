"""Feeds a socket sink: the same message over and over, a number of them unanswered on each connection.

python -m loadtest.floors.socket_source --port PORT --message FILE --messages N --connections N --in-flight N
"""

from __future__ import annotations

import argparse
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_SECONDS = 60.0
"""Longest silence of the sink."""


def feed(connection: socket.socket, message: bytes, messages: int, in_flight: int) -> None:
    """Sends `messages` messages, no more than `in_flight` of them unanswered, and waits for the last answer."""
    for sent in range(messages):
        if sent >= in_flight:
            _take_answer(connection)
        connection.sendall(message)
    for _ in range(min(messages, in_flight)):
        _take_answer(connection)


def _take_answer(connection: socket.socket) -> None:
    if not connection.recv(1):
        raise ConnectionError("the sink is gone")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="where the sink listens on this machine")
    parser.add_argument("--message", type=Path, required=True, help="a file with what is sent")
    parser.add_argument("--messages", type=int, required=True, help="how often, on all connections together")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--in-flight", type=int, required=True, help="unanswered messages per connection")
    arguments = parser.parse_args()
    body = arguments.message.read_bytes()
    connections = [
        socket.create_connection(("127.0.0.1", arguments.port), _SECONDS) for _ in range(arguments.connections)
    ]
    share, rest = divmod(arguments.messages, arguments.connections)
    began, cpu_began = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(len(connections)) as threads:
        feeds = [
            threads.submit(feed, connection, body, share + (index < rest), arguments.in_flight)
            for index, connection in enumerate(connections)
        ]
        for each in feeds:
            each.result()
    figures = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}
    for connection in connections:
        connection.close()
    print(json.dumps(figures))
