"""HTTP/1.1 by hand, on asyncio: so that a connection can be kept, read slowly, or broken in the middle."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_SMALL_BUFFER = 1 << 14
"""Of the kernel and of the reader, for who reads slowly: what is not read stays with the server."""
_LARGEST_LINE = 1 << 16
_KEPT = 8


@dataclass(frozen=True)
class HttpAnswer:
    """A response that was read to its end."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class HttpConnection:
    """One connection. Errors of the socket, and `asyncio.IncompleteReadError` where it ends early, are the caller's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host

    @classmethod
    async def open(cls, port: int, *, slow: bool = False) -> HttpConnection:
        """To `port` of this machine; `slow` with buffers that hold little."""
        connected = socket.socket()
        connected.setblocking(False)
        if slow:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        try:
            await asyncio.get_running_loop().sock_connect(connected, ("127.0.0.1", port))
            limit = _SMALL_BUFFER if slow else _LARGEST_LINE
            reader, writer = await asyncio.open_connection(sock=connected, limit=limit)
        except BaseException:
            connected.close()
            raise
        return cls(reader, writer, f"127.0.0.1:{port}")

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        pause_s: float = 0.0,
    ) -> HttpAnswer:
        """One request, and its answer; between two pieces of its body the reader pauses."""
        await self.send(method, path, body, headers)
        status = int((await self._line()).split()[1])
        answered: dict[str, str] = {}
        while line := await self._line():
            name, _, value = line.partition(":")
            answered[name.lower()] = value.strip()
        pieces, missing = [], int(answered.get("content-length", "0"))
        while missing:
            piece = await self._reader.readexactly(min(missing, _LARGEST_LINE))
            pieces.append(piece)
            missing -= len(piece)
            if pause_s:
                await asyncio.sleep(pause_s)
        return HttpAnswer(status, answered, b"".join(pieces))

    async def send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], *, missing_bytes: int = 0
    ) -> None:
        """The request alone; `missing_bytes` of its body are announced and not sent."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", f"Content-Length: {len(body) + missing_bytes}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await self._writer.drain()

    async def send_raw(self, data: bytes) -> None:
        """Bytes as they are, of whatever protocol."""
        self._writer.write(data)
        await self._writer.drain()

    def abort(self) -> None:
        """Gone, without a word."""
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return

    async def _line(self) -> str:
        return (await self._reader.readuntil(b"\r\n"))[:-2].decode("latin-1")


class HttpPool:
    """Connections that are kept, each used by one at a time; a crowd's are closed, so that it leaves none behind.

    They take turns, so that none is idle for so long that the server closes it.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: deque[HttpConnection] = deque()

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({})
    ) -> HttpAnswer:
        """As `HttpConnection.ask`, on whichever is idle, or a new one."""
        connection = self._idle.popleft() if self._idle else await HttpConnection.open(self._port)
        try:
            answer = await connection.ask(method, path, body, headers)
        except BaseException:
            connection.abort()
            raise
        if answer.headers.get("connection", "").lower() == "close" or len(self._idle) >= _KEPT:
            await connection.close()
        else:
            self._idle.append(connection)
        return answer

    async def close(self) -> None:
        for connection in self._idle:
            await connection.close()
        self._idle.clear()
