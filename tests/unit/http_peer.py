"""A peer of `rest.connection` without sockets: bytes in, answers out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.frontends import calls
from server.frontends.rest.connection import Connection
from server.frontends.rest.dispatcher import Dispatcher
from server.frontends.rest.exchange import Route


@dataclass
class Answer:
    """One answer as the wire had it."""

    status: int
    headers: Mapping[str, str]
    """Names in small letters."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


@dataclass
class FakeSink:
    """A `connection.Sink` that records."""

    written: bytearray = field(default_factory=bytearray)
    closed: bool = False
    refused: bool = False
    reading: bool = True
    wrote: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, data: bytes, /) -> None:
        assert not self.closed
        self.written += data
        self.wrote.set()

    def writelines(self, data: Iterable[bytes], /) -> None:
        for part in data:
            self.write(part)

    def hang_up(self, refused: bool) -> None:
        self.closed, self.refused = True, refused

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Peer:
    """One connection to some routes."""

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        max_input_bytes: int = 1 << 20,
        address: str = "",
        call_soon: Callable[[Callable[[], None]], object] = lambda work: work(),
    ) -> None:
        self.dispatcher = Dispatcher(routes, call_soon=call_soon, max_input_bytes=max_input_bytes)
        self.sink = FakeSink()
        self.connection = Connection(self.dispatcher, self.sink, self.sink, self.sink.hang_up, calls.Peer(address))

    def send(self, data: bytes) -> None:
        """As the listener does: bodies of known length go where the connection wants them."""
        while data:
            buffer = self.connection.body_buffer()
            if buffer is None:
                self.connection.receive(data)
                return
            length = min(len(buffer), len(data))
            buffer[:length] = data[:length]
            self.connection.body_read(length)
            data = data[length:]

    def answers(self, verb: str = "GET") -> list[Answer]:
        """What has been answered since the last look. `verb`: of the requests, since those to HEAD have no body."""
        data, self.sink.written = bytes(self.sink.written), bytearray()
        answers: list[Answer] = []
        while data:
            head, _, data = data.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
            length = 0 if verb == "HEAD" else int(headers.get("content-length", 0))
            answers.append(Answer(int(first.split()[1]), headers, data[:length]))
            data = data[length:]
        return answers

    def ask(self, verb: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """A request that is answered at once."""
        self.send(request(verb, path, body, **headers))
        (answer,) = self.answers(verb)
        return answer


def request(verb: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A request's bytes; underscores in names of headers become hyphens."""
    given = {"Host": "test"} | headers
    lines = [f"{verb} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in given.items())]
    if body or verb == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
