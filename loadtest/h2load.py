"""The load generator h2load (Debian's nghttp2-client): one gRPC request over and over, one thread.

A gRPC error is a trailer, which h2load does not read: who uses it compares the server's own counts with what was sent.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from loadtest.errors import LoadTestError
from loadtest.figures import percentile
from loadtest.target import INFER

# Where tools/system_packages.sh unpacks packages that it may not install.
_UNPACKED = Path(__file__).parent.parent / ".cache" / "debian" / "usr"
_SECONDS = 300.0
_RATE = re.compile(r"^finished in .*?, ([\d.]+) req/s", re.MULTILINE)
_SUCCEEDED = re.compile(r"^requests: .*?(\d+) succeeded, (\d+) failed, (\d+) errored", re.MULTILINE)
_STATUSES = re.compile(r"^status codes: (\d+) 2xx", re.MULTILINE)
_BODIES = re.compile(r"^traffic: .*\((\d+)\) data", re.MULTILINE)


class Sample(NamedTuple):
    """One request."""

    sent: float
    """Seconds since 1970."""
    latency_ms: float


@dataclass(frozen=True)
class Volley:
    """What one run of h2load saw. Every request was answered with a 2xx status."""

    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    client_cpu_seconds: float
    """Of h2load itself."""
    body_bytes: int
    """Of all answers: a gRPC error has none."""


@dataclass(frozen=True)
class H2load:
    """An h2load that can be run."""

    program: Path
    environment: dict[str, str]

    @classmethod
    def find(cls) -> H2load:
        """The installed one, or the one unpacked in .cache/; a LoadTestError says how to get one."""
        installed = shutil.which("h2load")
        if installed is not None:
            return cls(Path(installed), dict(os.environ))
        unpacked = _UNPACKED / "bin" / "h2load"
        if unpacked.exists():
            libraries = ":".join(str(folder) for folder in (_UNPACKED / "lib").glob("*-linux-gnu*"))
            return cls(unpacked, {**os.environ, "LD_LIBRARY_PATH": libraries})
        raise LoadTestError("h2load is missing. As root: apt-get install nghttp2-client")

    def fire(
        self,
        address: str,
        body: Path,
        *,
        requests: int,
        connections: int,
        streams: int,
        log: Path,
        requests_per_second: int | None = None,
        timeout_seconds: float = _SECONDS,
        more_headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Volley:
        """Sends the framed request in `body` `requests` times, `connections` × `streams` in flight.

        With `requests_per_second`, that many are sent, answered or not, as long as no more than those are in flight.
        Anything but `requests` answers of status 2xx is a LoadTestError. `log` is rewritten with a line per request.
        """
        flags = ["-c", str(connections), "-m", str(streams)]
        if requests_per_second is not None:
            flags += ["--rps", str(requests_per_second / connections)]
        headers = {"content-type": "application/grpc", "te": "trailers", **more_headers}
        url = f"http://{address}{INFER}"
        return self._run(url, body, headers, flags, requests=requests, log=log, timeout_seconds=timeout_seconds)

    def fire_http(
        self,
        url: str,
        body: Path,
        headers: Mapping[str, str],
        *,
        requests: int,
        connections: int,
        log: Path,
        timeout_seconds: float = _SECONDS,
    ) -> Volley:
        """As `fire`, over HTTP/1.1: sends `body` `requests` times to `url`, one in flight on each connection."""
        flags = ["--h1", "-c", str(connections), "-m", "1"]
        return self._run(url, body, headers, flags, requests=requests, log=log, timeout_seconds=timeout_seconds)

    def _run(
        self,
        url: str,
        body: Path,
        headers: Mapping[str, str],
        flags: Sequence[str],
        *,
        requests: int,
        log: Path,
        timeout_seconds: float,
    ) -> Volley:
        log.unlink(missing_ok=True)
        command = [str(self.program), "-n", str(requests), "-t", "1", *flags, "-d", str(body)]
        for name, value in headers.items():
            command += ["-H", f"{name}: {value}"]
        command += ["--log-file", str(log), url]
        cpu_before = _children_cpu_seconds()
        try:
            done = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=timeout_seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise LoadTestError(f"h2load did not end in {timeout_seconds:.0f} s against {url}") from error
        client_cpu_seconds = _children_cpu_seconds() - cpu_before
        patterns = (_RATE, _SUCCEEDED, _STATUSES, _BODIES)
        rate, outcome, statuses, bodies = (pattern.search(done.stdout) for pattern in patterns)
        if done.returncode != 0 or rate is None or outcome is None or statuses is None or bodies is None:
            raise LoadTestError(f"h2load ended with {done.returncode} against {url}:\n{done.stdout}{done.stderr}")
        if [*map(int, outcome.groups()), int(statuses[1])] != [requests, 0, 0, requests]:
            raise LoadTestError(f"{url} did not answer all of {requests} requests: {outcome[0]}, {statuses[0]}")
        latencies = Counter(sample.latency_ms for sample in read_log(log))
        p50_ms, p99_ms = (percentile(latencies, share) for share in (0.5, 0.99))
        return Volley(requests, float(rate[1]), p50_ms, p99_ms, client_cpu_seconds, int(bodies[1]))


def frame(message: bytes) -> bytes:
    """One uncompressed gRPC message as it travels: a zero byte, the length in four bytes, the message."""
    return struct.pack(">BI", 0, len(message)) + message


def read_log(log: Path) -> list[Sample]:
    """h2load's log: start time, HTTP status, and microseconds until the end of the answer, tab-separated."""
    lines = (line.split("\t") for line in log.read_text().splitlines())
    return [Sample(int(line[0]) / 1e6, int(line[2]) / 1e3) for line in lines]


def _children_cpu_seconds() -> float:
    """Of the processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
