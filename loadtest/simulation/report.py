"""A simulation's points as a table, as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loadtest.errors import LoadTestError
from loadtest.simulation.points import Point, Scenario

COLUMNS = ("policy", "load", "arrivals/s", "goodput/s", "of arrivals", "of capacity", "p50 ms", "p99 ms", "rows/batch",
           "busy", "not served")  # fmt: skip


def headline(scenario: Scenario) -> str:
    """What is simulated, in a line."""
    return (
        f"{scenario.costs.model}: batches of up to {scenario.costs.max_rows} rows, {_servers(scenario)}capacity "
        f"{scenario.capacity:,.0f}/s, objective {scenario.objective * 1e3:g} ms, arrivals {scenario.arrivals}, "
        f"seed {scenario.seed}"
    )


def _servers(scenario: Scenario) -> str:
    lanes = f"{scenario.lanes} lane(s), "
    return lanes if scenario.servers == 1 else f"{scenario.servers} servers ({scenario.balancer}) of {lanes}"


def table(points: Sequence[Point], scenario: Scenario) -> str:
    """A line per point, in columns."""
    lines = [COLUMNS, *(_cells(point, scenario) for point in points)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:-1], widths[1:-1]), line[-1]]) for line in lines
    )


def notes(points: Sequence[Point], wall_seconds: float, processes: int, scenario: Scenario) -> str:
    """How much was simulated, how fast, and how sound it is where it was cut into stretches."""
    requests = sum(point.tally.arrived for point in points)
    virtual = sum(point.tally.seconds for point in points)
    cpu = sum(point.cpu_seconds for point in points)
    pace = f"{cpu:.1f} s of processor time, {1e6 * cpu / max(1, requests):.2f} µs per request"
    lines = [
        f"{requests:,} requests in {virtual:,.0f} virtual s: {wall_seconds:.1f} s, {processes} process(es), {pace}"
    ]
    if scenario.stretches > 1:
        gap = sum(point.gap for point in points)
        lines.append(
            f"{scenario.stretches} stretches, each after {scenario.overlap:g} s that are not counted; where they meet "
            f"they differ by {gap} requests that wait or run"
            + ("" if gap * 10_000 <= requests else ": THEY DO NOT FIT. Simulate fewer, or with more overlap")
        )
    return "\n".join(lines)


def write_report(points: Sequence[Point], scenario: Scenario, out: Path) -> list[Path]:
    """`results.json` and `simulation.png` in folder `out`. Raises `LoadTestError`."""
    results, picture = out / "results.json", out / "simulation.png"
    try:
        out.mkdir(parents=True, exist_ok=True)
        results.write_text(json.dumps(_document(points, scenario), indent=2) + "\n")
        _draw(points, scenario, picture)
    except OSError as error:
        raise LoadTestError(f"{out}: the report cannot be written: {error}") from error
    return [results, picture]


def _load(point: Point, scenario: Scenario) -> float:
    return point.rate / scenario.capacity


def _reasons(point: Point) -> dict[str, int]:
    """Why requests were not answered: the error's name where they were refused, or `expired`."""
    reasons = dict(point.tally.refused)
    return reasons | {"expired": point.tally.expired} if point.tally.expired else reasons


def _cells(point: Point, scenario: Scenario) -> tuple[str, ...]:
    tally = point.tally
    arrived = max(1, tally.arrived)
    reasons = ", ".join(f"{name} {count / arrived:.1%}" for name, count in sorted(_reasons(point).items()))
    return (
        point.policy,
        f"{_load(point, scenario):.2f}",
        f"{point.rate:,.0f}",
        f"{point.goodput:,.0f}",
        f"{tally.good / arrived:.1%}",
        f"{point.goodput / scenario.capacity:.1%}",
        f"{tally.latency(0.5) * 1e3:.3g}",
        f"{tally.latency(0.99) * 1e3:.3g}",
        f"{tally.mean_rows:.1f}",
        f"{tally.busy / tally.seconds / scenario.all_lanes:.0%}",
        reasons or "–",
    )


