"""A real redis-server, on loopback and a port of its own, as the tests need it: there, gone, and there again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.real.conftest import ROOT
from tests.real.waiting import wait_until

UNPACKED = ROOT / ".cache/debian/usr"
START_SECONDS = 30


def find_redis() -> tuple[str, dict[str, str]]:
    """The installed program, or the one that tools/system_packages.sh has unpacked, and its environment.

    Skips the test without one.
    """
    installed = shutil.which("redis-server")
    if installed:
        return installed, dict(os.environ)
    if (UNPACKED / "bin/redis-server").exists():
        libraries = ":".join(map(str, (UNPACKED / "lib").glob("*-linux-gnu*")))
        return str(UNPACKED / "bin/redis-server"), {**os.environ, "LD_LIBRARY_PATH": libraries}
    pytest.skip("redis-server is missing; as root: apt-get install redis-server")


class RedisServer:
    """Keeps everything in memory. `stop` forgets it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._program, self._environment = find_redis()
        self._folder = folder
        self._options = options
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port: int = taken.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        log = self._folder / "redis.log"
        command = [self._program, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", *self._options]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=self._folder, env=self._environment, stdout=output, stderr=output)
        self._process = process
        wait_until(
            lambda: b"Ready to accept connections" in log.read_bytes() or process.poll() is not None, START_SECONDS
        )
        assert process.poll() is None, log.read_text()

    def kill(self) -> None:
        """End it without a word to its clients, as a crash does. Harmless where it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it is gone"
        return self._process.pid
