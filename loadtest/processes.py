"""Processes of our own: started, watched until ready and while they run, and stopped by their process id; or by the
kernel, where this process is killed before it can."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtest.errors import BadEndError, LoadTestError

_READY_SECONDS = 120.0
_STOP_SECONDS = 60.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_LEASH = Path(__file__).with_name("leash.py")


@dataclass(frozen=True)
class Running:
    """A server process that is ready."""

    process: subprocess.Popen[bytes]
    ports: dict[str, int]

    @property
    def address(self) -> str:
        """Where it speaks gRPC."""
        return f"127.0.0.1:{self.ports['grpc']}"

    def cpu_seconds(self) -> float:
        """User and system time of the whole process so far, as the operating system counts it."""
        # The second field, the command's name, is in brackets and may contain spaces; utime and stime are 14 and 15.
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND

    def rss_bytes(self) -> int:
        """Memory that is resident now."""
        return self._status("VmRSS") * 1024

    def peak_rss_bytes(self) -> int:
        """The most memory that was resident so far."""
        return self._status("VmHWM") * 1024

    def open_files(self) -> int:
        """Files and sockets."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def threads(self) -> int:
        """Of the whole process."""
        return self._status("Threads")

    def _status(self, key: str) -> int:
        """A number of /proc/PID/status; sizes are in KiB there."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (number,) = (line.split()[1] for line in lines if line.startswith(f"{key}:"))
        return int(number)


def our_server(model_repository: Path, engine: str = "auto") -> list[str]:
    """The command that serves `model_repository` on free ports of this machine; `running` adds where to write them.

    `engine` is the one that serves gRPC.
    """
    addresses = ["--grpc-address=127.0.0.1", "--http-address=127.0.0.1", "--metrics-address=127.0.0.1"]
    ports = ["--grpc-port=0", "--http-port=0", "--metrics-port=0"]
    what = [f"--model-repository={model_repository}", f"--grpc-engine={engine}"]
    return [sys.executable, "-m", "server", *what, *addresses, *ports]


@contextmanager
def running(command: Sequence[str], folder: Path, name: str) -> Iterator[Running]:
    """Runs `command --ports-file FILE` until the block ends; the block begins when the file says that it is ready.

    Its output goes to `folder/name.log`. At the end it gets SIGTERM and must exit with 0; a BadEndError otherwise.
    """
    with starting(command, folder, name) as start:
        yield start.wait_until_ready()


@dataclass(frozen=True)
class Starting:
    """A server process that may not be ready yet."""

    process: subprocess.Popen[bytes]
    ports_file: Path
    """Appears as soon as it is."""
    log: Path

    def wait_until_ready(self) -> Running:
        """A LoadTestError where it ends before, or takes too long."""
        return Running(self.process, _wait_until_ready(self.process, self.ports_file, self.log))


@contextmanager
def starting(command: Sequence[str], folder: Path, name: str) -> Iterator[Starting]:
    """As `running`, but the block begins at once."""
    ports_file = folder / f"{name}.ports.json"
    ports_file.unlink(missing_ok=True)
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ending_with_us([*command, "--ports-file", str(ports_file)]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield Starting(process, ports_file, log)
    finally:
        code = _stop(process)
    if code != 0:
        raise BadEndError(f"{name} ended with {code} instead of 0 after SIGTERM; see {log}")


def ending_with_us(command: Sequence[str]) -> list[str]:
    """The same command, with the same process id, which gets SIGTERM when the thread that starts it is gone, with its
    process or before it: nobody else would stop it then. On Linux; elsewhere it just runs."""
    return [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), *command]


def _wait_until_ready(process: subprocess.Popen[bytes], ports_file: Path, log: Path) -> dict[str, int]:
    give_up = time.monotonic() + _READY_SECONDS
    while not ports_file.exists():
        if process.poll() is not None:
            tail = log.read_text(errors="replace")[-2000:]
            raise LoadTestError(f"{process.args!r} ended with {process.returncode} before it was ready:\n{tail}")
        if time.monotonic() > give_up:
            raise LoadTestError(f"{process.args!r} was not ready after {_READY_SECONDS:.0f} s; see {log}")
        time.sleep(0.02)
    ports: dict[str, int] = json.loads(ports_file.read_text())
    return ports


def _stop(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM, and SIGKILL if that was not enough. Returns the exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
