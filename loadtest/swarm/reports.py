"""What was measured, as files: percentiles (CSV), whole distributions (.hgrm, JSON). Pure but for the files."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtest.errors import LoadTestError
from loadtest.swarm.latencies import Kind, Tally, summary, total
from loadtest.swarm.levels import Book, Level

ALL: Kind = ("", "Aggregated")
"""What Locust calls its last row."""


def rows(totals: Mapping[Kind, Tally]) -> list[dict[str, Any]]:
    """A row for each kind of request and one for all together; latencies in milliseconds with three decimals."""
    listed = {kind: totals[kind] for kind in sorted(totals)} | {ALL: total(totals)}
    return [{"type": kind[0], "name": kind[1], **summary(tally)} for kind, tally in listed.items() if tally.requests]


def as_csv(totals: Mapping[Kind, Tally]) -> str:
    """`rows`, with a line of names before."""
    lines = rows(totals)
    text = io.StringIO()
    if lines:
        writer = csv.DictWriter(text, fieldnames=list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return text.getvalue()


def write(prefix: Path, book: Book, *, busy: bool) -> None:
    """PREFIX_percentiles.csv, PREFIX_latencies.json, and an .hgrm file in milliseconds for each kind and for all.

    `busy`: whether a process that sent was short of CPU, so that its own delays are in what it measured.
    """
    prefix.parent.mkdir(parents=True, exist_ok=True)
    _named(prefix, "_percentiles.csv").write_text(as_csv(book.totals))
    for (_, name), tally in (book.totals | {ALL: total(book.totals)}).items():
        with _named(prefix, f"_{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}.hgrm").open("wb") as file:
            if tally.answers:
                tally.histogram.output_percentile_distribution(file, 1000.0)
    kinds = [{"type": kind[0], "name": kind[1], **tally.as_message()} for kind, tally in sorted(book.totals.items())]
    levels = [asdict(level) for level in book.levels]
    content = {"busy": busy, "rows": rows(book.totals), "kinds": kinds, "levels": levels}
    _named(prefix, "_latencies.json").write_text(json.dumps(content, indent=1) + "\n")


def _named(prefix: Path, ending: str) -> Path:
    return prefix.with_name(prefix.name + ending)


@dataclass(frozen=True)
class Measured:
    """What `write` wrote."""

    totals: Mapping[Kind, Tally]
    levels: tuple[Level, ...]
    busy: bool


def read(prefix: Path) -> Measured:
    """The content of PREFIX_latencies.json; a LoadTestError where a test left none."""
    path = _named(prefix, "_latencies.json")
    if not path.exists():
        raise LoadTestError(f"Locust left no {path}: it was stopped before its test had ended; see above")
    content = json.loads(path.read_text())
    totals = {(kind["type"], kind["name"]): Tally.from_message(kind) for kind in content["kinds"]}
    return Measured(totals, tuple(Level(**level) for level in content["levels"]), content["busy"])


def add_text(page: Path, text: str) -> None:
    """Puts `text` under Locust's report, as it is. A LoadTestError where that is no page."""
    head, end, tail = page.read_text().rpartition("</body>")
    if not end:
        raise LoadTestError(f"{page} is not the page that Locust writes: it has no </body>")
    section = f'<pre style="margin:2em;white-space:pre-wrap">{html.escape(text)}</pre>\n'
    page.write_text(head + section + end + tail)


def forget(prefix: Path) -> None:
    """Removes what an earlier test left, so that it cannot be taken for this one's."""
    for ending in ("_percentiles.csv", "_latencies.json", "_*.hgrm"):
        for path in prefix.parent.glob(prefix.name + ending):
            path.unlink()
