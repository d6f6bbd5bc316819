"""Makes the fixtures of this folder anew: `python tests/frameworks/make.py [exporter …]`, all of them by default.

Each exporter is a script with pinned requirements, and runs in a virtual environment that is made for it and deleted
behind it. TensorFlow's takes 1.5 GB meanwhile, below `.cache/`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".cache" / "exporters"

EXPORTERS = ("keras_tensorflow", "scikit_learn", "boosting", "quantised", "built_by_hand")
"""In this order: `quantised` reads what `keras_tensorflow` wrote."""

REPEATABLE = {
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "CUDA_VISIBLE_DEVICES": "",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "PATH": "/usr/bin:/bin",
}
"""The whole environment of an exporter. Trees are split, sums made and sets walked in one order."""


def make(exporter: str) -> None:
    """Run one exporter. Raises CalledProcessError where it or its installation fails."""
    environment = ENVIRONMENTS / exporter
    venv.create(environment, with_pip=True, clear=True)
    python = environment / "bin" / "python"
    try:
        requirements = HERE / "requirements" / f"{exporter}.txt"
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir")
        subprocess.run([*pip, "--requirement", requirements], check=True)
        subprocess.run([python, HERE / "exporters" / f"{exporter}.py", HERE], check=True, env=REPEATABLE)
    finally:
        shutil.rmtree(environment)


def main() -> None:
    """Make what the command line names."""
    wanted = sys.argv[1:] or EXPORTERS
    unknown = set(wanted) - set(EXPORTERS)
    if unknown:
        sys.exit(f"there is no exporter {', '.join(sorted(unknown))}; there are: {', '.join(EXPORTERS)}")
    for exporter in EXPORTERS:
        if exporter in wanted:
            print(f"== {exporter}", flush=True)
            make(exporter)


if __name__ == "__main__":
    main()
