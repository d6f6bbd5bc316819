"""A counter with a bound, how large it is by default, and what models add to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.backends.host_memory import available_memory
from server.errors import MemoryFull
from server.memory_budget import MemoryBudget
from server.settings import parse


def test_what_does_not_fit_is_refused_with_the_figures_and_counts_nothing() -> None:
    memory = MemoryBudget(100)
    memory.take(60)
    with pytest.raises(MemoryFull, match="60 of 100 bytes are in use, 41 more are needed"):
        memory.take(41)
    assert (memory.used, memory.refused, memory.room) == (60, 1, 40)
    memory.take(40)
    assert memory.room == 0


def test_giving_back_is_always_possible() -> None:
    memory = MemoryBudget(100)
    memory.used = 300  # some answers are let out whatever there is
    memory.take(-50)
    assert (memory.used, memory.room) == (250, 0)


@pytest.mark.parametrize(("membership", "file"), [("0::/pod", "pod/memory.max"),
                                                  ("5:memory:/pod", "memory/pod/memory.limit_in_bytes")])  # fmt: skip
def test_a_control_group_limits_the_memory(tmp_path: Path, membership: str, file: str) -> None:
    (tmp_path / "self").write_text(f"{membership}\n")
    limit = tmp_path / file
    limit.parent.mkdir(parents=True)
    limit.write_text("4096000\n")
    assert available_memory(tmp_path, tmp_path / "self") == 4_096_000


def test_without_a_limit_all_of_the_machines_memory_is_available(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("0::/\n")
    (tmp_path / "memory.max").write_text("max\n")
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert available_memory(tmp_path, tmp_path / "self") == machine


@pytest.mark.parametrize("size", ["0", "1.5G", "12Q", "G", "-1"])
def test_what_is_no_size_is_refused(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--model-repository=models", f"--memory-budget={size}"])
    assert "must be a number of bytes" in capsys.readouterr().err


def test_a_budget_that_the_largest_request_does_not_fit_into_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--model-repository=models", "--memory-budget=200M"])
    assert "give it 268435456 or more, or make --grpc-max-message-bytes smaller" in capsys.readouterr().err
