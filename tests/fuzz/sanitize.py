"""Compiles http2_shim.c with AddressSanitizer and UndefinedBehaviorSanitizer, and plays seeds and mutations into it.

`python -m tests.fuzz.sanitize [--runs=200000] [--seed=1]`. Any report of the sanitizers, failed check or leak fails it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SHIM_FOLDER = HERE.parents[1] / "server" / "frontends" / "grpc"
FLAGS = [
    "-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
]  # fmt: skip


def compiler() -> str | None:
    """A C compiler whose sanitizers work and that finds libnghttp2, if there is one."""
    for name in (os.environ.get("CC", ""), "gcc", "clang"):
        if (
            name
            and shutil.which(name)
            and _compile(name, "#include <nghttp2/nghttp2.h>\nint main(void) { return 0; }\n")
        ):
            return name
    return None


def _compile(name: str, program: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "probe.c"), Path(folder, "probe")
        source.write_text(program)
        command = [name, *FLAGS, str(source), "-lnghttp2", "-o", str(binary)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def sanitize(cc: str, runs: int, seed: int) -> subprocess.CompletedProcess[str]:
    """Compile the driver and run it; its output has the reports."""
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder, "shim_driver")
        build = [cc, *FLAGS, f"-I{SHIM_FOLDER}", str(HERE / "shim_driver.c"), "-lnghttp2", "-o", str(binary)]
        subprocess.run(build, check=True)
        seeds = sorted(map(str, (HERE / "seeds" / "http2").iterdir()))
        return subprocess.run([str(binary), str(seed), str(runs), *seeds], capture_output=True, text=True, check=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.sanitize", description=__doc__)
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    cc = compiler()
    if cc is None:
        print("there is no C compiler with sanitizers and libnghttp2's headers", file=sys.stderr)
        return 1
    result = sanitize(cc, options.runs, options.seed)
    print(result.stdout, result.stderr, sep="")
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
