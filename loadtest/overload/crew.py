"""Slow readers, and callers that come and go, over both protocols: `python -m loadtest.overload.crew --help`.

A slow reader asks for large answers and takes some tens of kilobytes of them at a time. Whoever goes has sent a whole
request and closes its connection without a look at the answer. What the server says to any of them is of no interest
here: it counts that itself.
"""

from __future__ import annotations

import argparse
import select
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread

from loadtest.open_loop import GrpcTraffic, HttpTraffic
from loadtest.open_loop.traffic import Traffic
from loadtest.target import INFER

_PAUSE_SECONDS = 0.2
"""Between two reads of a slow reader, each of a quarter of a megabyte at most."""
_IN_FLIGHT = 4
"""Of a slow reader over gRPC."""
_LEAVING_SECONDS = 0.05
_AGAIN_SECONDS = 0.5
"""Before another try, where there is no connection to be had."""


def read_slowly(traffic: Traffic, until: float) -> None:
    """Ask for one answer after another, and leave most of them unread. A connection that is lost is replaced."""
    while time.monotonic() < until:
        with suppress(OSError):
            _read_slowly_on_one(traffic, until)
        time.sleep(_AGAIN_SECONDS)


def _read_slowly_on_one(traffic: Traffic, until: float) -> None:
    connection = traffic.connect()
    with connection.socket:
        number, read_at = 0, 0.0
        while (now := time.monotonic()) < until:
            room = min(connection.room, _IN_FLIGHT - len(list(connection.in_flight)))
            if room > 0:
                connection.send(number, room)
                number += room
            wants_to_write = [connection.socket] if connection.unsent else []
            readable, writable, _ = select.select([connection.socket], wants_to_write, [], _PAUSE_SECONDS)
            if writable:
                connection.flush()
            if readable and now - read_at >= _PAUSE_SECONDS:
                read_at = now
                connection.receive([], [])
            elif readable:
                time.sleep(_PAUSE_SECONDS / 10)


def come_and_go(traffic: Traffic, until: float) -> None:
    """Send a request on a new connection, and leave."""
    while time.monotonic() < until:
        with suppress(OSError):
            connection = traffic.connect()
            with connection.socket:
                connection.send(0, 1)
                connection.flush()
        time.sleep(_LEAVING_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(description="Slow readers, and callers that come and go.")
    parser.add_argument("--grpc", required=True, metavar="HOST:PORT")
    parser.add_argument("--http", required=True, metavar="HOST:PORT")
    for what in ("large", "small"):
        parser.add_argument(f"--{what}", type=Path, required=True, metavar="FILE", help="a framed ModelInferRequest")
        parser.add_argument(f"--{what}-body", type=Path, required=True, metavar="FILE", help="the same over HTTP")
        parser.add_argument(f"--{what}-path", required=True, metavar="PATH", help="where that goes")
        parser.add_argument(f"--{what}-json", required=True, metavar="BYTES", help="length of the body's JSON")
    parser.add_argument("--readers", type=int, default=4, help="of each protocol (%(default)s)")
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    until = time.monotonic() + given.seconds

    def traffics(file: Path, body: Path, path: str, json_bytes: str) -> tuple[Traffic, Traffic]:
        headers = (("Inference-Header-Content-Length", json_bytes),)
        return (
            GrpcTraffic(given.grpc, INFER, (file.read_bytes(),), connections=1),
            HttpTraffic(given.http, path, (body.read_bytes(),), headers, connections=1),
        )

    large = traffics(given.large, given.large_body, given.large_path, given.large_json)
    small = traffics(given.small, given.small_body, given.small_path, given.small_json)
    tasks: list[Callable[[float], None]] = []
    for traffic in large:
        tasks += [partial(read_slowly, traffic)] * given.readers
    tasks += [partial(come_and_go, traffic) for traffic in small]
    threads = [Thread(target=task, args=(until,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
