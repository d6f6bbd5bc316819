"""Latency against offered rate: a table, and a plot of it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.mlperf.report import Bounds, Report


def write_sweep(reports: Sequence[Report], bounds: Bounds, title: str, out: Path) -> list[Path]:
    """Leaves sweep.csv, sweep.png and sweep.svg in `out`; a run that is not valid is drawn hollow."""
    table = out / "sweep.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(reports[0].as_json()))
        writer.writeheader()
        writer.writerows(report.as_json() for report in reports)
    return [table, *_draw(reports, bounds, title, out)]


def _draw(reports: Sequence[Report], bounds: Bounds, title: str, out: Path) -> list[Path]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise LoadTestError("matplotlib is missing, which draws the plot: pip install 'convoy[load]'") from error

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    rates = [report.rate for report in reports]
    for name, colour in (("p50", "tab:blue"), ("p99", "tab:red")):
        values = [getattr(report, f"{name}_ms") for report in reports]
        axes.plot(rates, values, color=colour, label=name)
        for valid in (True, False):
            points = [(r.rate, y) for r, y in zip(reports, values, strict=True) if r.valid is valid]
            faces = colour if valid else "white"
            axes.scatter([x for x, _ in points], [y for _, y in points], facecolors=faces, edgecolors=colour, zorder=3)
    axes.axhline(bounds.p99_ms, color="grey", linestyle="--", linewidth=1, label=f"bound of p99, {bounds.p99_ms:g} ms")
    axes.set(title=title, xlabel="offered requests/s", ylabel="latency from the schedule, ms", yscale="log")
    axes.set_xlim(left=0)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(title="hollow: not valid")
    files = [out / "sweep.png", out / "sweep.svg"]
    for file in files:
        figure.savefig(file)
    return files
