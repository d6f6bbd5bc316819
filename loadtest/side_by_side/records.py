"""What turns have shown, a JSON file each, so that a run can be taken up again and a report drawn at any time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

Load = dict[str, float]
"""Figures of a volley; each name ends with its unit."""


@dataclass(frozen=True)
class Record:
    """One turn of one server with one subject."""

    server: str
    subject: str
    round: int
    failure: str | None = None
    """Why it ended early; what was measured before is kept."""
    server_figures: Load = field(default_factory=dict)
    """Start-up and memory."""
    loads: dict[str, Load] = field(default_factory=dict)
    """By the number in flight."""
    objective: Load = field(default_factory=dict)
    """Poisson arrivals."""


class Records:
    """A folder of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, server: str, subject: str, number: int) -> Path:
        return self.folder / f"{subject}.{server}.{number}.json"

    def write(self, record: Record) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(record.server, record.subject, record.round)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(record), indent=1) + "\n")
        os.replace(part, path)

    def have(self, server: str, subject: str, number: int) -> bool:
        return self.path(server, subject, number).exists()

    def __iter__(self) -> Iterator[Record]:
        for path in sorted(self.folder.glob("*.*.*.json")):
            yield Record(**json.loads(path.read_text()))
