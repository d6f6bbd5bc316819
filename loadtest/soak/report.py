"""What is left of a soak: soak.json, soak.md and soak.png in its folder, and a short table on standard output."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.errors import LoadTestError
from loadtest.figures import finite
from loadtest.soak.player import Played
from loadtest.soak.sampling import Sample
from loadtest.soak.schedule import KINDS
from loadtest.soak.tally import Tally
from loadtest.soak.verdict import WARM_UP_SHARE
from loadtest.verdict import Check

_MIB = 1 << 20
_PLOTTED = ("grpc_unary", "grpc_stream", "http_json", "http_binary", "large_http", "reload")
_BINS = 60


@dataclass(frozen=True)
class Soaked:
    """All that a soak saw."""

    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    samples: Sequence[Sample]
    played: Sequence[Played]
    """By process."""
    tally: Tally
    """Of all processes."""
    checks: Sequence[Check]
    notes: Sequence[str]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def seconds(self) -> float:
        seconds: float = self.settings["seconds"]
        return seconds


@dataclass(frozen=True)
class KindFigures:
    """A row of the table; latencies are of what ended with right answers."""

    ended: int
    refused: int
    p50_ms: float
    p99_ms: float
    most_ms: float


def kind_figures(soaked: Soaked) -> dict[str, KindFigures]:
    """By kind, in the schedule's order."""
    took: dict[str, list[float]] = defaultdict(list)
    for played in soaked.played:
        for _, kind, seconds in played.latencies:
            took[kind].append(seconds * 1e3)
    refused: dict[str, int] = defaultdict(int)
    for (kind, _, _), count in soaked.tally.refusals.items():
        refused[kind] += count
    return {
        kind.name: KindFigures(soaked.tally.ended[kind.name], refused[kind.name], *_three(took[kind.name]))
        for kind in KINDS
    }


def table(soaked: Soaked) -> str:
    """For standard output: kinds, then checks."""
    lines = [f"{'kind':18} {'right':>8} {'refused':>8} {'p50 ms':>9} {'p99 ms':>9} {'most ms':>9}"]
    for name, figures in kind_figures(soaked).items():
        numbers = "".join(f" {value:9.2f}" for value in (figures.p50_ms, figures.p99_ms, figures.most_ms))
        lines.append(f"{name:18} {figures.ended:8} {figures.refused:8}{numbers}")
    lines += ["", *(f"{'ok  ' if check.passed else 'FAIL'} {check.text}" for check in soaked.checks)]
    lines += [f"note {note}" for note in soaked.notes]
    lines += [f"seen {example}" for example in soaked.tally.examples]
    lines.append(f"verdict: {'PASSED' if soaked.passed else 'FAILED'}")
    return "\n".join(lines)


def write_report(soaked: Soaked, folder: Path) -> None:
    """The three files."""
    figures = kind_figures(soaked)
    content = {
        "passed": soaked.passed,
        "settings": soaked.settings,
        "machine": soaked.machine,
        "checks": [asdict(check) for check in soaked.checks],
        "notes": soaked.notes,
        "kinds": {name: asdict(one) for name, one in figures.items()},
        "requests": [
            {"protocol": protocol, "model": model, "sent": sent, "answered": soaked.tally.answered[protocol, model],
             "refused": soaked.tally.refused[protocol, model], "left": soaked.tally.left[protocol, model]}
            for (protocol, model), sent in sorted(soaked.tally.sent.items())
        ],
        "refusals": [
            {"kind": kind, "status": status, "reason": reason, "count": count}
            for (kind, status, reason), count in sorted(soaked.tally.refusals.items())
        ],
        "examples": soaked.tally.examples,
        "samples": [asdict(sample) for sample in soaked.samples],
    }  # fmt: skip
    (folder / "soak.json").write_text(json.dumps(finite(content), indent=1) + "\n")
    (folder / "soak.md").write_text(_markdown(soaked, figures))
    _plot(soaked, folder / "soak.png")


