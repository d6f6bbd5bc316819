"""The wall clock may jump: nothing that is waited for, measured or decided may rest on it."""

from __future__ import annotations

import ast
from pathlib import Path

SERVER = Path(__file__).parents[2] / "server"

WALL_CLOCK = frozenset({"time", "time_ns", "localtime", "gmtime", "ctime", "now", "utcnow", "today"})
"""Of the modules `time` and `datetime`."""

ALLOWED = {
    "frontends/access.py": "whether a token has expired",
    "frontends/rest/connection.py": "the header Date",
    "models/batch_accounts.py": "last_inference of the statistics",
    "models/answer_cache.py": "last_inference of the statistics",
    "models/ensemble_model.py": "last_inference of the statistics",
    "tracing/otlp.py": "timestamps of spans, taken anew for each trace",
}
"""Who tells people what time it is, and what of."""


def wall_clock_calls(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "time"
        for alias in node.names
    }
    assert not imported, f"{path}: import the module time, so that its calls can be told apart: {imported}"
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in WALL_CLOCK
        and isinstance(node.value, ast.Name)
        and node.value.id in ("time", "datetime", "date")
    ]


def test_only_those_who_tell_people_the_time_look_at_the_wall_clock() -> None:
    found = {str(path.relative_to(SERVER)) for path in SERVER.rglob("*.py") if wall_clock_calls(path)}
    assert found == set(ALLOWED)
