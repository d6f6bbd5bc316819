"""Where the committed models of other frameworks come from, and that they stay small."""

from __future__ import annotations

import json
from typing import Any

from tests.frameworks import make
from tests.frameworks.cases import HERE, REFUSED, SERVED, models

MAX_BYTES = 400_000


def provenance(exporter: str) -> dict[str, Any]:
    return json.loads((HERE / "provenance" / f"{exporter}.json").read_text())


def test_every_model_says_which_exporter_made_it_and_how() -> None:
    made = [name for exporter in make.EXPORTERS for name in provenance(exporter)["models"]]

    assert sorted(made) == sorted([*models(SERVED), *models(REFUSED)])


def test_models_were_made_with_the_packages_that_the_requirements_pin() -> None:
    for exporter in make.EXPORTERS:
        pinned = (HERE / "requirements" / f"{exporter}.txt").read_text().split()
        versions = provenance(exporter)["versions"]
        del versions["python"]
        assert [f"{name}=={version}" for name, version in versions.items() if f"{name}=={version}" not in pinned] == []


def test_all_models_and_cases_together_are_small() -> None:
    files = [path for path in HERE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]

    assert sum(path.stat().st_size for path in files) < MAX_BYTES
