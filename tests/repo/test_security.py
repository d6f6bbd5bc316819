"""SECURITY.md: the tests that it names are there, and so is what it links to."""

from __future__ import annotations

import re

from tests.repo.test_docs import ROOT

TEXT = (ROOT / "SECURITY.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def is_there(path: str, name: str) -> bool:
    file = ROOT / path
    return file.exists() and re.search(rf"^(?:async )?def {name}\(", file.read_text(), re.MULTILINE) is not None


def test_every_test_that_is_named_is_there() -> None:
    named = NAMED.findall(TEXT)
    assert len(named) > 30
    assert [f"{path}::{name}" for path, name in named if name and not is_there(path, name)] == []
    assert [path for path, _ in named if not (ROOT / path).exists()] == []


def test_every_defence_names_a_test() -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", TEXT.partition("### Clients")[2], re.MULTILINE)
    assert len(rows) > 15
    assert [attack for attack, _, tests in rows if tests not in ("test", "---") and not NAMED.search(tests)] == []


def test_links_lead_to_files() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
