"""Write the dashboards: python -m deploy.grafana.generate, or --check to be told which are stale.

The files are committed, so that Grafana needs no Python. Equal code gives equal files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana import capacity, gpu, model, overview

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS: dict[str, Callable[[], Dashboard]] = {
    "overview": overview.dashboard,
    "model": model.dashboard,
    "capacity": capacity.dashboard,
    "gpu": gpu.dashboard,
}
"""By the names of their files."""


def main() -> int:
    """Write the files, or check them. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where a file is not what the code says"
    )
    if not parser.parse_args().check:
        generate()
        return 0
    stale = stale_files()
    for path in stale:
        print(f"{path} is stale or nobody's. Run: make dashboards", file=sys.stderr)
    return 1 if stale else 0


def generate(folder: Path = FOLDER) -> None:
    """Write every dashboard, and remove files that are none."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in _strangers(folder):
        path.unlink()
    for name, text in texts().items():
        (folder / name).write_text(text)


def stale_files(folder: Path = FOLDER) -> list[Path]:
    """Files that are missing, differ from what the code says, or belong to no dashboard."""
    wanted = {folder / name: text for name, text in texts().items()}
    differing = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    return [*differing, *_strangers(folder)]


def texts() -> dict[str, str]:
    """The contents of the files, by name."""
    return {
        f"{name}.json": json.dumps(dashboard(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for name, dashboard in DASHBOARDS.items()
    }


def _strangers(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if path.stem not in DASHBOARDS)


if __name__ == "__main__":
    sys.exit(main())