def _document(points: Sequence[Point], scenario: Scenario) -> dict[str, Any]:
    return {
        "scenario": {
            "model": scenario.costs.model,
            "buckets": [
                {"rows": line.rows, "p50_us": line.typical_seconds * 1e6, "p99_us": line.worst_seconds * 1e6}
                for line in scenario.costs.buckets
            ],
            "capacity_per_second": scenario.capacity,
            "objective_ms": scenario.objective * 1e3,
            "arrivals": scenario.arrivals,
            "lanes": scenario.lanes,
            "servers": scenario.servers,
            "balancer": scenario.balancer,
            "rows": scenario.rows,
            "seed": scenario.seed,
            "stretches": scenario.stretches,
            "overlap_seconds": scenario.overlap,
        },
        "points": [_figures(point, scenario) for point in points],
    }


def _figures(point: Point, scenario: Scenario) -> dict[str, Any]:
    tally = point.tally
    answered = tally.answered > 0
    return {
        "policy": point.policy,
        "load": _load(point, scenario),
        "seconds": tally.seconds,
        "arrived": tally.arrived,
        "answered": tally.answered,
        "answered_in_time": tally.good,
        "not_served": _reasons(point),
        "present_at_start": tally.present_at_start,
        "present_at_end": tally.present_at_end,
        "arrivals_per_second": point.rate,
        "goodput_per_second": point.goodput,
        "mean_latency_ms": tally.mean_latency * 1e3 if answered else None,
        "latency_ms": {f"p{share * 100:g}": tally.latency(share) * 1e3 for share in (0.5, 0.9, 0.99, 0.999)}
        if answered
        else None,
        "rows_per_batch": tally.mean_rows,
        "batches_by_rows": {str(rows): int(count) for rows, count in enumerate(tally.batches) if count},
        "busy": tally.busy / tally.seconds / scenario.all_lanes,
        "stretch_gap_requests": point.gap,
        "cpu_seconds": point.cpu_seconds,
    }


def _draw(points: Sequence[Point], scenario: Scenario, path: Path) -> None:
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    except ImportError as error:
        raise LoadTestError("the plot needs matplotlib: pip install -e '.[load]'") from error
    figure = Figure(figsize=(15, 5), layout="constrained")
    panels: list[tuple[str, Callable[[Point], float]]] = [
        ("goodput, share of capacity", lambda point: point.goodput / scenario.capacity),
        ("p99 of answers, ms", lambda point: point.tally.latency(0.99) * 1e3),
        ("rows per batch, mean", lambda point: point.tally.mean_rows),
    ]
    policies = list(dict.fromkeys(point.policy for point in points))
    axes = figure.subplots(1, len(panels))
    for ax, (title, value) in zip(axes, panels, strict=True):
        if len(policies) == len(points):  # one load only
            ax.barh(policies[::-1], [value(point) for point in reversed(points)])
        else:
            ax.set_prop_cycle(color=colormaps["tab20"](range(20)))
            for policy in policies:
                mine = [point for point in points if point.policy == policy]
                ax.plot(
                    [_load(point, scenario) for point in mine],
                    [value(point) for point in mine],
                    marker="o",
                    linewidth=3 if policy.startswith("slo") else 1,
                    label=policy,
                )
            ax.set_xlabel("load, arrivals ÷ capacity")
        ax.set_title(title)
        ax.grid(alpha=0.3)
    if len(policies) < len(points):
        axes[1].set_yscale("log")
        axes[1].axhline(scenario.objective * 1e3, color="black", linestyle=":")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    else:
        for ax in axes[1:]:
            ax.set_yticklabels([])
    figure.suptitle(headline(scenario), fontsize="medium")
    figure.savefig(path, dpi=120)
