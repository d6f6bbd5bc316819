"""Requests at their own times, whatever becomes of those before: an open loop, Poisson, one thread, few µs a request.

python -m loadtest.open_loop --address HOST:PORT --message FILE --rate N --seconds S --patience S
    [--connections N] [--seed N]

Equal seeds give equal schedules. A latency counts from the moment that the schedule names, so that a late generator
flatters nobody. An answer is a message; a refusal has none (a gRPC status alone). `--patience` after the last request,
what has not been answered is given up. Prints an `Outcome` as JSON.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from loadtest import http2_frames as http2
from loadtest.errors import LoadTestError
from loadtest.simulation.arrivals import Floats, RandomArrivals

_SILENCE_SECONDS = 60.0
_READ_BYTES = 1 << 18


@dataclass(frozen=True)
class Outcome:
    """What became of the requests of a schedule."""

    scheduled: int
    seconds: float
    """Length of the schedule."""
    latencies_ms: list[float]
    """Of the answers, from scheduled to answered, ascending."""
    latencies_from_sent_ms: list[float]
    """Of the same, from sent to answered, ascending: without what the generator was late."""
    refused: int
    given_up: int
    """Not answered in the end, or not even sent."""
    send_lag_p99_ms: float
    """From scheduled to sent, of those that were sent: what the generator, or a full connection, held back."""
    cpu_seconds: float
    """Of the generator, without its start."""


class Connection:
    """One connection of the generator; `began` is when the schedule began, on `time.perf_counter`."""

    def __init__(self, address: str, message: bytes, due: list[float]) -> None:
        """`due`: when its requests are due, in seconds from the beginning, ascending."""
        self.due = due
        self.sent_at = [0.0] * len(due)
        self.ended_at = [0.0] * len(due)
        """0 for a request that has not ended."""
        self.answered = bytearray(len(due))
        self.sent = self.ended = 0
        self._message = message
        self._unread = b""
        self._unsent: deque[memoryview] = deque()
        self._window = http2.FIRST_WINDOW
        self._streams = 1 << 31
        self._settled = False
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)), _SILENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0) + http2.WIDE_OPEN)
        while not self._settled:
            self.read(0.0)
        self.socket.setblocking(False)

    @property
    def next_due(self) -> float:
        """When the next request may be sent; inf where none may before something is read."""
        blocked = self.sent - self.ended >= self._streams or self._window < len(self._message)
        return float("inf") if blocked or self.sent == len(self.due) else self.due[self.sent]

    @property
    def wants_to_write(self) -> bool:
        return bool(self._unsent)

    def send(self, now: float) -> None:
        """Sends what is due."""
        parts = [] if self.next_due > now else [bytes(self._next(now))]
        while self.next_due <= now:
            parts.append(bytes(self._next(now)))
        if parts:
            self._unsent.append(memoryview(b"".join(parts)))
            self.flush()

    def flush(self) -> None:
        """Writes what the socket takes."""
        try:
            while self._unsent:
                first = self._unsent[0]
                written = self.socket.send(first)
                if written == len(first):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = first[written:]
        except BlockingIOError:
            pass

    def read(self, now: float) -> None:
        """Reads what has come, at `now` seconds from the beginning."""
        data = self._unread + self.socket.recv(_READ_BYTES)
        if len(data) == len(self._unread):
            raise ConnectionError("the server has closed the connection")
        position = 0
        for kind, flags, stream, begin, position in http2.frames(data):
            if kind == http2.DATA:
                self.answered[stream >> 1] = 1
            elif kind != http2.HEADERS:
                self._control(kind, flags, stream, data[begin:position])
            if kind <= http2.HEADERS and flags & http2.END_STREAM:
                self.ended_at[stream >> 1] = now
                self.ended += 1
        self._unread = data[position:]

    def _next(self, now: float) -> bytearray:
        request = self._request.on(2 * self.sent + 1)
        self.sent_at[self.sent] = now
        self.sent += 1
        self._window -= len(self._message)
        return request

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == http2.SETTINGS and not flags & http2.ACK:
            settings = http2.settings(payload)
            if settings.get(http2.INITIAL_WINDOW_SIZE, http2.FIRST_WINDOW) < len(self._message):
                raise ConnectionError("the server's window for a stream is smaller than the message")
            self._streams = settings.get(http2.MAX_CONCURRENT_STREAMS, self._streams)
            max_frame_size = settings.get(http2.MAX_FRAME_SIZE, http2.FIRST_FRAME_SIZE)
            self._request = http2.Request(self._message, max_frame_size)
            self._settled = True
            self._reply(http2.frame(http2.SETTINGS, http2.ACK, 0))
        elif kind == http2.WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload)
        elif kind == http2.PING and not flags & http2.ACK:
            self._reply(http2.frame(http2.PING, http2.ACK, 0, payload))
        elif kind in (http2.RST_STREAM, http2.GOAWAY):
            raise ConnectionError(f"the server broke off: frame type {kind}, {payload!r}")

    def _reply(self, control: bytes) -> None:
        self._unsent.append(memoryview(control))
        self.flush()


def play(
    address: str, message: bytes, schedule: list[float], seconds: float, patience: float, connections: int
) -> Outcome:
    """Sends the framed message to `address` ("host:port") at the times of `schedule`, on the connections in turn."""
    each = [Connection(address, message, schedule[i::connections]) for i in range(connections)]
    began, cpu_began = time.perf_counter(), time.process_time()
    give_up = seconds + patience
    while (now := time.perf_counter() - began) < give_up and sum([one.ended for one in each]) < len(schedule):
        for one in each:
            one.send(now)
        wait = min(give_up, *(one.next_due for one in each)) - (time.perf_counter() - began)
        writers = [one.socket for one in each if one.wants_to_write]
        readable, _, _ = select.select([one.socket for one in each], writers, [], max(0.0, wait))
        for one in each:
            if one.wants_to_write:
                one.flush()
            if one.socket in readable:
                one.read(time.perf_counter() - began)
    cpu_seconds = time.process_time() - cpu_began
    for one in each:
        one.socket.close()
    return _outcome(each, seconds, cpu_seconds)


def _outcome(each: list[Connection], seconds: float, cpu_seconds: float) -> Outcome:
    due, sent, ended = (
        np.concatenate([np.array(values) for values in column])
        for column in zip(*((one.due, one.sent_at, one.ended_at) for one in each), strict=True)
    )
    answered = np.concatenate([np.frombuffer(one.answered, np.uint8) for one in each]) != 0
    over = ended > 0
    good = over & answered
    lags_ms = (sent[sent > 0] - due[sent > 0]) * 1e3
    return Outcome(
        scheduled=len(due),
        seconds=seconds,
        latencies_ms=_sorted_ms(ended[good] - due[good]),
        latencies_from_sent_ms=_sorted_ms(ended[good] - sent[good]),
        refused=int(np.count_nonzero(over & ~answered)),
        given_up=int(np.count_nonzero(~over)),
        send_lag_p99_ms=float(np.quantile(lags_ms, 0.99)) if lags_ms.size else 0.0,
        cpu_seconds=cpu_seconds,
    )


def _sorted_ms(seconds: Floats) -> list[float]:
    milliseconds: list[float] = (np.sort(seconds) * 1e3).round(4).tolist()
    return milliseconds


def offer(address: str, message: Path, rate: float, seconds: float, patience: float, seed: int) -> Outcome:
    """The generator in a process of its own. A LoadTestError says why it ended early."""
    command = [sys.executable, "-m", "loadtest.open_loop", "--address", address, "--message", str(message)]
    command += ["--rate", str(rate), "--seconds", str(seconds), "--patience", str(patience), "--seed", str(seed)]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds + patience + _SILENCE_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise LoadTestError(f"the generator ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return Outcome(**json.loads(done.stdout))


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Arrivals of a Poisson process, in seconds from its beginning."""
    arrivals = RandomArrivals(np.array([0.0, seconds]), np.array([0.0, rate * seconds]), seed)
    return [float(when) for times, _ in arrivals.blocks() for when in times]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", required=True, metavar="HOST:PORT", help="where the server speaks gRPC")
    parser.add_argument("--message", type=Path, required=True, help="a file with the framed request")
    parser.add_argument("--rate", type=float, required=True, help="requests per second, in the mean")
    parser.add_argument("--seconds", type=float, required=True, help="length of the schedule")
    parser.add_argument("--patience", type=float, required=True, help="seconds to wait after that")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    flags = parser.parse_args()
    times = poisson(flags.rate, flags.seconds, flags.seed)
    outcome = play(flags.address, flags.message.read_bytes(), times, flags.seconds, flags.patience, flags.connections)
    print(json.dumps(asdict(outcome)))
