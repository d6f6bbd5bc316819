"""Coverage-guided fuzzing with atheris: `python -m tests.fuzz [--seconds=60] [--seed=1] [target ...]`.

Each target runs in a process of its own; a finding ends it with a traceback, and its input is kept in runs/fuzz.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FINDINGS = HERE.parents[1] / "runs" / "fuzz"
NAMES = ("messages", "headers", "texts", "connection")
MAX_INPUT_BYTES = 8192


def fuzz(name: str, seconds: int, seed: int, findings: Path) -> None:
    """Fuzz one target in this process, which then ends."""
    import atheris

    with atheris.instrument_imports(include=["server.frontends"]):
        from tests.fuzz import targets

    with tempfile.TemporaryDirectory() as corpus:
        for path in (HERE / "seeds" / targets.TARGETS[name][1]).iterdir():
            (Path(corpus) / path.name).write_bytes(targets.SEED_PREFIX + path.read_bytes())
        flags = [
            f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={MAX_INPUT_BYTES}",
            f"-artifact_prefix={findings}/{name}-", "-print_final_stats=1", "-timeout=20", "-rss_limit_mb=2000",
        ]  # fmt: skip
        atheris.Setup(["fuzz", *flags, corpus], lambda data: targets.run(name, data))
        atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*NAMES, []], metavar="target", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=FINDINGS, help="where inputs that failed are kept")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.findings.mkdir(parents=True, exist_ok=True)
    if options.here:
        fuzz(options.targets[0], options.seconds, options.seed, options.findings)
        return 0
    failed = []
    for name in options.targets or NAMES:
        print(f"== {name}: {options.seconds} s", flush=True)
        command = [sys.executable, "-m", "tests.fuzz", name, "--here", f"--seconds={options.seconds}"]
        command += [f"--seed={options.seed}", f"--findings={options.findings}"]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "no findings")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
