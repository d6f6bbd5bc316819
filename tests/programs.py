"""Programs of Debian's packages: installed, or unpacked by tools/system_packages.sh."""

from __future__ import annotations

import shutil
from pathlib import Path

UNPACKED = Path(__file__).parents[1] / ".cache/debian/usr/bin"


def find_program(name: str) -> str | None:
    """Where it is, or None."""
    return shutil.which(name) or shutil.which(name, path=UNPACKED)
