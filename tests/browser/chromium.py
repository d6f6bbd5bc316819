"""Debian's Chromium: where it is, and how it is started."""

from __future__ import annotations

import os
from pathlib import Path

_UNPACKED = Path(__file__).parents[2] / ".cache/debian"
_PROGRAMS = ("usr/lib/chromium/chromium-headless-shell", "usr/lib/chromium/chromium")
"""The first needs half the processor time: it draws no window around the page. Packages of these names bring them."""

ARGUMENTS = (
    "--headless",
    "--no-sandbox",  # tests may run as root, in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find() -> tuple[Path, dict[str, str]] | None:
    """The program, and the environment that it needs; None where there is none.

    The binary, not Debian's script around it: what /etc/chromium.d adds is for desktops.
    """
    for program in _PROGRAMS:
        if (installed := Path("/") / program).exists():
            return installed, dict(os.environ)
    for program in _PROGRAMS:
        if (unpacked := _UNPACKED / program).exists():
            folders = [*_UNPACKED.glob("usr/lib/*-linux-gnu"), *_UNPACKED.glob("lib/*-linux-gnu"), unpacked.parent]
            return unpacked, os.environ | {"LD_LIBRARY_PATH": ":".join(map(str, folders))}
    return None
