"""The built page is that of its sources: told by digests everywhere, and by building it anew where it is built."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "playground"
BUILT = ROOT / "server/playground/static"
TOOL = "tools/playground.py"
BUILD_SECONDS = 240


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], cwd=folder, capture_output=True, text=True, timeout=BUILD_SECONDS
    )


def copy_of_the_page(target: Path) -> Path:
    """The tool, the sources and what was built of them, in a folder of their own."""
    (target / "tools").mkdir()
    shutil.copy(ROOT / TOOL, target / TOOL)
    shutil.copytree(SOURCES, target / "playground", ignore=shutil.ignore_patterns("node_modules"))
    shutil.copytree(BUILT, target / "server/playground/static")
    return target


def is_installed() -> bool:
    """Whether npm has installed what the lock file says, in the sources' folder."""
    try:
        installed = json.loads((SOURCES / "node_modules/.package-lock.json").read_text())["packages"]
    except FileNotFoundError:
        return False
    locked = json.loads((SOURCES / "package-lock.json").read_text())["packages"]
    return all(locked.get(path, {}).get("version") == package["version"] for path, package in installed.items())


def test_the_page_is_current_and_within_its_size() -> None:
    checked = run(sys.executable, TOOL, "--check", folder=ROOT)

    assert checked.returncode == 0, checked.stderr


def test_views_style_nothing_of_each_others() -> None:
    """All style sheets are one in the page: a class that two of them begin a rule with would be both at once."""
    owners: dict[str, set[str]] = {}
    for sheet in [*SOURCES.glob("src/views/**/*.css"), *SOURCES.glob("src/components/*.css")]:
        for name in re.findall(r"^\.([a-z-]+)", sheet.read_text(), re.MULTILINE):
            owners.setdefault(name, set()).add(sheet.name)

    assert len(owners) > 50
    assert {name: sheets for name, sheets in owners.items() if len(sheets) > 1} == {}


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("playground/src/app.tsx", "playground/src/app.tsx is not what the page was built from"),
        ("playground/package-lock.json", "playground/package-lock.json is not what"),
        ("playground/public/new.svg", "playground/public/new.svg is not what"),
        ("server/playground/static/assets/app.js", "assets/app.js is not as it was built"),
    ],
)
def test_a_change_that_was_not_built_is_found(tmp_path: Path, file: str, told: str) -> None:
    copy = copy_of_the_page(tmp_path)
    with (copy / file).open("a") as changed:
        changed.write("\n")

    checked = run(sys.executable, TOOL, "--check", folder=copy)

    assert checked.returncode == 1
    assert told in checked.stderr


def test_code_of_others_without_its_licence_is_found(tmp_path: Path) -> None:
    copy = copy_of_the_page(tmp_path)
    licenses = copy / "playground/public/licenses.txt"
    licenses.write_text(licenses.read_text().replace("@preact/signals-core, ", ""))

    checked = run(sys.executable, TOOL, "--check", folder=copy)

    assert "does not name @preact/signals-core" in checked.stderr


def test_a_page_that_is_too_large_is_found(tmp_path: Path) -> None:
    copy = copy_of_the_page(tmp_path)
    (copy / "server/playground/static/assets/noise.js").write_bytes(Random(1).randbytes(200_000))

    checked = run(sys.executable, TOOL, "--check", folder=copy)

    assert checked.returncode == 1
    assert "bytes gzipped, over" in checked.stderr


@pytest.mark.timeout(2 * BUILD_SECONDS)
def test_building_it_anew_gives_the_same_bytes(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no Node.js with npm")
    if not is_installed():
        pytest.skip("what builds the page is not installed: `make playground` installs it")
    copy = copy_of_the_page(tmp_path) / "playground"
    (copy / "node_modules").symlink_to(SOURCES / "node_modules")

    tested = run(npm, "test", folder=copy)
    assert tested.returncode == 0, tested.stdout
    built = run(npm, "run", "build", folder=copy)
    assert built.returncode == 0, built.stdout

    anew = tmp_path / "server/playground/static"
    files = sorted(path.relative_to(anew) for path in anew.rglob("*") if path.is_file())
    kept = sorted(path.relative_to(BUILT) for path in BUILT.rglob("*") if path.is_file())
    assert [*files, Path("sources.json")] == kept
    assert [str(file) for file in files if (anew / file).read_bytes() != (BUILT / file).read_bytes()] == []
