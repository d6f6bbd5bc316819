"""The generator of arrivals over a real socket, at a peer that answers as it is told."""

import asyncio
import threading

from loadtest import http2_frames as http2
from loadtest.h2load import frame
from loadtest.open_loop import play

MESSAGE = frame(b"abc")


class Peer:
    """Answers the first of three requests, refuses the second, and says nothing to the third; on a thread."""

    def __init__(self) -> None:
        self.port = 0
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> "Peer":
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    async def _serve(self) -> None:
        done = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(http2.frame(http2.SETTINGS, 0, 0))
            data = (await reader.readexactly(len(http2.PREFACE)))[:0]
            while received := await reader.read(1 << 16):
                data += received
                end = 0
                for one in http2.frames(data):
                    kind, flags, stream, _, end = one
                    if kind == http2.DATA and flags & http2.END_STREAM:
                        self._answer(writer, stream)
                data = data[end:]
            writer.close()
            done.set()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await done.wait()
        server.close()

    @staticmethod
    def _answer(writer: asyncio.StreamWriter, stream: int) -> None:
        if stream == 1:
            writer.write(http2.frame(http2.HEADERS, http2.END_HEADERS, stream))
            writer.write(http2.frame(http2.DATA, 0, stream, MESSAGE))
        if stream in (1, 3):
            writer.write(http2.frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, stream))


def test_answers_refusals_and_what_is_given_up_are_told_apart() -> None:
    with Peer() as peer:
        outcome = play(
            f"127.0.0.1:{peer.port}", MESSAGE, [0.0, 0.001, 0.002], seconds=0.003, patience=0.2, connections=1
        )

    assert (outcome.scheduled, len(outcome.latencies_ms), outcome.refused, outcome.given_up) == (3, 1, 1, 1)
    assert 0 < outcome.latencies_ms[0] < 200
