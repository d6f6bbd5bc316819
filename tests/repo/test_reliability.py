"""Each promise of docs/reliability.md has a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_test_that_keeps_a_promise_is_there() -> None:
    def has(file: Path, name: str) -> bool:
        return file.exists() and re.search(rf"^(async )?def {name}\(", file.read_text(), re.MULTILINE) is not None

    missing = [f"{file}::{name}" for file, name in NAMED.findall(PAGE) if not has(ROOT / file, name)]
    assert missing == []


def test_every_promise_names_its_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| promise |")]
    promises = [line for line in rows if line.count(" | ") == 2 and line.split(" | ")[0].endswith(".")]
    assert promises
    assert [line for line in promises if not NAMED.search(line.split(" | ")[2])] == []
