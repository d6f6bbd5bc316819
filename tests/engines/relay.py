"""A TCP relay that counts, for what a client library does not show: how much really travelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.engines.hosting import Host


class Relay:
    """Passes connections on to a port. Lives on the host's loop."""

    def __init__(self, host: Host, port: int) -> None:
        self.bytes_to_client = 0
        self.bytes_to_server = 0
        self._host = host
        self._target = port
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = host.run(asyncio.start_server(self._accept, "127.0.0.1", 0))

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def hang_up(self) -> None:
        """Break all connections off, as a cable would."""

        def abort() -> None:
            for writer in self._writers:
                writer.transport.abort()

        self._host.do(abort)

    def close(self) -> None:
        self._host.do(self._server.close)
        self.hang_up()

        async def gone() -> None:
            await asyncio.gather(*self._tasks)

        self._host.run(gone())

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, server_writer]
        for source, sink, count in (
            (reader, server_writer, self._count_to_server),
            (server_reader, writer, self._count_to_client),
        ):
            task = asyncio.create_task(_pump(source, sink, count))
            self._tasks.add(task)

    def _count_to_server(self, count: int) -> None:
        self.bytes_to_server += count

    def _count_to_client(self, count: int) -> None:
        self.bytes_to_client += count


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, count: Callable[[int], None]) -> None:
    try:
        while data := await source.read(1 << 16):
            count(len(data))
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass
    finally:
        sink.transport.close()
