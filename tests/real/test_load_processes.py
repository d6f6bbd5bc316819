"""The servers of load tests end with whoever has started them, whatever becomes of him."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.real.conftest import ROOT
from tests.real.waiting import wait_until

STARTED = """
import sys
from pathlib import Path
from loadtest.processes import starting

child = "import signal, sys; print('it runs', flush=True); signal.pause()"
with starting([sys.executable, "-c", child], Path(sys.argv[1]), "child") as start:
    print(start.process.pid, flush=True)
    sys.stdin.read()
"""


def runs(pid: int) -> bool:
    """Whether a process has not ended; whoever adopts it may take a while to hear of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_server_ends_when_the_load_test_that_started_it_is_killed(tmp_path: Path) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTED, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        wait_until(lambda: "it runs" in (tmp_path / "child.log").read_text(), 30)
        assert runs(pid)
        starter.kill()
    wait_until(lambda: not runs(pid), 30)
