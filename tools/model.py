"""One command from a recipe to a server: train, evaluate, export, serve. What is done already is not done again.

    make model RECIPE=letters26
    make model RECIPE=folder32 ARGS="--data-dir pictures --name boats"
    python tools/model.py RECIPE [what `python -m training build` takes] [-- what `python -m server` takes]

It serves the whole repository that it exported into, until it is told to stop, as `make serve` does. Neither knows of
the other: training writes files, and the server, which takes this process's place, reads them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys


def main(arguments: list[str]) -> int:
    """Exit status of what failed; on success the server's."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    for_training, for_server = arguments[:split], arguments[split + 1 :]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--repository", default="model_repository")
    repository = parser.parse_known_args(for_training)[0].repository
    built = subprocess.run([sys.executable, "-m", "training", "build", *for_training], check=False)
    if built.returncode or {"-h", "--help"} & set(for_training):
        return built.returncode
    server = [sys.executable, "-m", "server", "--model-repository", repository, *for_server]
    sys.stdout.flush()
    return os.execv(sys.executable, server)  # noqa: S606 - it is the server that gets the signals


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
