"""What the sources share: one message, a number of connections with a thread each, and figures of their own."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

SILENCE_SECONDS = 60.0
"""The longest that a server may say nothing."""


class Feeder(Protocol):
    """One connection."""

    def feed(self, message: bytes, messages: int, in_flight: int) -> None:
        """Sends `message` so many times, no more than `in_flight` unanswered, and waits for the last answer."""
        ...

    def close(self) -> None: ...


def feed_from_command_line(description: str | None, connect: Callable[[int], Feeder]) -> None:
    """Takes the flags, feeds the server at `--port`, and prints {"seconds", "cpu_seconds"}, without its own start."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, required=True, help="where the server listens on this machine")
    parser.add_argument("--message", type=Path, required=True, help="a file with what is sent")
    parser.add_argument("--messages", type=int, required=True, help="how often, on all connections together")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--in-flight", type=int, required=True, help="unanswered messages per connection")
    flags = parser.parse_args()
    message = flags.message.read_bytes()
    feeders = [connect(flags.port) for _ in range(flags.connections)]
    share, rest = divmod(flags.messages, flags.connections)
    began, cpu_began = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(len(feeders)) as threads:
        feeds = [
            threads.submit(feeder.feed, message, share + (index < rest), flags.in_flight)
            for index, feeder in enumerate(feeders)
        ]
        for each in feeds:
            each.result()
    figures = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}
    for feeder in feeders:
        feeder.close()
    print(json.dumps(figures))
