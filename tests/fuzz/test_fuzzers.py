"""Every seed, a short turn of each fuzzer, and of the shim under sanitizers; `make fuzz` and `make sanitize` go on."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import mutators
from tests.fuzz.__main__ import Result, dictionary_entry, read_log, table
from tests.fuzz.sanitize import compiler, sanitize
from tests.fuzz.targets import RUNS, SEEDS, TARGETS

ROOT = Path(__file__).parents[2]
RUNS_OF_THE_SHIM = 20_000
A_FEW = 300
"""Inputs of each target here; `make fuzz-ci` has many more of the same."""
REPEATED = ("infer", "load", "onnx", "routes")
"""Targets whose inputs depended on addresses, the order of protobuf's maps, the room on a disk, or the second."""
REPEATED_RUNS = 2000
PLANTED = ("server/frontends/codec.py", "if tag & 0x80:", "if tag & 0x100:")
"""A tag of several bytes is taken for one of the fields that its first byte looks like."""
PLANTED_RUNS = 20_000

has_atheris = pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")


def fuzz(root: Path, findings: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz", "--fresh", f"--findings={findings}", *arguments]
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONHASHSEED": "0"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_goes_through_its_fuzzer(name: str):
    target = TARGETS[name]
    inputs = target.inputs()
    assert inputs
    for data in inputs.values():
        assert len(data) <= target.max_bytes, "a seed that is never tried"
        for prefix in {target.prefix, bytes(len(target.prefix)), bytes((1, 3))[: len(target.prefix)]}:
            target(prefix + data[len(target.prefix) :])


def test_every_folder_of_seeds_has_a_target():
    assert {path.name for path in SEEDS.iterdir()} == {target.seeds for target in TARGETS.values()}


@has_atheris
def test_a_short_turn_of_every_fuzzer_finds_nothing(tmp_path: Path):
    result = fuzz(ROOT, tmp_path, f"--runs={A_FEW}")
    assert result.returncode == 0, result.stdout + result.stderr
    executed = dict(re.findall(r"^(\w+) +\d+ +(\d+) .* none$", result.stdout, re.MULTILINE))
    assert {name: int(count) for name, count in executed.items()} == dict.fromkeys(TARGETS, A_FEW)


@has_atheris
def test_so_many_inputs_are_the_same_ones_in_every_process(tmp_path: Path):
    alone, beside = (
        fuzz(ROOT, tmp_path / jobs, *targets, f"--runs={REPEATED_RUNS}", f"--jobs={jobs}").stdout
        for jobs, targets in (("1", REPEATED), ("3", REPEATED[::-1]))
    )
    digests = dict(re.findall(r"^(\w+) +\d+ .* ([0-9a-f]{16}) +none$", alone, re.MULTILINE))
    assert set(digests) == set(REPEATED), alone
    assert dict(re.findall(r"^(\w+) +\d+ .* ([0-9a-f]{16}) +none$", beside, re.MULTILINE)) == digests


def test_every_target_has_its_number_of_inputs():
    assert set(RUNS) == set(TARGETS)


@has_atheris
def test_a_planted_bug_is_found(tmp_path: Path):
    for folder in ("server", "proto", "tests", "model_repository"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    path, right, wrong = PLANTED
    text = (tmp_path / path).read_text()
    assert text.count(right) == 1
    (tmp_path / path).write_text(text.replace(right, wrong))
    result = fuzz(tmp_path, tmp_path / "findings", "infer", f"--runs={PLANTED_RUNS}")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "AssertionError" in result.stdout
    assert list((tmp_path / "findings").glob("infer-crash-*"))


PARTS = {
    "infer": (mutators.split_protobuf, mutators.join_protobuf),
    "config": (mutators.split_protobuf, mutators.join_protobuf),
    "onnx": (mutators.split_protobuf, mutators.join_protobuf),
    "load": (mutators.split_messages, mutators.join_messages),
    "http2": (mutators.split_frames, mutators.join_frames),
    "pictures": (mutators.split_picture, mutators.join_picture),
}


@pytest.mark.parametrize("folder", PARTS)
def test_a_mutator_puts_together_what_it_takes_apart(folder: str):
    split, join = PARTS[folder]
    for path in (SEEDS / folder).iterdir():
        data = path.read_bytes()
        assert len(split(data)) > 1
        assert join(split(data)) == data


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.mutate is not None])
def test_mutants_are_different_and_not_too_long(name: str):
    target = TARGETS[name]
    assert target.mutate is not None
    random = Random(1)

    def flip(data: bytes, most: int) -> bytes:
        place = random.randrange(len(data) + 1)
        return (data[:place] + b"!" + data[place + 1 :])[:most]

    for data in target.inputs().values():
        mutants = {target.mutate(data, 300, seed, flip) for seed in range(50)}
        assert len(mutants - {data}) > 10
        assert all(len(mutant) <= 300 for mutant in mutants)


def test_the_account_of_a_turn_is_read():
    text = """#2 INITED cov: 10 ft: 11 corp: 2/9b exec/s: 0 rss: 70Mb
#5000 NEW    cov: 31 ft: 40 corp: 7/90b lim: 8 exec/s: 0 rss: 70Mb L: 8/9 MS: 1 CopyPart-
digest: 00ff
stat::number_of_executed_units: 6000
"""
    assert read_log(text) == (6000, 31, 7, "00ff")
    assert read_log("nothing") == (0, 0, 0, "-")
    shown = table(
        [Result("a", 3, 6000, 31, 7, "00ff", 2.0, failed=False), Result("b", 1, 4, 0, 0, "-", 1.0, failed=True)]
    )
    assert shown.splitlines()[1].split() == ["a", "3", "6000", "31", "7", "2.0", "00ff", "none"]
    assert shown.endswith("2 targets, 6004 executions, 3 s")


def test_a_word_of_a_dictionary_is_written_in_hexadecimal():
    assert dictionary_entry(b'a"\n') == '"\\x61\\x22\\x0a"\n'


def test_the_shim_passes_its_sanitizers():
    cc = compiler()
    if cc is None:
        pytest.skip("there is no C compiler with sanitizers and libnghttp2's headers")
    result = sanitize(cc, RUNS_OF_THE_SHIM, seed=1)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout == f"{RUNS_OF_THE_SHIM} runs\n"
