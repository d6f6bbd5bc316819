"""The end of the process, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, threading
from server.last_exit import LastExit

last_exit = LastExit()
for seconds in {deadlines}:
    last_exit.leave_within(seconds)
threading.Event().wait({runs})
sys.exit(7)
"""


def run(deadlines: list[float], runs: float) -> tuple[int, str]:
    program = PROGRAM.format(deadlines=deadlines, runs=runs)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    return ended.returncode, ended.stderr


def test_what_runs_on_is_left_behind_by_the_soonest_of_several_deadlines() -> None:
    status, said = run([600, 0, 600], runs=600)
    assert status == 1
    assert "its threads are MainThread" in said


def test_a_process_that_ends_in_time_is_left_alone() -> None:
    assert run([600], runs=0) == (7, "")
