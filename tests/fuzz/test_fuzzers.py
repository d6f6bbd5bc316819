"""A short turn of every fuzzer, and of the shim under sanitizers; `make fuzz` and `make sanitize` go on for longer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import targets
from tests.fuzz.sanitize import compiler, sanitize

ROOT = Path(__file__).parents[2]
SEEDS = Path(__file__).parent / "seeds"
SECONDS = 3
RUNS = 20_000


@pytest.mark.parametrize("name", targets.TARGETS)
def test_every_seed_goes_through_its_fuzzer(name: str):
    for seed in sorted((SEEDS / targets.TARGETS[name][1]).iterdir()):
        for prefix in (targets.SEED_PREFIX, b"\x00\x00", b"\x01\x03"):
            targets.run(name, prefix + seed.read_bytes())


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_few_seconds_of_fuzzing_find_nothing(name: str, tmp_path: Path):
    command = [sys.executable, "-m", "tests.fuzz", name, f"--seconds={SECONDS}", "--seed=1", f"--findings={tmp_path}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "stat::number_of_executed_units" in result.stderr, "it did not fuzz"


def test_the_shim_passes_its_sanitizers():
    cc = compiler()
    if cc is None:
        pytest.skip("there is no C compiler with sanitizers and libnghttp2's headers")
    result = sanitize(cc, RUNS, seed=1)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout == f"{RUNS} runs\n"
