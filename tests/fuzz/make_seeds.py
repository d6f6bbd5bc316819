"""Makes the seeds of the fuzzers: what official clients sent through a recording proxy, and exchanges made by hand.

Run it from the repository root with `python -m tests.fuzz.make_seeds`; commit what it writes if it tells something new.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from pathlib import Path

import grpc

from server.frontends.grpc import framing
from server.frontends.grpc.listener import Nghttp2Engine
from server.frontends.grpc.options import GrpcOptions
from tests.fuzz.built_seeds import build
from tests.fuzz.methods import ECHO, PARROT, methods
from tests.hostile import frames

SEEDS = Path(__file__).parent / "seeds"
SECONDS = 10


def unary(channel: grpc.Channel) -> None:
    channel.unary_unary(ECHO)(b"hello", timeout=SECONDS, metadata=[("name", "value"), ("blob-bin", b"\0\xff")])


def large(channel: grpc.Channel) -> None:
    channel.unary_unary(ECHO)(b"x" * 3000, timeout=SECONDS)


def many(channel: grpc.Channel) -> None:
    calls = [channel.unary_unary(ECHO).future(bytes([index]), timeout=SECONDS) for index in range(5)]
    for call in calls:
        call.result()


def compressed(channel: grpc.Channel) -> None:
    channel.unary_unary(ECHO)(b"y" * 3000, timeout=SECONDS, compression=grpc.Compression.Gzip)


def streaming(channel: grpc.Channel) -> None:
    list(channel.stream_stream(PARROT)(iter([b"one", b"two", b"x" * 2000]), timeout=SECONDS))


def unknown(channel: grpc.Channel) -> None:
    channel.unary_unary("/no.Such/Method").future(b"", timeout=SECONDS).exception()


def cancelled(channel: grpc.Channel) -> None:
    replies = channel.stream_stream(PARROT)(iter([b"one"]), timeout=SECONDS)
    next(replies)
    replies.cancel()


CLIENTS: list[Callable[[grpc.Channel], None]] = [unary, large, many, compressed, streaming, unknown, cancelled]

_HEAD = frames.call_headers(ECHO)
_BLOCK = frames.block(frames.call_headers(ECHO, (b"long", b"v" * 300)), indexed=True)
_SPLIT = frames.message(b"split over frames")

BY_HAND = {
    "continuation": frames.continued(1, [_BLOCK[:40], _BLOCK[40:200], _BLOCK[200:]]) + frames.data(1, b"", end=True),
    "padding": frames.headers(1, _HEAD) + frames.padded(1, _SPLIT[:7], 9) + frames.padded(1, _SPLIT[7:], 0, end=True),
    "trailers": frames.headers(1, _HEAD) + frames.data(1, _SPLIT) + frames.headers(1, [(b"checksum", b"1")], end=True),
    "priorities": frames.priority(3, 1) + frames.call(1, ECHO) + frames.priority(7, 3) + frames.call(3, ECHO, b"late"),
    "resets": b"".join(frames.call(n, ECHO, b"never mind") + frames.rst_stream(n) for n in range(1, 20, 2)),
    "control": frames.ping() + frames.window_update(0, 1000) + frames.call(1, PARROT, b"hi") + frames.goaway(),
    "too_large": frames.headers(1, [*_HEAD, *((b"h%d" % i, b"v" * 100) for i in range(40))], end=True),
    "broken": frames.headers(1, [*_HEAD, (b"UPPER", b"case")]) + frames.headers(3, _HEAD) + frames.data(3, _SPLIT[:9]),
    "interleaved": frames.headers(1, _HEAD) + frames.headers(3, frames.call_headers(PARROT))
    + frames.data(1, _SPLIT[:3]) + frames.data(3, _SPLIT * 3)
    + frames.data(1, _SPLIT[3:], end=True) + frames.data(3, b"", end=True),
    "settings": frames.settings((frames.INITIAL_WINDOW_SIZE, 0), (frames.HEADER_TABLE_SIZE, 0))
    + frames.call(1, ECHO, b"z" * 500) + frames.window_update(1, 100)
    + frames.settings((frames.INITIAL_WINDOW_SIZE, 600)),
}  # fmt: skip

MESSAGES = {
    "messages": framing.frame(b"a message") + framing.frame(b"") + framing.frame(b"another" * 9),
    "compressed": frames.message(gzip.compress(b"m" * 900, mtime=0), compressed=1),
    "largest": frames.message(b"x" * 500),
    "too_large": frames.message(b"x" * 501),
    "truncated": frames.message(b"short", length=500),
    "metadata": b"\n".join(map(b"=".join, [*_HEAD, (b"grpc-timeout", b"9S"), (b"a-bin", b"AAEC/w"), (b"b", b"text")])),
    "timeout": b"99999999n",
    "status": b"%E2%82%AC 100%25 of it%",
}


async def record(client: Callable[[grpc.Channel], None]) -> bytes:
    """What this client sends to a server."""
    engine = Nghttp2Engine(methods(), GrpcOptions())
    server_port = await engine.start("127.0.0.1", 0)
    sent = bytearray()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bool) -> None:
        while chunk := await reader.read(65536):
            if record:
                sent.extend(chunk)
            writer.write(chunk)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", server_port)
        await asyncio.gather(forward(reader, server_writer, True), forward(server_reader, writer, False))

    proxy = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]

    def call() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            client(channel)

    await asyncio.to_thread(call)
    proxy.close()
    await engine.stop(1)
    return bytes(sent)


def main() -> None:
    for folder in ("http2", "wire"):
        (SEEDS / folder).mkdir(parents=True, exist_ok=True)
    for client in CLIENTS:
        (SEEDS / "http2" / client.__name__).write_bytes(asyncio.run(record(client)))
    for name, exchange in BY_HAND.items():
        (SEEDS / "http2" / name).write_bytes(frames.hello() + exchange)
    for name, message in MESSAGES.items():
        (SEEDS / "wire" / name).write_bytes(message)
    for folder, seeds in build().items():
        (SEEDS / folder).mkdir(parents=True, exist_ok=True)
        for name, seed in seeds.items():
            (SEEDS / folder / name).write_bytes(seed)


if __name__ == "__main__":
    main()
