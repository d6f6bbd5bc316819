"""A server as all the processes that it consists of: their CPU and memory, and their end.

Peers fork workers, and some of these outlive their parents. This process becomes the parent of such orphans
(`adopt_orphans`), so that whatever runs below it, besides what ran before, is the server's.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from loadtest.peers.base import Launch

_PR_SET_CHILD_SUBREAPER = 36
_STOP_SECONDS = 20.0
_OWN = re.compile(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)
_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ (\S+) (\d+) .*\n(?:\w+:.*\n)*?Rss:\s+(\d+) kB", re.MULTILINE)


class ProcessTree:
    """The processes with these ids, and all their descendants."""

    def __init__(self, roots: Iterable[int]) -> None:
        self._roots = frozenset(roots)

    def processes(self) -> list[psutil.Process]:
        found: dict[int, psutil.Process] = {}
        for pid in self._roots:
            try:
                root = psutil.Process(pid)
                found.update({one.pid: one for one in (root, *root.children(recursive=True))})
            except psutil.NoSuchProcess:
                continue
        return list(found.values())

    def cpu_seconds(self) -> float:
        """User and system time so far, that of descendants that have ended and were waited for included."""
        seconds = 0.0
        for process in self.processes():
            try:
                used = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            seconds += used.user + used.system + used.children_user + used.children_system
        return seconds

    def own_bytes(self) -> int:
        """Resident memory that is no file's. A page that n processes share counts 1/n for each."""
        return sum(int(kib) * 1024 for one in self.processes() for kib in _OWN.findall(_read(one.pid, "smaps_rollup")))

    def file_bytes(self) -> int:
        """Resident pages of mapped files (programs, libraries, models), each file once, whoever else uses it."""
        files: dict[tuple[str, str], int] = {}
        for one in self.processes():
            of_process: Counter[tuple[str, str]] = Counter()
            for device, inode, kib in _MAPPING.findall(_read(one.pid, "smaps")):
                if inode != "0" and not device.startswith("00:"):
                    of_process[device, inode] += int(kib) * 1024
            files.update({key: max(size, files.get(key, 0)) for key, size in of_process.items()})
        return sum(files.values())


class ServerProcesses(ProcessTree):
    """What a command has started, orphans included."""

    def __init__(self, process: subprocess.Popen[bytes], strangers: frozenset[int]) -> None:
        super().__init__([process.pid])
        self.process = process
        self._strangers = strangers

    def refresh(self) -> None:
        """Counts orphans in. While nothing else runs that this process has started."""
        self._roots = frozenset(_children() - self._strangers)


@contextmanager
def server_processes(launch: Launch, log: Path) -> Iterator[ServerProcesses]:
    """Runs `launch` until the block ends, and leaves none of its processes behind. Its output goes to `log`."""
    strangers = frozenset(_children())
    with log.open("wb") as output:
        process = subprocess.Popen(
            launch.command,
            env={**os.environ, **launch.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = ServerProcesses(process, strangers)
    try:
        yield server
    finally:
        server.refresh()
        _stop(server)


def adopt_orphans() -> None:
    """From now on, descendants whose parent ends become children of this process (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _stop(server: ServerProcesses) -> None:
    """SIGTERM to the one that was started, and SIGKILL to all that is left when it has ended, or after a while."""
    known = server.processes()
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
    try:
        server.process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
    give_up = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < give_up:
        server.refresh()
        left = {one.pid: one for one in (*server.processes(), *known) if one.is_running()}
        left.pop(server.process.pid, None)
        if not left:
            return
        for process in left.values():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left.values(), timeout=1.0)


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
