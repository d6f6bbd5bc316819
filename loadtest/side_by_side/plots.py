"""The pictures of the report: bars, one for each server that runs the model, as small SVG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtest.errors import LoadTestError
from loadtest.side_by_side.summary import START, Figure, Run, Summary

_OURS, _OTHERS = "#1f77b4", "#9aa5b1"
_PANEL_INCHES = 3.4
_LINE_INCHES = 0.27


def draw(run: Run, summary: Summary, folder: Path) -> dict[str, str]:
    """Writes the pictures to `folder`; returns their paths from its parent, by what they show."""
    folder.mkdir(parents=True, exist_ok=True)
    busiest = {subject: summary.loads(subject)[-1] for subject in run.subjects if summary.loads(subject)}
    panels: dict[str, tuple[str, str, dict[str, str]]] = {
        "requests/s at the most in flight": ("throughput", "requests_per_second", busiest),
        "server CPU per request, µs": ("cpu", "cpu_us_per_request", busiest),
        "p99, ms, at the most in flight": ("p99", "p99_ms", busiest),
        "memory under load, MiB": ("memory", "peak_memory_mib", dict.fromkeys(busiest, START)),
    }
    paths = {}
    for title, (name, figure, places) in panels.items():
        file = folder / f"benchmarks-{name}.svg"
        if _bars(run, summary, title, figure, places, file):
            paths[title] = f"{folder.name}/{file.name}"
    return paths


def _bars(run: Run, summary: Summary, title: str, name: str, loads: Mapping[str, str], file: Path) -> bool:
    """One panel per subject. False where there is nothing to show."""
    shown: dict[str, dict[str, Figure]] = {}
    for subject, load in loads.items():
        bars = {
            server.name: figures[name]
            for server in run.servers
            if server.runs_model and name in (figures := summary.figures(server.name, subject, load))
        }
        if bars:
            shown[subject] = bars
    if not shown:
        return False
    pyplot = _pyplot()
    most = max(map(len, shown.values()))
    size = (_PANEL_INCHES * len(shown), 0.8 + _LINE_INCHES * most)
    figure, axes = pyplot.subplots(1, len(shown), figsize=size, squeeze=False)
    for axis, (subject, bars) in zip(axes[0], shown.items(), strict=True):
        where = loads[subject]
        _panel(axis, run, bars)
        axis.set_title(run.subjects[subject] + (f", ×{where}" if where.isdigit() else ""), fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    # No date and no random ids: equal figures give equal files.
    figure.savefig(file, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return True


def _panel(axis: Any, run: Run, bars: Mapping[str, Figure]) -> None:
    servers = [server for server in reversed(run.servers) if server.name in bars]
    values = [bars[server.name] for server in servers]
    colours = [_OURS if server.ours else _OTHERS for server in servers]
    axis.barh([server.title for server in servers], [value.median for value in values], color=colours)
    for place, value in enumerate(values):
        axis.plot([value.low, value.high], [place, place], color="black", linewidth=1)
        axis.annotate(
            f" {value.median:,.0f}" if value.median >= 100 else f" {value.median:.3g}",
            (value.high, place),
            fontsize=7,
            va="center",
        )
    axis.margins(x=0.25)
    axis.locator_params(axis="x", nbins=5)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)


def _pyplot() -> Any:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise LoadTestError("the package matplotlib is missing, which draws the report: make install-dev") from error
    mpl.use("svg")
    # Text stays text: smaller files that can be searched.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "benchmarks"})
    from matplotlib import pyplot as plt

    return plt
