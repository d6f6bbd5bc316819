"""The end of the process, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes, sys, threading
from server.last_exit import LastExit

last_exit = LastExit()
for seconds in {deadlines}:
    last_exit.leave_within(seconds)
{then}
sys.exit(7)
"""


def run(deadlines: list[float], then: str) -> tuple[int, str]:
    program = PROGRAM.format(deadlines=deadlines, then=then)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    return ended.returncode, ended.stderr


def test_what_runs_on_is_left_behind_by_the_soonest_of_several_deadlines() -> None:
    status, said = run([600, 0, 600], then="threading.Event().wait(600)")
    assert status == 1
    assert "its threads are MainThread" in said


def test_a_process_that_ends_in_time_is_left_alone() -> None:
    assert run([600], then="") == (7, "")


def test_whoever_keeps_the_lock_of_the_interpreter_is_left_behind_too() -> None:
    status, said = run([600, 0, 600], then="ctypes.PyDLL(None).sleep(600)")
    assert status == 1
    assert "Timeout" in said and "<module>" in said