def _markdown(soaked: Soaked, figures: Mapping[str, KindFigures]) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in soaked.settings.items())
    machine = ", ".join(f"{name} {value}" for name, value in soaked.machine.items())
    lines = ["# Soak", "", f"**{'PASSED' if soaked.passed else 'FAILED'}**", "", settings, "", machine, ""]
    lines += ["![samples and latencies over time](soak.png)", "", "| | check |", "|---|---|"]
    lines += [f"| {'ok' if check.passed else '**FAIL**'} | {check.text} |" for check in soaked.checks]
    lines += ["", *(f"- {note}" for note in (*soaked.notes, *soaked.tally.examples))]
    lines += ["", "| kind | what | right | refused | p50 ms | p99 ms | most ms |", "|---|---|---|---|---|---|---|"]
    for kind in KINDS:
        one = figures[kind.name]
        numbers = f"{one.p50_ms:.2f} | {one.p99_ms:.2f} | {one.most_ms:.2f}"
        lines.append(f"| {kind.name} | {kind.what} | {one.ended} | {one.refused} | {numbers} |")
    lines += ["", "| kind | refused with | reason | times |", "|---|---|---|---|"]
    for (name, status, reason), count in sorted(soaked.tally.refusals.items()):
        lines.append(f"| {name} | {status} | {reason.replace('|', '/')} | {count} |")
    return "\n".join([*lines, ""])


def _plot(soaked: Soaked, file: Path) -> None:
    """Eight panels over one axis of time; the warm-up is grey."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise LoadTestError("the package matplotlib is missing, which draws the report: make install-dev") from error
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(4, 2, figsize=(12, 11), sharex=True)
    at_s = [sample.at_s for sample in soaked.samples]
    for axis, (title, lines) in zip(axes.flat, _panels(soaked).items(), strict=True):
        for name, values in lines.items():
            xs, ys = (at_s, values) if len(values) == len(at_s) else _binned_axis(values, soaked.seconds)
            axis.plot(xs, ys, linewidth=0.9, label=name)
        axis.axvspan(0, WARM_UP_SHARE * soaked.seconds, color="0.92")
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.set_ylim(bottom=0)
        if len(lines) > 1:
            axis.legend(fontsize=6)
    for axis in axes[-1]:
        axis.set_xlabel("seconds", fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _panels(soaked: Soaked) -> dict[str, dict[str, Sequence[float]]]:
    samples = soaked.samples
    return {
        "RSS, MiB": {"": [sample.rss_bytes / _MIB for sample in samples]},
        "descriptors and threads": {
            "descriptors": [sample.descriptors for sample in samples],
            "threads": [sample.threads for sample in samples],
        },
        "connections": {
            "gRPC": [sample.grpc_connections for sample in samples],
            "HTTP": [sample.http_connections for sample in samples],
        },
        "requests in flight": {
            "in flight": [sample.in_flight for sample in samples],
            "pending": [sample.pending for sample in samples],
        },
        "event-loop lag between samples, mean, ms": {"": _rates(samples, "lag_us", "lag_looks", 1e-3)},
        "server CPU, cores": {"": _rates(samples, "cpu_seconds", "at_s", 1.0)},
        "p50, ms": _latencies(soaked, 0.50),
        "p99, ms": _latencies(soaked, 0.99),
    }


def _rates(samples: Sequence[Sample], counter: str, per: str, scale: float) -> list[float]:
    """The rise of one field by that of another, from each sample to the next."""
    rates = [0.0]
    for before, after in pairwise(samples):
        divisor = getattr(after, per) - getattr(before, per)
        rates.append((getattr(after, counter) - getattr(before, counter)) / divisor * scale if divisor else 0.0)
    return rates


def _latencies(soaked: Soaked, share: float) -> dict[str, Sequence[float]]:
    """Percentiles of some kinds in each sixtieth of the time; NaN where nothing ended."""
    binned: dict[str, list[list[float]]] = {kind: [[] for _ in range(_BINS)] for kind in _PLOTTED}
    for played in soaked.played:
        for at_s, kind, seconds in played.latencies:
            if kind in binned:
                binned[kind][min(_BINS - 1, int(at_s / soaked.seconds * _BINS))].append(seconds * 1e3)
    return {
        kind: [float(np.quantile(values, share)) if values else float("nan") for values in bins]
        for kind, bins in binned.items()
    }


def _binned_axis(values: Sequence[float], seconds: float) -> tuple[list[float], Sequence[float]]:
    return [(number + 0.5) * seconds / len(values) for number in range(len(values))], values


def _three(milliseconds: Sequence[float]) -> tuple[float, float, float]:
    if not milliseconds:
        return (float("nan"),) * 3
    p50, p99 = np.quantile(milliseconds, (0.5, 0.99))
    return float(p50), float(p99), max(milliseconds)
