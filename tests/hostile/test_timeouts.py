"""Peers that begin something and do not go on with it: the engine in this process, with short timeouts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from server.frontends.grpc.listener import Nghttp2Engine
from server.frontends.grpc.options import GrpcOptions
from tests.fuzz.methods import ECHO, PARROT
from tests.hostile import frames
from tests.hostile.frames import Frame, call_headers, hello
from tests.hostile.hpack import Decoder
from tests.hostile.sans_io import LATER, Ledger

OPTIONS = GrpcOptions(handshake_timeout=0.2, request_timeout=0.2)
PATIENCE_SECONDS = 20
DRIP_SECONDS = 0.01


class Hanger:
    """An attacker's socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def frames_to_end(self) -> list[Frame]:
        """What the server has said once it has hung up."""
        try:
            return list(frames.parse(await self.reader.read(-1)))
        except ConnectionResetError:
            return []

    async def drip(self, data: bytes) -> int:
        """Send a byte at a time until the server has hung up. Returns how many it waited for."""
        end = asyncio.ensure_future(self.reader.read(-1))
        for sent, byte in enumerate(data):
            self.writer.write(bytes([byte]))
            await asyncio.wait({end}, timeout=DRIP_SECONDS)
            if end.done():
                return sent
        end.cancel()
        return len(data)


class Ring:
    """An engine, its attackers, and a client that is served all the same."""

    def __init__(self, engine: Nghttp2Engine, ledger: Ledger, port: int) -> None:
        self.engine = engine
        self.ledger = ledger
        self._port = port

    @asynccontextmanager
    async def hanger(self) -> AsyncIterator[Hanger]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        yield Hanger(reader, writer)
        writer.close()

    async def assert_others_are_served(self) -> None:
        async with self.hanger() as other:
            other.writer.write(hello() + frames.call(1, ECHO, b"well?") + frames.goaway())
            answer = await other.frames_to_end()
            assert b"well?" in b"".join(frame.payload for frame in answer if frame.type == frames.DATA)

    async def assert_all_have_gone(self) -> None:
        """Return once no connection is open; fails by the attack's own timeout."""
        while self.engine.sockets:  # noqa: ASYNC110 -- the engine has no event for it
            await asyncio.sleep(0)

    async def assert_nothing_is_left(self) -> None:
        await self.assert_all_have_gone()
        assert self.engine.dispatcher.context.held_bytes == 0
        assert self.ledger.opened == self.ledger.ended + self.ledger.cancelled
        assert all(call.started == sum(call.handled.values()) for call in self.engine.calls.snapshot())


def attack(script: Callable[[Ring], Awaitable[None]]) -> None:
    """Run an attack against a fresh engine, and look what it leaves."""

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            ledger = Ledger()
            engine = Nghttp2Engine(ledger.methods(), OPTIONS)
            ring = Ring(engine, ledger, await engine.start("127.0.0.1", 0))
            await script(ring)
            await ring.assert_others_are_served()
            await ring.assert_nothing_is_left()
            await engine.stop(1)

    asyncio.run(run())


@pytest.mark.parametrize("beginning", [b"", frames.PREFACE[:12], frames.PREFACE, hello()[:32]])
def test_who_connects_and_says_too_little_is_hung_up_on(beginning: bytes):
    async def script(ring: Ring) -> None:
        async with ring.hanger() as hanger:
            hanger.writer.write(beginning)
            await ring.assert_others_are_served()
            assert {frame.type for frame in await hanger.frames_to_end()} <= {frames.SETTINGS, frames.WINDOW_UPDATE}

    attack(script)


def test_a_preface_that_drips_is_cut_off():
    async def script(ring: Ring) -> None:
        async with ring.hanger() as hanger:
            sent = await hanger.drip(hello() * 10)
            assert sent < 33 + 1000

    attack(script)


def test_headers_that_drip_are_cut_off():
    async def script(ring: Ring) -> None:
        async with ring.hanger() as hanger:
            hanger.writer.write(hello())
            request = frames.headers(1, [*call_headers(ECHO), (b"long", b"v" * 3000)])
            assert await hanger.drip(request) < len(request)

    attack(script)


def test_a_message_that_drips_ends_with_a_status_and_its_connection_lives_on():
    async def script(ring: Ring) -> None:
        async with ring.hanger() as hanger:
            hanger.writer.write(hello() + frames.headers(1, call_headers(ECHO)))
            received = b""
            for _ in range(2000):
                hanger.writer.write(frames.data(1, b"\0"))
                try:
                    async with asyncio.timeout(DRIP_SECONDS):
                        received += await hanger.reader.read(1 << 16)
                except TimeoutError:
                    continue
                if any(frame.type == frames.RST_STREAM for frame in frames.parse(received)):
                    break
            (answer,) = [frame for frame in frames.parse(received) if frame.type == frames.HEADERS]
            assert dict(Decoder().decode(answer.payload))[b"grpc-status"] == b"4"
            hanger.writer.write(frames.call(3, ECHO, b"still here"))
            while b"still here" not in received:
                received += await hanger.reader.read(1 << 16)

    attack(script)


def test_a_late_request_does_not_end_the_calls_beside_it():
    async def script(ring: Ring) -> None:
        async with ring.hanger() as hanger:
            late = frames.headers(3, call_headers(ECHO)) + frames.data(3, b"\0")
            hanger.writer.write(hello() + frames.call(1, LATER, b"worth waiting for") + late)
            received = b""
            while not any(frame.type == frames.RST_STREAM for frame in frames.parse(received)):
                received += await hanger.reader.read(1 << 16)
            ring.ledger.answer_waiting()
            while b"worth waiting for" not in received:
                received += await hanger.reader.read(1 << 16)

    attack(script)


def test_who_asks_and_never_makes_room_for_the_answer_is_cut_off():
    async def script(ring: Ring) -> None:
        async with ring.hanger() as hanger:
            hanger.writer.write(hello((frames.INITIAL_WINDOW_SIZE, 0)))
            hanger.writer.write(b"".join(frames.call(n, ECHO, bytes(9000)) for n in range(1, 200, 2)))
            await ring.assert_others_are_served()
            codes = [frame.error_code for frame in await hanger.frames_to_end() if frame.type == frames.GOAWAY]
            assert codes == [frames.ENHANCE_YOUR_CALM]

    attack(script)


def test_who_never_reads_from_the_socket_is_cut_off():
    async def script(ring: Ring) -> None:
        async with ring.hanger() as hanger:
            window = (1 << 31) - 1
            hanger.writer.write(hello((frames.INITIAL_WINDOW_SIZE, window)) + frames.window_update(0, window - 65535))
            hanger.reader._transport.pause_reading()  # type: ignore[attr-defined]
            for number in range(1, 100, 2):
                hanger.writer.write(frames.headers(number, call_headers(ECHO)))
                message = frames.message(bytes(64 * 16384 - 5))
                hanger.writer.writelines(frames.data(number, message[n << 14 : (n + 1) << 14]) for n in range(64))
                hanger.writer.write(frames.data(number, b"", end=True))
            await ring.assert_others_are_served()
            await ring.assert_all_have_gone()

    attack(script)


def test_half_a_streamed_message_does_not_hold_up_others():
    async def script(ring: Ring) -> None:
        async with ring.hanger() as hanger:
            hanger.writer.write(hello() + frames.headers(1, call_headers(PARROT)))
            hanger.writer.write(frames.data(1, frames.message(b"half", length=100)))
            await ring.assert_others_are_served()

    attack(script)
