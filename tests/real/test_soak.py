"""`python -m loadtest soak` in short: real clients of every kind on a real server, and whether all books agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.soak import models
from loadtest.soak.schedule import KINDS

REPOSITORY = Path(__file__).parents[2]
ANY_RISE = ("--rss-rise-mib=4096", "--descriptors-rise=1000", "--threads-rise=1000")
"""Seconds tell nothing about leaks, and how series are judged has tests of its own."""

pytestmark = pytest.mark.timeout(300)


def test_a_short_soak_has_right_answers_and_books_that_agree(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest", "soak", "--seconds=6", "--rate=60", *ANY_RISE, "--out", tmp_path],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )

    assert done.returncode == 0, done.stdout
    assert "verdict: PASSED" in done.stdout
    report = json.loads((tmp_path / "soak.json").read_text())
    assert set(report["kinds"]) == {kind.name for kind in KINDS}
    assert all(kind["ended"] + kind["refused"] for kind in report["kinds"].values())
    asked = {entry["model"] for entry in report["requests"] if entry["answered"]}
    assert asked >= {models.AFFINE, models.LENET5, models.TEXT, models.CACHED, models.TOTAL, models.PAIR}
    assert all(sample["rss_bytes"] > 0 and sample["threads"] > 1 for sample in report["samples"])
    assert "slow_reader" in (tmp_path / "soak.md").read_text()
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
