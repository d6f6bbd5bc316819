"""A bare socket that takes bytes: read into one buffer, counted, and answered with one byte per message.

python -m loadtest.floors.socket_sink --message-bytes N --ports-file FILE
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path
from typing import cast

import uvloop

from loadtest.ready import say_ready

_BUFFER_BYTES = 256 << 10


class Sink(asyncio.BufferedProtocol):
    """One connection. All connections read into the same buffer: nobody looks at what is in it."""

    def __init__(self, buffer: memoryview, message_bytes: int) -> None:
        self._buffer = buffer
        self._message_bytes = message_bytes
        self._pending_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        messages, self._pending_bytes = divmod(self._pending_bytes + nbytes, self._message_bytes)
        if messages:
            self._transport.write(bytes(messages))


async def serve(message_bytes: int, ports_file: Path) -> None:
    """Takes bytes until SIGTERM. Writes {"socket": port} to `ports_file` once it listens."""
    loop = asyncio.get_running_loop()
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    server = await loop.create_server(lambda: Sink(buffer, message_bytes), "127.0.0.1", 0)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    say_ready(ports_file, socket=server.sockets[0].getsockname()[1])
    await stop.wait()
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--message-bytes", type=int, required=True, help="bytes after which a byte is answered")
    parser.add_argument("--ports-file", type=Path, required=True, help="where the chosen port is written")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(arguments.message_bytes, arguments.ports_file))
