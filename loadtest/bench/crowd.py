"""Holds idle HTTP/2 connections: each says what HTTP/2 begins with, and then nothing, not even an answer.

python -m loadtest.bench.crowd --port PORT --connections N --ports-file FILE
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from pathlib import Path

from loadtest.ready import say_ready

# RFC 9113, 3.4: the client's preface, and a SETTINGS frame without settings.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_CONNECT_SECONDS = 60.0


def connect(port: int) -> socket.socket:
    """One connection that has said its greeting."""
    connection = socket.create_connection(("127.0.0.1", port), _CONNECT_SECONDS)
    connection.sendall(_GREETING)
    return connection


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="where the server listens on this machine")
    parser.add_argument("--connections", type=int, required=True, help="how many")
    parser.add_argument("--ports-file", type=Path, required=True, help="written once all are there")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    crowd = [connect(arguments.port) for _ in range(arguments.connections)]
    say_ready(arguments.ports_file, connections=len(crowd))
    while True:
        signal.pause()
