"""What makes a fuzzer of so many inputs try the same ones in every process, and an account of those that it tried.

libFuzzer's choices follow from its seed, its options, and what each input reaches. What an input reaches must not
depend on the clock, on the machine, on where objects lie in memory, or on what the process did before; nor may the
values that are compared, since they are put into later inputs.
"""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

from atheris import instrument_bytecode

NOW = 1_750_000_000
"""In seconds, of all clocks."""
DISK = shutil._ntuple_diskusage(total=1 << 40, used=1 << 39, free=1 << 39)


class _InOrder(dict[Any, None]):
    """A set of objects in the order in which they came."""

    def add(self, value: object) -> None:
        self[value] = None


def number_branches_in_order() -> None:
    """atheris counts the branches of a function in the order of a set of objects: that of their addresses."""
    instrument_bytecode.set = _InOrder  # it shadows the builtin in that module


def fix_surroundings() -> None:
    """Clocks stand and disks have the same room, for code that is imported afterwards or asks the module each time."""
    for name in ("time", "monotonic", "perf_counter"):
        setattr(time, name, lambda: float(NOW))
        setattr(time, f"{name}_ns", lambda: NOW * 10**9)
    shutil.disk_usage = lambda path: DISK


def begin() -> None:
    """In the process of a target: when garbage is looked for follows from what the target does, and nothing else."""
    gc.collect()
    gc.freeze()


def hashes_are_fixed() -> bool:
    """Whether sets of texts have the same order in every process: PYTHONHASHSEED was 0."""
    return not sys.flags.hash_randomization


class Digest:
    """A target that writes down what it was given: a line of the log for the first `count` inputs."""

    def __init__(self, target: Callable[[bytes], None], count: int) -> None:
        self._target = target
        self._left = count
        self._hash = hashlib.blake2b(digest_size=8)

    def __call__(self, data: bytes) -> None:
        if self._left > 0:
            self._left -= 1
            self._hash.update(len(data).to_bytes(4, "little"))
            self._hash.update(data)
            if not self._left:
                os.write(1, f"digest: {self._hash.hexdigest()}\n".encode())
        self._target(data)
