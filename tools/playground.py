#!/usr/bin/env python3
"""Builds the playground's page from playground/ into server/playground/static/, which is committed and in the wheel.

`--check` says whether the built files are those of the sources as they stand, without Node.js.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = REPOSITORY / "playground"
BUILT = REPOSITORY / "server" / "playground" / "static"
MANIFEST = "sources.json"
LICENSES = "public/licenses.txt"
BUDGET_BYTES = 150 * 1024
"""Of all built files together, each as gzip makes it."""

Digests = dict[str, str]


def sources(folder: Path) -> list[Path]:
    """The files that decide what is built."""
    named = ("index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts")
    found = [folder / name for name in named]
    for part in ("src", "public"):
        found += [path for path in (folder / part).rglob("*") if path.is_file() and ".test." not in path.name]
    return sorted(found)


def built(folder: Path) -> list[Path]:
    """The built files, without the manifest."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)


def digests(paths: list[Path], folder: Path) -> Digests:
    """SHA-256 of each file, by its path in the folder."""
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def differences(recorded: Digests, found: Digests) -> list[str]:
    """The names of files that were changed, added or removed."""
    return sorted(name for name in recorded.keys() | found.keys() if recorded.get(name) != found.get(name))


def bundled(folder: Path) -> list[str]:
    """The names of the packages whose code is in the page, by the lock file."""
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    return [path.removeprefix("node_modules/") for path, each in packages.items() if path and not each.get("dev")]


def gzipped_bytes(folder: Path) -> int:
    """What a browser has to load, at most."""
    return sum(len(gzip.compress(path.read_bytes(), 9)) for path in built(folder))


def check(source_folder: Path, built_folder: Path) -> list[str]:
    """What is wrong with the built files, a line each."""
    try:
        manifest = json.loads((built_folder / MANIFEST).read_text())
    except FileNotFoundError:
        return [f"{built_folder} has not been built"]
    changed = differences(manifest["sources"], digests(sources(source_folder), source_folder))
    touched = differences(manifest["built"], digests(built(built_folder), built_folder))
    size = gzipped_bytes(built_folder)
    named = (source_folder / LICENSES).read_text().split()
    unnamed = [name for name in bundled(source_folder) if f"{name}," not in named]
    return [
        *(f"playground/{name} is not what the page was built from" for name in changed),
        *(f"{name} is not as it was built" for name in touched),
        *(f"playground/{LICENSES} does not name {name}, which is in the page" for name in unnamed),
        *([f"the page has {size} bytes gzipped, over {BUDGET_BYTES}"] if size > BUDGET_BYTES else []),
    ]


def build(source_folder: Path, built_folder: Path) -> None:
    """Install what the lock file says, test, build, and write down of what. Raises `CalledProcessError`."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("building the page needs Node.js with npm (Debian: apt-get install nodejs npm); serving it does not")
    for command in (("ci",), ("test",), ("run", "build", "--", "--outDir", str(built_folder))):
        subprocess.run([npm, *command], cwd=source_folder, check=True)
    manifest = {
        "sources": digests(sources(source_folder), source_folder),
        "built": digests(built(built_folder), built_folder),
    }
    (built_folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="build nothing; exit with 1 where the page is not current")
    parser.add_argument("--out", type=Path, default=BUILT, help="where to build (default: server/playground/static)")
    given = parser.parse_args()
    out = given.out.resolve()
    if not given.check:
        build(SOURCES, out)
    if problems := check(SOURCES, out):
        sys.exit("\n".join([*problems, "make playground builds it anew"]))
    print(f"the page is current: {gzipped_bytes(out):,} of {BUDGET_BYTES:,} bytes gzipped")


if __name__ == "__main__":
    main()
